"""The main job: calibrate, build, compare, report. `calib run` is a thin shell around `run`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from calib.caches.plausibility import implausible_scales
from calib.calibrator import MinMaxCalibrator
from calib.files import Transaction, exclusive
from quant.backend import Backend, Build
from quant.calibration.obtain import CalibrationResult, obtain_calibration
from quant.calibration.run_data import RunData, open_data
from quant.collectors.collector import Collector
from quant.errors import BuildError, SettingsError
from quant.evaluation.accuracy import Evaluation
from quant.evaluation.metric import recorder_from_settings
from quant.evaluation.verdict import decide, is_near_chance
from quant.jobs.backend_choice import backend_from_settings, collector_from_settings
from quant.jobs.measurement import first_batch, measured
from quant.jobs.output_files import report_texts, stage_build, stage_texts
from quant.onnx_graph.model import OnnxModel, load_model
from quant.progress import Console, RecordingConsole
from quant.report.contents.document import Document, document_from_run
from quant.report.result import RunResult
from quant.settings.command_line import command_from_settings
from quant.settings.output_names import build_name, names_of_builds
from quant.settings.run_settings import RunSettings

_BASELINE = "fp32"


def run(settings: RunSettings, console: Console | None = None) -> Document:
    """Do the main job and write its files into `settings.out`.

    Args:
        settings: What to do; `model` and `data` are given.
        console: Where progress goes; nowhere by default.

    Returns:
        The report.

    Raises:
        ModelError, BuildError, QuantError: The model cannot be used, or what was asked of it is impossible.
        DatasetError: The images cannot be used.
        CalibrationError: Calibration failed, the cache may not be used, or files could not be written.
    """
    listener = RecordingConsole(console)
    with contextlib.ExitStack() as stack:
        if settings.model is None:
            raise SettingsError("model: expected an ONNX file, found nothing; give --model")
        model = load_model(settings.model)
        data = open_data(settings, model, listener)
        for folder in _folders_to_hold(settings):
            stack.enter_context(exclusive(folder))
        backend = backend_from_settings(settings, listener)
        stack.callback(backend.close)
        result = _result(settings, model, data, backend, listener)
        document = document_from_run(result)
        _write(result, document)
    return document


def _folders_to_hold(settings: RunSettings) -> list[Path]:
    """The folders to write to, each once however it is spelled, in an order that all runs share."""
    folders = [settings.out]
    if settings.precision == "int8" and not settings.trust_cache:
        folders.append(settings.cache_path.parent)
    return [folder for _, folder in sorted({folder.resolve(): folder for folder in folders}.items())]


def _result(
    settings: RunSettings, model: OnnxModel, data: RunData, backend: Backend, listener: RecordingConsole
) -> RunResult:
    recorder = recorder_from_settings(settings, model)
    collector = collector_from_settings(settings)
    builds = {_BASELINE: backend.build(model, _BASELINE)}
    failed: dict[str, str] = {}
    calibration = None
    if settings.precision == "int8":
        calibration = obtain_calibration(settings, model, data, backend, collector, listener)
        _warn_of_zeros(calibration, listener)
    for precision in _reduced_precisions(settings):
        try:
            builds[precision] = backend.build(model, precision, calibration.cache if calibration else None)
        except BuildError as error:
            failed[precision] = str(error)
            listener.warn(f"{precision} cannot be built: {error}")
    runnables = {name: build.runnable for name, build in builds.items()}
    found = measured(runnables, _BASELINE, data, settings, listener, recorder)
    quarantined = _quarantined(data, calibration, found.quarantined)
    if quarantined:
        first = next(iter(quarantined))
        listener.warn(f"{len(quarantined)} unreadable images were left out, {first} first: {quarantined[first]}")
    _warn_near_chance(found.evaluations[_BASELINE], model, listener)
    _warn_of_implausible_scales(calibration, model, data, settings, collector, listener)
    outdated = _outdated_builds(settings, failed, listener)
    verdict = decide(
        settings,
        found.drops,
        failed,
        {name: found.latencies[name] for name, build in builds.items() if build.is_engine},
        labelled=found.evaluations[_BASELINE].correct is not None,
        metric=found.metric,
    )
    return RunResult(
        settings=settings,
        model=model,
        data=data,
        backend=backend,
        calibration=calibration,
        builds=builds,
        failed=failed,
        measured=found,
        verdict=verdict,
        quarantined=quarantined,
        warnings=tuple(listener.warnings),
        files=_kept_files(settings, builds, (settings.precision, verdict.chosen)),
        outdated=outdated,
        command=command_from_settings(settings),
        working_folder=str(Path.cwd()),
    )


def _kept_files(settings: RunSettings, builds: Mapping[str, Build], wanted: Collection[str]) -> dict[str, str]:
    """Names of the built files that are kept, by precision: the one that was asked for and the one that was chosen.

    Engines are all kept, because the next run reuses them. So is a build that replaces an earlier run's file.
    """
    files = {name: build_name(name, build.suffix) for name, build in builds.items() if build.payload is not None}
    return {
        name: file
        for name, file in files.items()
        if name in wanted or builds[name].is_engine or (settings.out / file).is_file()
    }


def _quarantined(data: RunData, calibration: CalibrationResult | None, evaluated: Mapping[str, str]) -> dict[str, str]:
    """Unreadable images and why, each once; with the folder if calibration and evaluation have one each."""
    folders = ("", "") if data.eval_source is data.source else (f"{data.source.path}/", f"{data.eval_source.path}/")
    reasons = {f"{folders[0]}{file}": reason for file, reason in (calibration.quarantined if calibration else ())}
    return reasons | {f"{folders[1]}{file}": reason for file, reason in evaluated.items()}


def _reduced_precisions(settings: RunSettings) -> tuple[str, ...]:
    return {"int8": ("fp16", "int8"), "fp16": ("fp16",), "fp32": ()}[settings.precision]


def _outdated_builds(settings: RunSettings, failed: Iterable[str], listener: RecordingConsole) -> tuple[str, ...]:
    """Earlier builds of a precision that could not be built now: they could be taken for this run's."""
    outdated: list[str] = []
    for precision in failed:
        found = [name for name in names_of_builds(precision) if (settings.out / name).is_file()]
        if found:
            listener.warn(
                f"{settings.out}: {', '.join(found)} of an earlier run is removed, because {precision} cannot be built"
            )
        outdated.extend(found)
    return tuple(outdated)


