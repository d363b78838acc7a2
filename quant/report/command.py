"""The command that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from quant.errors import QuantError
from quant.settings import RunSettings

_COMPARED = (  # what `calib compare` can be told
    "data", "eval", "labels", "classes", "preprocess", "batch_size", "seed", "backend", "metric", "max_drop", "max_bad",
    "out",
)  # fmt: skip


def command_from_settings(settings: RunSettings) -> str:
    """A `calib run` line with every setting in it, so that it does the same beside any `calib.toml`.

    Paths stand as they were given, relative to the working folder. What is not used is left out: a parameter of another
    algorithm, an empty text, 0 for "no limit".
    """
    names = [field.name for field in fields(settings)]
    return shlex.join(["calib", "run", *_words(settings, names)])


def settings_from_command(command: str, folder: Path) -> RunSettings:
    """The settings of a line that `command_from_settings` wrote.

    Args:
        command: The line.
        folder: Where it was given: its relative paths begin there.

    Raises:
        QuantError: It is no such line.
    """
    kinds = {field.name: str(field.type) for field in fields(RunSettings)}
    values: dict[str, Any] = {}
    try:
        rest = shlex.split(command)[2:]
        while rest:
            name = rest.pop(0).removeprefix("--").replace("-", "_")
            values[name] = True if kinds[name] == "bool" else _value(name, kinds[name], rest.pop(0), folder)
    except (KeyError, IndexError, ValueError) as error:
        raise QuantError(f"expected a line of calib run, found '{command}'") from error
    return RunSettings(**values)


def _value(name: str, kind: str, text: str, folder: Path) -> Any:  # noqa: ANN401 - settings hold several types
    if kind.startswith("Path"):
        return folder / text
    if kind.startswith("int"):
        return int(text)
    if kind == "float":
        return float(text)
    is_file = name == "metric" or (name == "preprocess" and text.endswith(".toml"))
    return str(folder / text) if is_file else text


def compare_command(settings: RunSettings, first: Path, second: Path, taken: Collection[str] = ()) -> str:
    """The `calib compare` line of two files, with every setting that it knows but those taken from their reports."""
    names = [name for name in _COMPARED if name not in taken]
    return shlex.join(["calib", "compare", _text(first), _text(second), *_words(settings, names)])


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
