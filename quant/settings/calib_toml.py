"""Settings from `calib.toml` and from options; options win."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from calib.regular_files import resolved
from quant.errors import SettingsError
from quant.settings.build_settings import BuildSettings
from quant.settings.kinds import short
from quant.settings.run_settings import RunSettings
from quant.settings.toml_file import table_from_toml_file
from quant.settings.user_code import file_of, is_code
from quant.settings.values import KINDS, checked_value

CONFIG_NAME = "calib.toml"
_Settings = TypeVar("_Settings", bound=RunSettings)


def settings_from_options(
    options: Mapping[str, Any], folder: Path | None = None, *, allow_code: bool = False
) -> RunSettings:
    """Settings from the `calib.toml` in a folder, if there is one, and from options, which override it.

    A folder may come from someone else. What its `calib.toml` says must not run code or write outside of the folder
    unless the user asks for it.

    Args:
        options: Field values; None stands for "not given".
        folder: Where to look for `calib.toml` and the model; the working folder by default.
        allow_code: Whether the file's `metric` and a `preprocess` that is a function, which are executed, are taken,
            and results may be written outside.

    Raises:
        SettingsError: Unknown keys, wrong types, no data, no single model, or something that was not asked for.
    """
    settings = _settings(RunSettings, options, folder or Path(), allow_code=allow_code)
    if settings.data is None:
        raise SettingsError(
            f"data: expected a folder of images or an HDF5 pack, found nothing; give --data or put it in {CONFIG_NAME}"
        )
    return settings if settings.model is not None else replace(settings, model=_only_model(folder or Path()))


def build_settings_from_options(
    options: Mapping[str, Any], folder: Path | None = None, *, allow_code: bool = False
) -> BuildSettings:
    """The same for `calib build`, which needs no images.

    Raises:
        SettingsError: See `settings_from_options`.
    """
    settings = _settings(BuildSettings, options, folder or Path(), allow_code=allow_code)
    return settings if settings.model is not None else replace(settings, model=_only_model(folder or Path()))


def _settings(kind: type[_Settings], options: Mapping[str, Any], folder: Path, *, allow_code: bool) -> _Settings:
    config = folder / CONFIG_NAME
    values = _values_from_toml(config) if os.path.lexists(config) else {}
    given = {key: value for key, value in options.items() if value is not None}
    settings = kind(**(values | given))
    if not allow_code and values:
        _refuse_unasked(config, values, settings, given)
    return settings


def settings_of_folder(folder: Path | None = None) -> RunSettings:
    """The settings that a folder gives by itself: its `calib.toml`, its only model, defaults for the rest.

    Raises:
        SettingsError: Its `calib.toml` cannot be used.
    """
    folder = folder if folder is not None else Path()
    config = folder / CONFIG_NAME
    settings = RunSettings(**(_values_from_toml(config) if os.path.lexists(config) else {}))
    models = sorted(folder.glob("*.onnx"))
    return replace(settings, model=models[0]) if settings.model is None and len(models) == 1 else settings


def _refuse_unasked(config: Path, values: Mapping[str, Any], settings: RunSettings, given: Collection[str]) -> None:
    """Refuse what only the folder asks for: code to execute, files to write outside of it."""
    builds = isinstance(settings, BuildSettings)  # which executes nothing, and writes no cache
    for name in () if builds else ("metric", "preprocess"):
        spec = getattr(settings, name) or ""
        if name not in given and (name == "metric" or is_code(spec)) and spec:
            raise SettingsError(
                f"{config}: {name}: would execute {file_of(spec)} with your rights; "
                f"if you trust it, say --allow-code, or --{name} {shlex.quote(spec)}"
            )
    inside = resolved(config.parent)
    written = {}
    if "out" in values or inside == resolved(Path.cwd()):  # by default it is in the working folder, and may be a link
        written["out"] = settings.out
    if not builds and "cache" in values and settings.precision == "int8" and not settings.trust_cache:
        written["cache"] = values["cache"]
    for name in sorted(written.keys() - set(given)):
        target = resolved(written[name])
        if inside not in (target, *target.parents):
            raise SettingsError(
                f"{config}: {name}: would write to {target}, outside of {inside}; "
                f"if you want that, say --allow-code, or --{name} {shlex.quote(str(written[name]))}"
            )


def _only_model(folder: Path) -> Path:
    candidates = sorted(folder.glob("*.onnx"))
    if len(candidates) == 1:
        return candidates[0]
    listed = f"{len(candidates)}: {', '.join(path.name for path in candidates[:8])}" if candidates else "none"
    raise SettingsError(f"model: expected one *.onnx in {folder.absolute()}, found {listed}; choose with --model")


def _values_from_toml(path: Path) -> dict[str, Any]:
    document, _ = table_from_toml_file(path)
    values = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in KINDS:
            raise SettingsError(f"{path}: unknown key {short(key)}; known are {', '.join(KINDS)}")
        try:
            checked = checked_value(name, value)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error
        values[name] = path.parent / checked if KINDS[name].startswith("Path") else checked
    if "preprocess" in values and (values["preprocess"].endswith(".toml") or is_code(values["preprocess"])):
        values["preprocess"] = str(path.parent / values["preprocess"])
    if "metric" in values:
        values["metric"] = str(path.parent / values["metric"])
    return values
