"""The task as options say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings out of options: `--no-labels` is another way to say `--task none`."""
    values = dict(options)
    if values.pop("no_labels", False):
        if values.get("task") not in (None, "none"):
            raise click.UsageError(f"--no-labels is --task none; leave it out with --task {values['task']}")
        values["task"] = "none"
    return values
