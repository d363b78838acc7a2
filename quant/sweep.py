"""Every algorithm on the same statistics and the same images: which one costs this model the least."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import calib
from calib.algorithms import MSE, Algorithm, Entropy, MinMax, Percentile
from calib.cache import CalibrationCache, cache_from_amax
from calib.calibrator import amax_from_statistics
from calib.errors import CalibrationError
from calib.files import Transaction, exclusive
from calib.provenance import read_calibration, write_calibration
from calib.statistics import Statistics
from datasets import BatchStream
from quant.backend import Backend, Build
from quant.backends import backend_by_name
from quant.calibrate import obtain_calibration
from quant.comparison import Drop, agreement, paired_drop
from quant.console import Console, RecordingConsole
from quant.data import RunData, open_data
from quant.errors import QuantError
from quant.evaluate import Evaluation, evaluate
from quant.graph import OnnxModel, load_model
from quant.metric import MetricDrop, MetricRecorder, metric_drop
from quant.qdq import quantizable_tensors
from quant.settings import RunSettings
from quant.sweep_report import Document, document_from_sweep, json_from_sweep, svg_from_sweep
from quant.tensor_choice import TensorChoice, choose_by_tensor

PERCENTILES = (99.9, 99.99, 99.999)
TRIAL_IMAGES = 64  # of the calibration images, for the choice by tensor
CONFIRMING_IMAGES = 192  # the next ones, on which a change must hold as well
PER_TENSOR = "per-tensor"


@dataclass(frozen=True)
class SweepRow:
    """One way to scales, and how it did.

    Attributes:
        name: For people, such as "percentile 99.9".
        algorithm: None for the choice by tensor.
        amax: Of all tensors, activation units.
        evaluation: Of the INT8 build.
        drop: Of top-1 against FP32; None without labels.
        metric: Of the user's metric; None without one.
        agreement: Share of images with FP32's top-1 class, per cent; None when the model is no classifier.
    """

    name: str
    algorithm: Algorithm | None
    amax: Mapping[str, float]
    evaluation: Evaluation
    drop: Drop | None
    metric: MetricDrop | None
    agreement: float | None

    @property
    def rank(self) -> tuple[float, float]:
        """Smaller is better: the drop (of the user's metric where there is one) decides, then the larger SQNR."""
        drop = self.metric.drop if self.metric else self.drop.points if self.drop else 0.0
        return drop, -self.evaluation.sqnr_db


@dataclass(frozen=True)
class SweepResult:
    """All results.

    Attributes:
        settings: What was asked for.
        model: The FP32 model.
        backend: What ran it.
        baseline: Evaluation of FP32.
        rows: Best first.
        choice: How the choice by tensor came about; None when it was not asked for.
        metric: Name of the user's metric and FP32's average; None without one.
        warnings: What the user should read.
    """

    settings: RunSettings
    model: OnnxModel
    backend: Backend
    baseline: Evaluation
    rows: tuple[SweepRow, ...]
    choice: TensorChoice | None
    metric: tuple[str, float] | None
    warnings: tuple[str, ...]


def sweep(settings: RunSettings, console: Console | None = None, *, per_tensor: bool = False) -> Document:
    """Try entropy, minmax, mse and three percentiles, keep the best, and write the comparison into `settings.out`.

    INT8 runs on ONNX Runtime, or on TensorRT where `backend` names it: an engine for each algorithm. The images
    are run once for the statistics of all of them, and read once for the evaluation of all builds.

    Args:
        settings: As for `run`; `algo`, `precision` and cache settings do not count.
        console: Where progress goes; nowhere by default.
        per_tensor: Also choose the algorithm tensor by tensor, see `quant.tensor_choice`.

    Returns:
        What `sweep.json` holds.

    Raises:
        ModelError, BuildError, QuantError, DatasetError, CalibrationError: As `run`.
    """
    listener = RecordingConsole(console)
    if settings.model is None:
        raise QuantError("model: expected an ONNX file, found nothing; give --model")
    model = load_model(settings.model)
    settings = replace(
        settings,
        algo="entropy",
        match_tensorrt=False,
        precision="int8",
        cache=None,
        cache_only=False,
        trust_cache=False,
    )
    data = open_data(settings, model, listener)
    if settings.calibrator == "tensorrt":
        listener.warn(
            "calibrator tensorrt: a sweep compares the toolkit's own algorithms; TensorRT's is not among them"
        )
        settings = replace(settings, calibrator="toolkit")
    recorder = MetricRecorder(settings.metric, [info.name for info in model.outputs]) if settings.metric else None
    with exclusive(settings.out), contextlib.closing(backend_by_name(settings, listener, reuse=False)) as backend:
        calibration = obtain_calibration(settings, model, data, backend, listener)
        if calibration.statistics is None:
            raise CalibrationError(f"{calibration.path}: expected statistics beside the cache, found none; recalibrate")
        candidates = _candidates(calibration.statistics)
        amax = {name: amax_from_statistics(calibration.statistics, a) for name, a in candidates.items()}
        choice = _choice(settings, model, data, amax, listener) if per_tensor else None
        if choice is not None:
            amax[PER_TENSOR] = dict(choice.amax)
        builds = {
            name: backend.build(model, "int8", _cache(values, candidates.get(name))) for name, values in amax.items()
        }
        result = _compared(settings, model, data, backend, builds, amax, candidates, choice, recorder, listener)
        document = document_from_sweep(result)
        _keep(result, builds[result.rows[0].name], document)
    return document


def _candidates(statistics: Statistics) -> dict[str, Algorithm]:
    algorithms: list[Algorithm] = [Entropy(), MinMax(), MSE(), *map(Percentile, PERCENTILES)]
    return {f"{a.name} {a.percentile:g}" if isinstance(a, Percentile) else a.name: a for a in algorithms}


def _choice(
    settings: RunSettings, model: OnnxModel, data: RunData, amax: Mapping[str, Mapping[str, float]], console: Console
) -> TensorChoice:
    trial, confirming, _ = np.split(data.selection, [TRIAL_IMAGES, TRIAL_IMAGES + CONFIRMING_IMAGES])
    batches = _inputs(settings, data, trial)
    others = _inputs(settings, data, confirming) if len(confirming) else []
    with console.task("Choosing by tensor", len(quantizable_tensors(model.proto))) as advance:
        return choose_by_tensor(model, amax, batches, others, advance)


def _inputs(settings: RunSettings, data: RunData, selection: NDArray[np.int64]) -> list[dict[str, NDArray[Any]]]:
    stream = BatchStream(
        data.source,
        selection,
        preprocessing=data.preprocessing,
        batch_size=settings.batch_size,
        input_name=data.input_name,
        max_bad=1.0,  # what cannot be read was counted when calibrating
    )
    return [dict(batch.inputs) for batch in stream]


def _compared(
    settings: RunSettings,
    model: OnnxModel,
    data: RunData,
    backend: Backend,
    builds: Mapping[str, Build],
    amax: Mapping[str, Mapping[str, float]],
    candidates: Mapping[str, Algorithm],
    choice: TensorChoice | None,
    recorder: MetricRecorder | None,
    listener: RecordingConsole,
) -> SweepResult:
    runnables = {"fp32": backend.build(model, "fp32").runnable} | {n: build.runnable for n, build in builds.items()}
    stream = data.evaluation_stream(settings)
    with listener.task("Evaluating", stream.images) as advance:
        evaluations = evaluate(runnables, "fp32", stream, advance, recorder.observe if recorder else None)
    baseline = evaluations.pop("fp32")
    scores = recorder.scores() if recorder else {}
    rows = [
        SweepRow(
            name,
            candidates.get(name),
            amax[name],
            evaluation,
            None
            if baseline.correct is None or evaluation.correct is None
            else paired_drop(baseline.correct, evaluation.correct),
            metric_drop(scores["fp32"], scores[name], seed=settings.seed) if recorder else None,
            None
            if baseline.predicted is None or evaluation.predicted is None
            else agreement(baseline.predicted, evaluation.predicted),
        )
        for name, evaluation in evaluations.items()
    ]
    return SweepResult(
        settings,
        model,
        backend,
        baseline,
        tuple(sorted(rows, key=lambda row: row.rank)),
        choice,
        (recorder.name, float(scores["fp32"].mean())) if recorder else None,
        tuple(listener.warnings),
    )


def _cache(amax: Mapping[str, float], algorithm: Algorithm | None) -> CalibrationCache:
    """The scales as a cache; a mixture goes by TensorRT's usual first line."""
    return cache_from_amax(amax, algorithm or Entropy())


def _keep(result: SweepResult, build: Build, document: dict[str, Any]) -> None:
    """Write the best scales as the cache, with its model; then the comparison."""
    best, path = result.rows[0], result.settings.cache_path
    algorithm = best.algorithm
    parameters: dict[str, Any] = dict(result.choice.algorithms) if result.choice else {}
    stored = read_calibration(path)
    kept = replace(
        stored,
        cache=_cache(best.amax, algorithm),
        algorithm=algorithm.name if algorithm else PER_TENSOR,
        parameters=asdict(algorithm) if algorithm else parameters,
        versions={**stored.versions, "calib": calib.__version__},
    )
    write_calibration(kept, path)
    with Transaction(result.settings.out) as files:
        files.stage(f"model.int8{build.suffix}").write_bytes(build.payload or b"")
        for end, contents in build.files.items():
            files.stage(f"model.int8{build.suffix}{end}").write_bytes(contents)
        for name, text in (("sweep.json", json_from_sweep(document)), ("sweep.svg", svg_from_sweep(document))):
            files.stage(name).write_text(text, encoding="utf-8", errors="backslashreplace")
