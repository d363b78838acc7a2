"""The types of settings: a value as JSON, TOML or Python code gives it becomes one of the setting's type."""

from __future__ import annotations

import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from quant.errors import SettingsError

_SHOWN = 60  # characters of a wrong value in a message


def value_of_kind(name: str, kind: str, value: Any) -> Any:  # noqa: ANN401 - settings hold several types
    """A value in the type that a setting's annotation names: texts become paths, NumPy's numbers Python's.

    Args:
        name: The setting.
        kind: Its annotation, such as `Path | None`.
        value: What was given.

    Raises:
        SettingsError: It is of another type.
    """
    if value is None and kind.endswith("| None"):
        return None
    if kind.startswith("Path"):
        expected, fits = "a path in quotes", isinstance(value, str | os.PathLike) and value != ""
    elif kind == "bool":
        expected, fits = "true or false", isinstance(value, bool)
    elif kind.startswith("int"):
        expected, fits = "a whole number", isinstance(value, Integral) and not isinstance(value, bool)
    elif kind.startswith("float"):
        expected, fits = "a number", isinstance(value, Real) and not isinstance(value, bool)
    elif kind.startswith("tuple"):
        expected = "a list of texts in quotes"
        fits = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    else:
        expected, fits = "a text in quotes", isinstance(value, str | os.PathLike)  # a preprocessing may be a file
    if not fits:
        raise SettingsError(f"{name}: expected {expected}, found {short(value)}")
    try:
        return _converted(kind, value)
    except OverflowError:
        raise SettingsError(f"{name}: expected a number, found {short(value)}") from None


def _converted(kind: str, value: Any) -> Any:  # noqa: ANN401 - settings hold several types
    if kind.startswith("Path"):
        return Path(value)
    if kind.startswith("int"):
        return int(value)
    if kind.startswith("float"):
        return float(value)
    if kind.startswith("tuple"):
        return tuple(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def short(value: object) -> str:
    """A value for a message, cut if it is long."""
    if isinstance(value, int) and value.bit_length() > 8 * _SHOWN:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
