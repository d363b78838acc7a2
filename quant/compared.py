"""What `calib compare` is given: ONNX models, engines, and reports of runs, which stand for what those built."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.console import RecordingConsole
from quant.data import AnySource, open_data
from quant.engine_model import SUFFIXES, EngineModel, load_engine
from quant.errors import QuantError
from quant.graph import OnnxModel, load_model
from quant.report.command import settings_from_command
from quant.settings import RunSettings, settings_from_options

Model = OnnxModel | EngineModel
_OF_DATA = ("data", "eval", "labels", "classes")


@dataclass(frozen=True)
class Report:
    """A report.json and the run that it tells of.

    Attributes:
        path: The file.
        document: Its contents.
        settings: Of the run; None where it is the report of a comparison.
    """

    path: Path
    document: Mapping[str, Any]
    settings: RunSettings | None

    @property
    def held_back(self) -> bool:
        """Did the run calibrate on images of the folder that it evaluated?"""
        own_folder = self.settings is not None and self.settings.eval is None
        return own_folder and self.document["data"]["calibration"] is not None


@dataclass(frozen=True)
class Compared:
    """One side of a comparison.

    Attributes:
        path: The model or the engine.
        report: The report that stands for it; None where the file itself was given.
    """

    path: Path
    report: Report | None = None


def compared_from_path(path: Path) -> Compared:
    """An ONNX model or an engine itself; or, of a report.json or its folder, what its run built.

    That is the INT8 build where there is one, else what was chosen.

    Raises:
        QuantError: There is no such report, or it is none.
    """
    if path.is_dir():
        if not (path / "report.json").is_file():
            raise QuantError(f"{path}: expected a model, an engine or the folder of a run, found no report.json in it")
        path = path / "report.json"
    if path.suffix.lower() != ".json":
        return Compared(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        files = {build["precision"]: build.get("file") for build in document["builds"]}
        built = files.get("int8") or files[document["chosen"]] or document["model"]["path"]
        folder = _working_folder(path, document)
        settings = settings_from_command(document["command"], folder) if _is_run(document) else None
        report = Report(path, document, settings)
        candidates = [path.parent / built, folder / built]
    except OSError as error:
        raise QuantError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise QuantError(f"{path}: expected the report.json of a run, found something else ({error!r})") from error
    return Compared(next((found for found in candidates if found.exists()), candidates[0]), report)


def _is_run(document: Mapping[str, Any]) -> bool:
    return str(document.get("command") or "").startswith("calib run ")


def _working_folder(path: Path, document: Mapping[str, Any]) -> Path:
    """Where the relative paths of a report begin: the folder that `out` lies in, also after it was moved."""
    folder = Path(document.get("working_folder") or "")
    if _is_run(document):
        out, parts = settings_from_command(document["command"], Path()).out, path.resolve().parent.parts
        if not out.is_absolute() and parts[-len(out.parts) :] == out.parts:
            folder = Path(*parts[: -len(out.parts)])
    return Path() if folder == Path.cwd() else folder  # so that paths stay as short as they were given


@contextlib.contextmanager
def open_compared(path: Path) -> Iterator[Model]:
    """The model, or the engine, of a file; an engine is freed at the end of the block.

    Raises:
        ModelError, BuildError, QuantError: It cannot be used here.
    """
    if path.suffix.lower() in SUFFIXES:
        with contextlib.closing(load_engine(path)) as engine:
            yield engine
    else:
        yield load_model(path)


def comparison_settings(sides: Sequence[Compared], options: Mapping[str, Any]) -> tuple[RunSettings, tuple[str, ...]]:
    """Settings of a comparison: options first, then what the reports were made with, then `calib.toml`.

    Args:
        sides: What is compared.
        options: Field values; None stands for "not given".

    Returns:
        The settings, and the names of those that come from the reports.

    Raises:
        QuantError: The reports are not of the same images, or not of the same preprocessing, and no option says which;
            or what `settings_from_options` raises.
    """
    given = {name for name, value in options.items() if value is not None}
    taken: dict[str, Any] = {}
    reports = [side.report for side in sides if side.report is not None and side.report.settings is not None]
    if reports and not given & {"data", "eval"}:
        taken |= _data_of(reports)
    if reports and "preprocess" not in given:
        taken["preprocess"] = _preprocessing_of(reports)
    taken = {name: value for name, value in taken.items() if name not in given}
    settings = settings_from_options({"model": sides[0].path, **taken, **{name: options[name] for name in given}})
    return settings, tuple(taken)


def _data_of(reports: Sequence[Report]) -> dict[str, Any]:
    paths = [_evaluated(report) for report in reports]
    if len({path.resolve() for path in paths}) > 1:
        raise QuantError(
            f"{reports[1].path}: expected a run on the images of {reports[0].path} ({paths[0]}), found {paths[1]}; "
            "models are compared on the same data: give it with --data"
        )
    assert reports[0].settings is not None
    return {name: getattr(reports[0].settings, name) for name in _OF_DATA} | {"eval": paths[0]}


def _evaluated(report: Report) -> Path:
    assert report.settings is not None
    return report.settings.eval or report.settings.data or Path()


def _preprocessing_of(reports: Sequence[Report]) -> str:
    first, *others = [report.document["preprocessing"] for report in reports]
    for report, other in zip(reports[1:], others, strict=True):
        changed = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if changed:
            raise QuantError(
                f"{report.path}: expected the preprocessing of {reports[0].path}, found another {', '.join(changed)}; "
                "models are compared on the same data: give it with --preprocess"
            )
    assert reports[0].settings is not None
    return reports[0].settings.preprocess


def common_images(
    sides: Sequence[Compared], models: Sequence[Model], source: AnySource, console: RecordingConsole
) -> NDArray[np.int64] | None:
    """Indices in `source` of the images that every report's run evaluated; None for all of them.

    A run without evaluation images of its own leaves out those that it calibrated on: so does the comparison.

    Raises:
        QuantError: There are none.
    """
    selection = np.arange(len(source))
    for side, model in zip(sides, models, strict=True):
        report = side.report
        if report is None or report.settings is None:
            continue
        own = np.arange(len(source))
        if report.held_back:
            own = open_data(report.settings, model, RecordingConsole()).eval_selection
        told = report.document["data"]["evaluation"]["images"]
        if not told <= len(own) <= told + len(report.document["quarantined"]):
            console.warn(f"{report.path}: its run evaluated {told} images, {len(own)} are there now")
        selection = np.intersect1d(selection, own)
    if not len(selection):
        raise QuantError(f"{source.path}: no image was left out of both calibrations; give others with --data")
    return None if len(selection) == len(source) else selection
