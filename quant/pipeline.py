"""The main job: calibrate, build, compare, report. `calib run` is a thin shell around `run`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from calib.calibrator import MinMaxCalibrator
from calib.files import Transaction, exclusive
from datasets import Batch, BatchStream
from quant.activations import collect_statistics
from quant.backend import Backend, Build
from quant.backends import backend_from_settings
from quant.cache_plausibility import implausible_scales
from quant.calibrate import CalibrationResult, obtain_calibration
from quant.comparison import Drop, Latency, drops_from_evaluations, measure_latency
from quant.console import Console, RecordingConsole
from quant.data import RunData, open_data
from quant.engine_model import EngineModel
from quant.errors import BuildError, QuantError
from quant.evaluate import Evaluation, evaluate
from quant.graph import OnnxModel, load_model
from quant.metric import recorder_from_settings, section_from_scores
from quant.output_files import report_texts, stage_build, stage_texts
from quant.report.document import Document, document_from_run
from quant.settings import RunSettings
from quant.verdict import Verdict, decide, is_near_chance


@dataclass(frozen=True)
class RunResult:
    """All results of a run, before they become a report.

    Attributes:
        settings: What was asked for.
        model: The FP32 model; an engine where an engine is the baseline of a comparison.
        data: The images.
        backend: What ran them.
        calibration: Scales; None when no INT8 was asked for.
        builds: Builds by precision, FP32 first.
        failed: Why a precision could not be built, by precision.
        evaluations: By precision.
        drops: Against FP32, by precision, where images are labelled.
        latencies: By precision.
        verdict: What to use, and why.
        quarantined: Unreadable images and why, each once.
        warnings: What the user should read.
        metric: The user's own metric, as `quant.metric.section_from_scores` gives it; None without one.
        outdated: Files in `settings.out` that an earlier run left, of precisions that this one could not build.
    """

    settings: RunSettings
    model: OnnxModel | EngineModel
    data: RunData
    backend: Backend
    calibration: CalibrationResult | None
    builds: dict[str, Build]
    failed: dict[str, str]
    evaluations: dict[str, Evaluation]
    drops: dict[str, Drop]
    latencies: dict[str, Latency]
    verdict: Verdict
    quarantined: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    metric: dict[str, Any] | None = None
    outdated: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """Names of the built files that are kept, by precision: of what was asked for and of what was chosen.

        Engines are all kept: the next run uses them again. So is what would leave an earlier run's build in its place.
        """
        kept = set(self.builds) if self.backend.name == "tensorrt" else {self.settings.precision, self.verdict.chosen}
        files = {
            name: f"model.{name}{build.suffix}" for name, build in self.builds.items() if build.payload is not None
        }
        return {name: file for name, file in files.items() if name in kept or (self.settings.out / file).is_file()}


def run(settings: RunSettings, console: Console | None = None) -> Document:
    """Do the main job and write its files into `settings.out`.

    Args:
        settings: What to do; `model` and `data` are given.
        console: Where progress goes; nowhere by default.

    Returns:
        The report.

    Raises:
        ModelError, BuildError, QuantError: The model, or what was asked of it, cannot be.
        DatasetError: The images cannot be used.
        CalibrationError: Calibration failed, the cache may not be used, or files could not be written.
    """
    listener = RecordingConsole(console)
    with contextlib.ExitStack() as stack:
        if settings.model is None:
            raise QuantError("model: expected an ONNX file, found nothing; give --model")
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
    """The folders that are written to, each once however it is spelled, in an order that all runs share."""
    folders = [settings.out]
    if settings.precision == "int8" and not settings.trust_cache:
        folders.append(settings.cache_path.parent)
    return [folder for _, folder in sorted({folder.resolve(): folder for folder in folders}.items())]


def _result(
    settings: RunSettings, model: OnnxModel, data: RunData, backend: Backend, listener: RecordingConsole
) -> RunResult:
    recorder = recorder_from_settings(settings, model)
    builds = {"fp32": backend.build(model, "fp32")}
    failed: dict[str, str] = {}
    calibration = None
    if settings.precision == "int8":
        calibration = obtain_calibration(settings, model, data, backend, listener)
        _warn_of_zeros(calibration, listener)
    for precision in _reduced_precisions(settings):
        try:
            builds[precision] = backend.build(model, precision, calibration.cache if calibration else None)
        except BuildError as error:
            failed[precision] = str(error)
            listener.warn(f"{precision} cannot be built: {error}")
    runnables = {name: build.runnable for name, build in builds.items()}
    stream = data.evaluation_stream(settings)
    with listener.task("Evaluating", stream.images) as advance:
        evaluations = evaluate(runnables, "fp32", stream, advance, recorder.observe if recorder else None)
    quarantined = _quarantined(data, calibration, stream)
    if quarantined:
        first = next(iter(quarantined))
        listener.warn(f"{len(quarantined)} unreadable images were left out, {first} first: {quarantined[first]}")
    drops = drops_from_evaluations(evaluations)
    _warn_near_chance(evaluations["fp32"], model, listener)
    batch = next(iter(islice(data.evaluation_stream(settings), 1)))
    _warn_of_implausible_scales(calibration, model, batch, listener)
    latencies = measure_latency(runnables, batch.inputs)
    outdated = _outdated_builds(settings, failed, listener)
    metric = section_from_scores(recorder, "fp32", seed=settings.seed, max_drop=settings.max_drop) if recorder else None
    return RunResult(
        settings,
        model,
        data,
        backend,
        calibration,
        builds,
        failed,
        evaluations,
        drops,
        latencies,
        decide(
            settings,
            drops,
            failed,
            latencies if backend.name == "tensorrt" else None,
            labelled=evaluations["fp32"].correct is not None,
            metric=metric,
        ),
        tuple(quarantined.items()),
        tuple(listener.warnings),
        metric,
        outdated,
    )


def _quarantined(data: RunData, calibration: CalibrationResult | None, evaluated: BatchStream) -> dict[str, str]:
    """Unreadable images and why, each once; where calibration and evaluation have a folder each, with the folder."""
    folders = ("", "") if data.eval_source is data.source else (f"{data.source.path}/", f"{data.eval_source.path}/")
    reasons = {f"{folders[0]}{file}": reason for file, reason in (calibration.quarantined if calibration else ())}
    return reasons | {f"{folders[1]}{item.file}": item.reason for item in evaluated.quarantined}


def _reduced_precisions(settings: RunSettings) -> tuple[str, ...]:
    return {"int8": ("fp16", "int8"), "fp16": ("fp16",), "fp32": ()}[settings.precision]


def _outdated_builds(settings: RunSettings, failed: Mapping[str, str], listener: RecordingConsole) -> tuple[str, ...]:
    """Builds in the folder of a precision that could not be built: they would pass for this run's."""
    outdated: list[str] = []
    for precision in failed:
        names = [f"model.{precision}{suffix}" for suffix in (".onnx", ".engine", ".engine.json")]
        found = [name for name in names if (settings.out / name).is_file()]
        if found:
            listener.warn(
                f"{settings.out}: {', '.join(found)} of an earlier run is removed, as {precision} cannot be built now"
            )
        outdated.extend(found)
    return tuple(outdated)


def _warn_of_zeros(calibration: CalibrationResult, listener: RecordingConsole) -> None:
    zeros = calibration.zero_tensors
    if zeros:
        listener.warn(
            f"{len(zeros)} tensors were zero for all calibration images, '{zeros[0]}' first; they get amax 1 (any "
            "positive one represents zeros)"
        )


def _warn_of_implausible_scales(
    calibration: CalibrationResult | None, model: OnnxModel, batch: Batch, listener: RecordingConsole
) -> None:
    """A trusted cache says nothing of its data: a batch shows whether its scales can be right."""
    if calibration is None or calibration.how != "trusted":
        return
    few = MinMaxCalibrator([batch])
    collect_statistics(model, few)
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
