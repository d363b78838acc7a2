"""The two sides of `calib compare`: ONNX models, engines, and reports of runs, which stand for what the runs built."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.caches.provenance import read_calibration
from calib.errors import CacheError
from calib.files import sha256_of_files
from calib.regular_files import resolved
from calib.scratch import recover
from datasets.identity import ImageIdentity, contents
from datasets.source import AnySource
from quant.errors import QuantError, SettingsError
from quant.jobs.report_file import ReportDocument, read_report
from quant.onnx_graph.model import OnnxModel, load_model
from quant.progress import Console
from quant.settings.calib_toml import settings_from_options
from quant.settings.command_line import settings_from_values
from quant.settings.output_names import REPORT_JSON, SWEEP_JSON, data_name
from quant.settings.run_settings import RunSettings
from quant.settings.user_code import file_of, is_code
from quant.tensorrt.engines.engine_model import SUFFIXES, EngineModel, load_engine

Model = OnnxModel | EngineModel
_OF_DATA = ("data", "eval", "labels", "classes")


@dataclass(frozen=True)
class Report:
    """The report of a run.

    Attributes:
        path: The file.
        document: Its contents.
        folder: The working folder of the run, which relative paths refer to.
        settings: Settings of the run, with paths as seen from the current folder.
    """

    path: Path
    document: ReportDocument
    folder: Path
    settings: RunSettings

    @property
    def evaluated(self) -> Path:
        """Path of the images that the run evaluated."""
        return self.settings.eval or self.settings.data or Path()


@dataclass(frozen=True)
class Compared:
    """One side of a comparison.

    Attributes:
        path: The model or the engine.
        report_path: The report that stands for it; None if the file itself was given.
        report: The same report, if it is a run's and holds its settings.
        sha256: Hash of the file that the report describes; None if it does not say.
    """

    path: Path
    report_path: Path | None = None
    report: Report | None = None
    sha256: str | None = None


def compared_from_path(path: Path) -> Compared:
    """An ONNX model or an engine itself; for a report.json, a sweep.json or their folder, what was built.

    That is the INT8 build if there is one, else the build that was chosen.

    Raises:
        QuantError: There is no such report, or the file is not a report.
    """
    if path.is_dir():
        path = _document_in(path)
    if path.suffix.lower() != ".json":
        return Compared(path)
    recover(path.parent)  # a run that was killed while it replaced its files
    document = read_report(path)
    row = document.build
    folder = _working_folder(path, document)
    report = None
    if document.settings and not document.compared:  # a comparison calibrates nothing
        try:
            report = Report(path, document, folder, settings_from_values(document.settings, folder))
        except SettingsError as error:
            raise QuantError(f"{path}: expected the report.json of a run, found something else ({error})") from error
    candidates = [path.parent / (row.file or ""), folder / (row.file or "")]
    found = next((found for found in candidates if found.exists()), candidates[0])
    return Compared(found, path, report, row.sha256)


def _document_in(folder: Path) -> Path:
    """The report of a run or a sweep in a folder; of both, the one whose build lies there, else the run's.

    Raises:
        QuantError: There is none.
    """
    recover(folder)
    found = [folder / name for name in (REPORT_JSON, SWEEP_JSON) if (folder / name).is_file()]
    if not found:
        raise QuantError(
            f"{folder}: expected a model, an engine or the folder of a run or a sweep, found neither {REPORT_JSON} nor "
            f"{SWEEP_JSON} in it"
        )
    if len(found) > 1:
        builds = {path: read_report(path).build for path in found}
        fitting = [path for path, row in builds.items() if _is_described(folder / (row.file or ""), row.sha256)]
        found = fitting or found
    return found[0]


def _is_described(file: Path, sha256: str | None) -> bool:
    """Is this the file with that hash?"""
    aside = file.with_name(data_name(file.name))
    return file.is_file() and sha256 == sha256_of_files(file, *([aside] if aside.is_file() else []))


def check_described(side: Compared, model: Model, console: Console) -> None:
    """Check that a build is the very file that its report describes.

    Raises:
        QuantError: It was replaced since.
    """
    if side.report_path is None:
        return
    if side.sha256 is None:
        console.warn(
            f"{side.report_path}: is of an earlier version and does not say which file it describes; {side.path} is "
            "taken as it is"
        )
    elif side.sha256 != model.sha256:
        raise QuantError(
            f"{side.path}: is not the file that {side.report_path} describes (SHA-256 {side.sha256[:12]}, now "
            f"{model.sha256[:12]}); run again, or give the model itself instead of the report"
        )


def _working_folder(path: Path, document: ReportDocument) -> Path:
    """The folder that a report's relative paths refer to: the one that contains `out`, even after it was moved."""
    folder = Path(document.working_folder or "")
    out, parts = Path(str((document.settings or {}).get("out", "/"))), resolved(path).parent.parts
    if not out.is_absolute() and parts[-len(out.parts) :] == out.parts:
        folder = Path(*parts[: -len(out.parts)])
    return Path() if folder == Path.cwd() else folder  # so that paths stay as short as they were given


@contextlib.contextmanager
def open_compared(path: Path) -> Iterator[Model]:
    """Open a model or an engine from a file; an engine is freed at the end of the block.

    Raises:
        ModelError, BuildError, QuantError: It cannot be used here.
    """
    if path.suffix.lower() in SUFFIXES:
        with contextlib.closing(load_engine(path)) as engine:
            yield engine
    else:
        yield load_model(path)


