"""Values of settings from files, checked against the types of `RunSettings`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from quant.errors import SettingsError
from quant.settings.run_settings import RunSettings

KINDS = {field.name: str(field.type) for field in fields(RunSettings)}
_SHOWN = 60  # characters of a wrong value in a message


def checked_value(name: str, value: Any) -> Any:  # noqa: ANN401 - settings hold several types
    """A value as JSON and TOML hold it, if it is of the setting's type; a path stays a text.

    Raises:
        SettingsError: It is of another type.
    """
    kind = KINDS[name]
    if value is None and kind.endswith("| None"):
        return None
    if kind.startswith("Path"):
        expected, fits = "a path in quotes", isinstance(value, str)
    elif kind == "bool":
        expected, fits = "true or false", isinstance(value, bool)
    elif kind.startswith("int"):
        expected, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif kind.startswith("float"):
        expected, fits = "a number", isinstance(value, int | float) and not isinstance(value, bool)
    elif kind.startswith("tuple"):
        expected = "a list of texts in quotes"
        fits = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    else:
        expected, fits = "a text in quotes", isinstance(value, str)
    if not fits:
        raise SettingsError(f"{name}: expected {expected}, found {short(value)}")
    try:
        if kind.startswith("tuple"):
            return tuple(value)
        return float(value) if kind.startswith("float") else value
    except OverflowError:
        raise SettingsError(f"{name}: expected a number, found {short(value)}") from None


def short(value: object) -> str:
    """A value for a message, cut if it is long."""
    if isinstance(value, int) and value.bit_length() > 8 * _SHOWN:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
