"""Settings from `calib.toml` and from options; options win."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from quant.errors import SettingsError
from quant.settings.run_settings import RunSettings

CONFIG_NAME = "calib.toml"


def settings_from_options(options: Mapping[str, Any], folder: Path | None = None) -> RunSettings:
    """Settings from the `calib.toml` in a folder, if there is one, and from options, which override it.

    Args:
        options: Field values; None stands for "not given".
        folder: Where to look for `calib.toml` and the model; the working folder by default.

    Raises:
        SettingsError: Unknown keys, wrong types, no data, or no single model.
    """
    folder = folder if folder is not None else Path()
    config = folder / CONFIG_NAME
    values = _values_from_toml(config) if config.is_file() else {}
    values.update({key: value for key, value in options.items() if value is not None})
    settings = RunSettings(**values)
    if settings.data is None:
        raise SettingsError(
            f"data: expected a folder of images or an HDF5 pack, found nothing; give --data or put it in {CONFIG_NAME}"
        )
    return settings if settings.model is not None else replace(settings, model=_only_model(folder))


def _only_model(folder: Path) -> Path:
    candidates = sorted(folder.glob("*.onnx"))
    if len(candidates) == 1:
        return candidates[0]
    listed = f"{len(candidates)}: {', '.join(path.name for path in candidates[:8])}" if candidates else "none"
    raise SettingsError(f"model: expected one *.onnx in {folder.absolute()}, found {listed}; choose with --model")


def _values_from_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    kinds = {field.name: str(field.type) for field in fields(RunSettings)}
    values = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise SettingsError(f"{path}: unknown key '{key}'; known are {', '.join(kinds)}")
        values[name] = _typed(path, key, kinds[name], value)
    if "preprocess" in values and values["preprocess"].endswith(".toml"):
        values["preprocess"] = str(path.parent / values["preprocess"])
    if "metric" in values:
        values["metric"] = str(path.parent / values["metric"])
    return values


def _typed(path: Path, key: str, kind: str, value: Any) -> Any:  # noqa: ANN401 - TOML holds several types
    if kind.startswith("Path"):
        expected, fits = "a path in quotes", isinstance(value, str)
        value = path.parent / value if fits else value
    elif kind == "bool":
        expected, fits = "true or false", isinstance(value, bool)
    elif kind.startswith("int"):
        expected, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif kind == "float":
        expected, fits = "a number", isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    else:
        expected, fits = "a text in quotes", isinstance(value, str)
    if not fits:
        raise SettingsError(f"{path}: {key}: expected {expected}, found {value!r}")
    return value