def comparison_settings(
    sides: Sequence[Compared], options: Mapping[str, Any], *, allow_code: bool = False
) -> tuple[RunSettings, tuple[str, ...]]:
    """Settings of a comparison: from options first, then from the reports, then from `calib.toml`.

    Args:
        sides: What is compared.
        options: Field values; None stands for "not given".
        allow_code: See `settings_from_options`.

    Returns:
        The settings, and the names of those that come from the reports.

    Raises:
        QuantError: The reports differ in their images or preprocessing, and no option says which to use; or see
            `settings_from_options`.
    """
    given = {name for name, value in options.items() if value is not None}
    taken: dict[str, Any] = {}
    reports = [side.report for side in sides if side.report is not None]
    if reports and not given & {"data", "eval"}:
        taken |= _data_of(reports)
    if reports and "preprocess" not in given:
        taken["preprocess"] = _preprocessing_of(reports)
    if reports:
        of_inputs = {name: getattr(reports[0].settings, name) for name in ("input_size", "input")}
        taken |= {name: value for name, value in of_inputs.items() if value}
    taken = {name: value for name, value in taken.items() if name not in given}
    if not allow_code and is_code(str(taken.get("preprocess", ""))):
        raise QuantError(
            f"{reports[0].path}: preprocess: would execute {file_of(taken['preprocess'])} with your rights; if you "
            f"trust it, say --allow-code, or --preprocess {shlex.quote(taken['preprocess'])}"
        )
    values = {"model": sides[0].path, **taken, **{name: options[name] for name in given}}
    settings = settings_from_options(values, allow_code=allow_code)
    return settings, tuple(taken)


def _data_of(reports: Sequence[Report]) -> dict[str, Any]:
    paths = [report.evaluated for report in reports]
    if len({resolved(path) for path in paths}) > 1:
        raise QuantError(
            f"{reports[1].path}: expected a run on the images of {reports[0].path} ({paths[0]}), found {paths[1]}; "
            "models are compared on the same data: give it with --data"
        )
    return {name: getattr(reports[0].settings, name) for name in _OF_DATA} | {"eval": paths[0]}


def _preprocessing_of(reports: Sequence[Report]) -> str:
    first, *others = [report.document.preprocessing for report in reports]
    for report, other in zip(reports[1:], others, strict=True):
        changed = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if changed:
            raise QuantError(
                f"{report.path}: expected the preprocessing of {reports[0].path}, found another {', '.join(changed)}; "
                "models are compared on the same data: give it with --preprocess"
            )
    return reports[0].settings.preprocess


def uncalibrated_images(
    sides: Sequence[Compared], source: AnySource, console: Console, *, of_reports: bool
) -> NDArray[np.int64] | None:
    """Indices in `source` of the images that no report's run calibrated on; None for all of them.

    Images are recognised by their contents, which the calibrations' provenance records: a folder may be spelled in
    another way, or may have been moved, or have lost or gained images since.

    Args:
        sides: What is compared.
        source: The images.
        console: Where notes and warnings go.
        of_reports: Whether these are the images that the reports' runs evaluated. If the user gave other images, all of
            them are compared, and a warning says how many were used for calibration.

    Raises:
        QuantError: No image is left, or a calibration has changed since the report.
    """
    reports = [side.report for side in sides if side.report is not None]
    calibrated = [_calibrated(report, console, needed=of_reports) for report in reports]
    if not any(calibrated):
        return None
    found = contents(source, (image for images in calibrated for image in images))
    kept = np.ones(len(source), bool)
    for report, images in zip(reports, calibrated, strict=True):
        own = {image.sha256 for image in images}
        mine = np.array([digest not in own for digest in found])
        kept &= mine
        told = report.document.data.evaluation.images
        if of_reports and not told <= mine.sum() <= told + len(report.document.quarantined):
            console.warn(f"{report.path}: its run evaluated {told} images, {mine.sum()} are there now")
    if kept.all():
        return None
    if not of_reports:
        console.warn(
            f"{source.path}: {(~kept).sum()} of {len(source)} images were used for calibration, so the measured drop "
            "may be too small; leave out --data to compare on images that neither run calibrated on"
        )
        return None
    if not kept.any():
        raise QuantError(f"{source.path}: every image was used for calibration; give others with --data")
    return np.flatnonzero(kept)


def _calibrated(report: Report, console: Console, *, needed: bool) -> list[ImageIdentity]:
    """The images that a run calibrated on; none if they are not known and not needed."""
    told = report.document.data.calibration
    if told is None or report.document.calibration is None:
        return []
    if told.sha256 is None:
        if needed:
            console.warn(f"{report.path}: its cache was trusted, so its calibration images are not known")
        return []
    problem = ""
    named = Path(report.document.calibration.cache)
    for cache in (report.path.parent / named.name, report.folder / named):  # beside the report, where both were copied
        try:
            stored = read_calibration(cache).source
        except CacheError as error:
            problem = problem or str(error)
            continue
        if stored.data == told.sha256:
            return [ImageIdentity(image.name, image.fingerprint, image.sha256) for image in stored.images]
        problem = f"{cache} has since been made from other images"
    problem = f"{report.path}: its calibration images are no longer known: {problem}"
    if needed:
        raise QuantError(f"{problem}; run again, or use --data to give images that were not used for calibration")
    return []
