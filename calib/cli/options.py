"""Options of `calib run` that other commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


def run_options(*names: str) -> list[click.Parameter]:
    """The options of `calib run` with these names, for use in another command."""
    from calib.cli.run import command

    known = {parameter.name: parameter for parameter in command.params}
    return [known[name] for name in names]


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of options: `--no-labels` is another way to say `--task none`."""
    values = dict(options)
    if values.pop("no_labels", False):
        if values.get("task") not in (None, "none"):
            raise click.UsageError(f"--no-labels is --task none; leave it out with --task {values['task']}")
        values["task"] = "none"
    return values


def parsed_size(text: str | None, option: str) -> tuple[int, int] | None:
    """Height and width from HxW; None stays None."""
    if text is None:
        return None
    height, separator, width = text.lower().partition("x")
    if not (separator and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise click.BadParameter(f"expected HEIGHTxWIDTH such as 256x256, found '{text}'", param_hint=option)
    return int(height), int(width)
