"""Preprocessing in TOML: one key a field, and `preset` for what the other keys start from."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

from datasets.errors import DatasetError
from datasets.preprocessing import PRESETS, Preprocessing
from datasets.text_file import text_from_file

_KEYS = tuple(field.name for field in fields(Preprocessing))


def preprocessing_from_toml(path: Path) -> Preprocessing:
    """Reads a description; what `Preprocessing.from_toml` does.

    `size` may be one number for a square, `mean` and `std` one number for all channels. Without `name`, the
    file's name counts.

    Raises:
        DatasetError: `file.toml: ...` for a missing file, broken TOML, unknown keys, wrong types or values.
    """
    table = _read_table(path)
    unknown = [key for key in table if key not in (*_KEYS, "preset")]
    if unknown:
        raise DatasetError(f"{path}: unknown key {unknown[0]!r}; the keys are preset, {', '.join(_KEYS)}")
    base = table.pop("preset", None)
    if base is not None and not (isinstance(base, str) and base in PRESETS):
        raise DatasetError(f"{path}: no preset {base!r}; there are: {', '.join(PRESETS)}")
    for key in ("mean", "std"):
        if isinstance(table.get(key), (int, float)):
            table[key] = [table[key]]
    if isinstance(table.get("size"), int):
        table["size"] = [table["size"], table["size"]]
    try:
        return replace(PRESETS[base] if base else Preprocessing(), **{"name": path.stem, **table})
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def toml_from_preprocessing(preprocessing: Preprocessing) -> str:
    """Writes a description; what `Preprocessing.to_toml` does. An open size has no line, as TOML has no null."""
    # JSON's texts, numbers, booleans and lists are TOML's too.
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in preprocessing.to_dict().items()
        if value is not None
    ]
    return "".join(lines)


def _read_table(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(text_from_file(path, "preprocessing description in TOML"))
    except tomllib.TOMLDecodeError as error:
        raise DatasetError(f"{path}: not valid TOML: {error}") from None
    return table
