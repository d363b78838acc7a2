"""The command that repeats a run, and a run's settings as a report keeps them."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from quant.errors import SettingsError
from quant.settings.calib_toml import settings_of_folder
from quant.settings.run_settings import RunSettings
from quant.settings.user_code import is_code
from quant.settings.values import KINDS, checked_value

_COMPARED = (  # options of `calib compare`
    "data", "eval", "labels", "classes", "preprocess", "input_size", "input", "batch_size", "seed", "backend", "metric",
    "max_drop", "max_metric_drop", "max_bad", "task", "ignore_index", "out",
)  # fmt: skip
_OF_ENGINES = ("strict_int8", "dynamic", "workspace", "builder_level", "tactic_sources", "dla")
_NOT_SWEPT = (  # what `calib sweep` tries, or does not do
    "algo", "percentile", "match_tensorrt", "calibrator", "precision", "cache", "cache_only", "trust_cache", "max_drop",
    "strict_int8", "explicit", "dynamic", "workspace", "builder_level", "tactic_sources", "dla", "recover",
)  # fmt: skip


def command_from_settings(settings: RunSettings) -> str:
    """A `calib run` line with every setting, so that it does the same whatever `calib.toml` says.

    Paths are as they were given, relative to the working folder. Unused settings are left out: a parameter of another
    algorithm, an empty text, 0 for "no limit".
    """
    names = [field.name for field in fields(settings)]
    return shlex.join(["calib", "run", *_words(settings, names)])


def opening_line(job: str, settings: RunSettings) -> str:
    """What a job is about to do, from the settings alone: it is said before anything heavy is loaded."""
    images = [str(settings.data), *([f"{settings.eval} (evaluated)"] if settings.eval is not None else [])]
    return f"calib {job}: {settings.model} with the images of {' and '.join(images)}; results go to {settings.out}"


def short_command(job: str, settings: RunSettings, options: Sequence[str] = (), **changes: Any) -> str:  # noqa: ANN401
    """The shortest line for the working folder that does a job with these settings.

    What the folder's `calib.toml` or a default says is left out; what the file may not say by itself (`metric`, and
    `out` and `cache` of its own) is not.

    Args:
        job: run or sweep.
        settings: Settings to keep.
        options: Words to add at the end.
        changes: Settings to change.
    """
    wanted = replace(settings, **changes)
    try:
        given = settings_of_folder()
    except SettingsError:  # it cannot be read any more: then the line says everything
        given = RunSettings()
    usual = RunSettings()
    names = [
        field.name
        for field in fields(wanted)
        if (job != "sweep" or field.name not in _NOT_SWEPT)
        and (
            getattr(wanted, field.name) != getattr(given, field.name)
            or (field.name in ("metric", "out", "cache") and getattr(given, field.name) != getattr(usual, field.name))
        )
    ]
    return shlex.join(["calib", job, *_words(wanted, names), *options])


def compare_command(settings: RunSettings, first: Path, second: Path, taken: Collection[str] = ()) -> str:
    """The `calib compare` line for two files, with all its settings except those taken from their reports."""
    names = [name for name in _COMPARED if name not in taken]
    return shlex.join(["calib", "compare", _text(first), _text(second), *_words(settings, names)])


def migrate_command(settings: RunSettings, cache: Path) -> str:
    """The `calib migrate` line for a cache, with all its settings."""
    return shlex.join(["calib", "migrate", _text(cache), *_words(settings, ("model", *_COMPARED, *_OF_ENGINES))])


def _words(settings: RunSettings, names: Iterable[str]) -> list[str]:
    words: list[str] = []
    for name in names:
        value = getattr(settings, name)
        if (
            value is None
            or value is False
            or value in ("", ())
            or (value == 0 and name in ("workspace", "workers"))
            or (name == "percentile" and settings.algo != "percentile")
        ):
            continue
        for each in value if isinstance(value, tuple) else (value,):
            words.append(f"--{name.replace('_', '-')}")
            if each is not True:
                words.append(_text(each))
    return words


def _text(value: object) -> str:
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    return f"./{text}" if isinstance(value, Path) and text.startswith("-") else text


def values_from_settings(settings: RunSettings) -> dict[str, Any]:
    """All settings as JSON values, by name; paths are as they were given, relative to the working folder."""
    return {name: _json_value(value) for name, value in asdict(settings).items()}


def _json_value(value: Any) -> Any:  # noqa: ANN401 - settings hold several types
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def settings_from_values(values: Mapping[str, Any], folder: Path) -> RunSettings:
    """The settings that `values_from_settings` gave; names that are unknown to this version are left out.

    Args:
        values: Values by name.
        folder: The working folder of that run, which its relative paths refer to.

    Raises:
        SettingsError: A value is out of range, or of another type.
    """
    return RunSettings(**{name: _value(name, value, folder) for name, value in values.items() if name in KINDS})


def _value(name: str, value: Any, folder: Path) -> Any:  # noqa: ANN401 - settings hold several types
    value = checked_value(name, value)
    is_path = KINDS[name].startswith("Path")
    is_file = name == "metric" or (name == "preprocess" and (str(value).endswith(".toml") or is_code(str(value))))
    if value is None or not (is_file or is_path):
        return value
    return folder / value if is_path else str(folder / value)
