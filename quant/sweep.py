"""Every algorithm on the same statistics and the same images: which one costs this model the least."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
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
from quant.backend import Backend, Build
from quant.backends import backend_by_name
from quant.calibrate import obtain_calibration
from quant.comparison import Drop, agreement, drops_from_evaluations
from quant.console import Console, RecordingConsole
from quant.data import RunData, open_data
from quant.errors import QuantError
from quant.evaluate import Evaluation, EvaluationBatch, Runnable, evaluate
from quant.graph import OnnxModel, load_model
from quant.metric import MetricDrop, MetricRecorder, metric_drop, recorder_from_settings
from quant.output_files import stage_build, stage_texts
from quant.qdq import quantizable_tensors
from quant.settings import RunSettings
from quant.sweep_report import Document, document_from_sweep, json_from_sweep, svg_from_sweep
from quant.tensor_choice import TensorChoice, choose_by_tensor

PERCENTILES = (99.9, 99.99, 99.999)
CHOICE_IMAGES = 256  # of the calibration images at most, for the choice by tensor
CHOICE_BYTES = 512 << 20  # of inputs that are held for it: large images are fewer
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
    are run once for the statistics of all of them, and read once for the evaluation of all builds; once more for that
    of the choice by tensor.

    Args:
        settings: As for `run`; `algo`, `precision` and cache settings do not count.
        console: Where progress goes; nowhere by default.
        per_tensor: Also give single tensors another algorithm than the best, see `quant.tensor_choice`.

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
    recorder = recorder_from_settings(settings, model)
    with exclusive(settings.out), contextlib.closing(backend_by_name(settings, listener, reuse=False)) as backend:
        calibration = obtain_calibration(settings, model, data, backend, listener)
        if calibration.statistics is None:
            raise CalibrationError(f"{calibration.path}: expected statistics beside the cache, found none; recalibrate")
        candidates = _candidates(calibration.statistics)
        amax = {name: amax_from_statistics(calibration.statistics, a) for name, a in candidates.items()}
        builds = {name: backend.build(model, "int8", _cache(values, candidates[name])) for name, values in amax.items()}
        comparison = _Comparison(settings, data, backend.build(model, "fp32").runnable, recorder, listener)
        rows = comparison.rows(builds, amax, candidates)
        choice = None
        if per_tensor:
            choice = _choice(settings, model, data, amax, rows[0].name, listener)
            if choice.changed:
                builds[PER_TENSOR] = backend.build(model, "int8", _cache(choice.amax, None))
                rows += comparison.rows({PER_TENSOR: builds[PER_TENSOR]}, {PER_TENSOR: choice.amax}, {})
            else:  # the same scales, so the same result
                rows.append(replace(rows[0], name=PER_TENSOR, algorithm=None))
            rows.sort(key=lambda row: row.rank)  # stable: among equals a single algorithm is kept
        result = SweepResult(
            settings,
            model,
            backend,
            comparison.baseline,
            tuple(rows),
            choice,
            (recorder.name, float(recorder.scores()["fp32"].mean())) if recorder else None,
            tuple(listener.warnings),
        )
        document = document_from_sweep(result)
        _keep(result, builds[rows[0].name], document)
    return document


def _candidates(statistics: Statistics) -> dict[str, Algorithm]:
    algorithms: list[Algorithm] = [Entropy(), MinMax(), MSE(), *map(Percentile, PERCENTILES)]
    return {f"{a.name} {a.percentile:g}" if isinstance(a, Percentile) else a.name: a for a in algorithms}


def _choice(
    settings: RunSettings,
    model: OnnxModel,
    data: RunData,
    amax: Mapping[str, Mapping[str, float]],
    start: str,
    console: Console,
) -> TensorChoice:
    """Try changes on every fourth of some calibration images, and confirm them on the others.

    They are taken at even distances: the first ones may be of one class or one scene.
    """
    (first,) = _inputs(settings, data, data.selection[:1]) or [{}]
    bytes_each = sum(array.nbytes for array in first.values()) or 1
    most = min(CHOICE_IMAGES, max(CHOICE_BYTES // bytes_each, 1))
    images = data.selection[:: -(-len(data.selection) // most)]
    is_trial = np.arange(len(images)) % 4 == 0
    trial, confirming = (_inputs(settings, data, part) for part in (images[is_trial], images[~is_trial]))
    with console.task("Choosing by tensor", len(quantizable_tensors(model.proto))) as advance:
        return choose_by_tensor(model, amax, start, trial, confirming, advance)


def _inputs(settings: RunSettings, data: RunData, selection: NDArray[np.int64]) -> list[dict[str, NDArray[Any]]]:
    if not len(selection):
        return []
    tolerant = replace(settings, max_bad=1.0)  # what cannot be read was counted when calibrating
    return [dict(batch.inputs) for batch in replace(data, selection=selection).calibration_stream(tolerant)]


class _Comparison:
    """FP32 on the images of the evaluation, and what INT8 builds are worth beside it.

    Attributes:
        baseline: FP32's evaluation; there after the first `rows`.
    """

    baseline: Evaluation

    def __init__(
        self,
        settings: RunSettings,
        data: RunData,
        fp32: Runnable,
        recorder: MetricRecorder | None,
        listener: RecordingConsole,
    ) -> None:
        self._settings = settings
        self._data = data
        self._fp32 = fp32
        self._recorder = recorder
        self._listener = listener

    def rows(
        self,
        builds: Mapping[str, Build],
        amax: Mapping[str, Mapping[str, float]],
        candidates: Mapping[str, Algorithm],
    ) -> list[SweepRow]:
        """Evaluate builds, reading the images once; best first."""
        runnables = {"fp32": self._fp32} | {name: build.runnable for name, build in builds.items()}
        stream = self._data.evaluation_stream(self._settings)
        with self._listener.task("Evaluating", stream.images) as advance:
            evaluations = evaluate(runnables, "fp32", stream, advance, self._observer())
        drops = drops_from_evaluations(evaluations)
        self.baseline = evaluations.pop("fp32")
        rows = [
            self._row(name, candidates.get(name), amax[name], found, drops.get(name))
            for name, found in evaluations.items()
        ]
        return sorted(rows, key=lambda row: row.rank)

    def _observer(self) -> Callable[[str, Sequence[NDArray[Any]], EvaluationBatch], None] | None:
        """Scores the builds that have no scores yet: FP32 once, though it runs beside all."""
        recorder = self._recorder
        if recorder is None:
            return None
        known = set(recorder.scores())

        def observe(name: str, outputs: Sequence[NDArray[Any]], batch: EvaluationBatch) -> None:
            if name not in known:
                recorder.observe(name, outputs, batch)

        return observe

    def _row(
        self,
        name: str,
        algorithm: Algorithm | None,
        amax: Mapping[str, float],
        evaluation: Evaluation,
        drop: Drop | None,
    ) -> SweepRow:
        baseline, scores = self.baseline, self._recorder.scores() if self._recorder else {}
        return SweepRow(
            name,
            algorithm,
            amax,
            evaluation,
            drop,
            metric_drop(scores["fp32"], scores[name], seed=self._settings.seed) if scores else None,
            None
            if baseline.predicted is None or evaluation.predicted is None
            else agreement(baseline.predicted, evaluation.predicted),
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
    texts = {"sweep.json": json_from_sweep(document), "sweep.svg": svg_from_sweep(document)}
    with Transaction(result.settings.out) as files:
        stage_build(files, f"model.int8{build.suffix}", build)
        stage_texts(files, texts)
