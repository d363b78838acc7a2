"""The command that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from quant.settings import RunSettings

_COMPARED = (  # what `calib compare` can be told
    "data", "eval", "labels", "classes", "preprocess", "batch_size", "seed", "metric", "max_drop", "max_bad", "out",
)  # fmt: skip


def command_from_settings(settings: RunSettings) -> str:
    """A `calib run` line with every setting in it, so that it does the same beside any `calib.toml`.

    Paths stand as they were given, relative to the working folder. What is not used is left out: a parameter of another
    algorithm, an empty text, 0 for "no limit".
    """
    names = [field.name for field in fields(settings)]
    return shlex.join(["calib", "run", *_words(settings, names)])


def compare_command(settings: RunSettings, first: Path, second: Path) -> str:
    """The `calib compare` line of two files, with every setting that it knows."""
    return shlex.join(["calib", "compare", _text(first), _text(second), *_words(settings, _COMPARED)])


def _words(settings: RunSettings, names: Iterable[str]) -> list[str]:
    words: list[str] = []
    for name in names:
        value = getattr(settings, name)
        if (
            value is None
            or value is False
            or value == ""
            or (value == 0 and name == "workspace")
            or (name == "percentile" and settings.algo != "percentile")
        ):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(_text(value))
    return words


def _text(value: object) -> str:
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    return f"./{text}" if isinstance(value, Path) and text.startswith("-") else text
