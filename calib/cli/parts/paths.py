"""Paths on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class _GivenPath(click.Path):
    """A path that says something: an empty one would be the working folder, where a variable is not set."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click has it
        if value == "":
            self.fail("expected a path, found an empty text; is a variable not set?", param, ctx)
        return super().convert(value, param, ctx)


FILE = _GivenPath(path_type=Path)