def _warn_of_zeros(calibration: CalibrationResult, listener: RecordingConsole) -> None:
    zeros = calibration.zero_tensors
    if zeros:
        listener.warn(
            f"{len(zeros)} tensors were zero for all calibration images, '{zeros[0]}' first; they get amax 1 (any "
            "positive value represents zeros)"
        )


def _warn_of_implausible_scales(
    calibration: CalibrationResult | None,
    model: OnnxModel,
    data: RunData,
    settings: RunSettings,
    collector: Collector,
    listener: RecordingConsole,
) -> None:
    """Check a trusted cache, which says nothing about its data, with a batch that shows if its scales can be right."""
    if calibration is None or calibration.how != "trusted":
        return
    few = MinMaxCalibrator([first_batch(data, settings)])
    collector.collect(model, few)
    odd = implausible_scales(calibration.cache, few.statistics)
    if odd:
        listener.warn(
            f"{calibration.path}: {len(odd)} of {len(calibration.cache.scales)} scales do not suit the images: "
            f"{odd[0]}; recalibrate without --trust-cache"
        )


def _warn_near_chance(baseline: Evaluation, model: OnnxModel, listener: RecordingConsole) -> None:
    shape = model.outputs[0].shape
    classes = shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None
    if baseline.correct is None and baseline.labels is None and baseline.predicted is None:
        listener.warn("the model gives no class logits [batch, classes]: outputs are compared, labels are not used")
    if classes is not None and baseline.top1 is not None and is_near_chance(baseline.top1, classes, baseline.images):
        listener.warn(
            f"FP32 top-1 is {baseline.top1:.2f} %, near chance ({100 / classes:.2f} %): the preprocessing is probably "
            "wrong (--preprocess), or the labels are not in the model's order (--classes)"
        )


def _write(result: RunResult, document: Document) -> None:
    texts = report_texts(document, result.data.eval_source)
    with Transaction(result.settings.out) as files:
        for name in result.outdated:
            files.discard(name)
        for precision, name in result.files.items():
            stage_build(files, name, result.builds[precision])
        stage_texts(files, texts)
