"""Values of settings from files, checked against the types of `RunSettings`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from quant.settings.kinds import value_of_kind
from quant.settings.run_settings import RunSettings

KINDS = {field.name: str(field.type) for field in fields(RunSettings)}


def checked_value(name: str, value: Any) -> Any:  # noqa: ANN401 - settings hold several types
    """A value as JSON and TOML hold it, if it is of the setting's type; a path stays a text.

    Raises:
        SettingsError: It is of another type.
    """
    found = value_of_kind(name, KINDS[name], value)
    return value if KINDS[name].startswith("Path") else found
