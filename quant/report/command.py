"""The command that repeats a run."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from quant.settings import RunSettings


def command_from_settings(settings: RunSettings) -> str:
    """A `calib run` line with every setting in it, so that it does the same beside any `calib.toml`.

    Paths stand as they were given, relative to the working folder. What is not used is left out: a parameter of another
    algorithm, an empty text, 0 for "no limit".
    """
    words = ["calib", "run"]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if (
            value is None
            or value is False
            or value == ""
            or (value == 0 and field.name == "workspace")
            or (field.name == "percentile" and settings.algo != "percentile")
        ):
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if value is not True:
            text = f"{value:.15g}" if isinstance(value, float) else str(value)
            words.append(f"./{text}" if isinstance(value, Path) and text.startswith("-") else text)
    return shlex.join(words)
