"""Tries every algorithm on the same statistics and images: which one costs this model the least accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import calib
from calib.algorithms import MSE, Algorithm, Entropy, MinMax, Percentile, amax_from_statistics
from calib.caches.cache import CalibrationCache, cache_from_amax
from calib.caches.provenance import read_calibration, stage_calibration
from calib.errors import CalibrationError
from calib.files import Transaction, exclusive
from calib.histograms.statistics import Statistics
from quant.backend import Build
from quant.calibration.obtain import obtain_calibration
from quant.calibration.run_data import RunData, open_data
from quant.errors import SettingsError
from quant.evaluation.accuracy import Evaluation, EvaluationBatch, Observe
from quant.evaluation.drop import Drop, agreement, drops_from_evaluations
from quant.evaluation.metric import recorder_from_settings
from quant.evaluation.recorder import Outputs
from quant.jobs.backend_choice import backend_by_name, collector_from_settings
from quant.jobs.measurement import check_model, evaluated, first_batch, sample_shapes
from quant.jobs.output_files import stage_build, stage_texts
from quant.jobs.recovering.float_rules import given_precisions
from quant.jobs.tasks.task_choice import ChosenTask, chosen_task, usable_recorder
from quant.onnx_graph.model import OnnxModel, load_model, refuse_quantized
from quant.progress import Console, RecordingConsole
from quant.qdq.writer import quantizable_tensors
from quant.report.contents.sweep import Document, document_from_sweep
from quant.report.result import SweepResult, SweepRow
from quant.report.views.notebook.shown import ShownSweep
from quant.report.views.render import json_from_document
from quant.report.views.sweep import svg_from_sweep
from quant.search.per_tensor import PER_TENSOR, TensorChoice, choose_by_tensor
from quant.settings.output_names import REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN, SWEEP_JSON, SWEEP_PLOT, build_name
from quant.settings.run_settings import RunSettings

PERCENTILES = (99.9, 99.99, 99.999)
CHOICE_IMAGES = 256  # calibration images for the choice by tensor, at most
CHOICE_BYTES = 512 << 20  # bytes of inputs held for it, so large images are fewer


def sweep(settings: RunSettings, console: Console | None = None, *, per_tensor: bool = False) -> Document:
    """Try entropy, minmax, mse and three percentiles, keep the best, and write the comparison into `settings.out`.

    INT8 runs on ONNX Runtime, or on TensorRT if `backend` names it, with an engine for each algorithm. The images are
    run once for the statistics of all algorithms, and read once for the evaluation of all builds; they are read once
    more to evaluate the choice by tensor.

    Args:
        settings: As for `run`; `algo`, `precision` and cache settings are ignored.
        console: Where progress goes; nowhere by default.
        per_tensor: Also try other algorithms than the best for single tensors, see `quant.search.per_tensor`.

    Returns:
        The contents of `sweep.json`.

    Raises:
        BuildError: INT8 cannot be built, or what goes before quantization changes what the model computes.
        ModelError, QuantError, DatasetError, CalibrationError: See `run`.
    """
    listener = RecordingConsole(console)
    if settings.model is None:
        raise SettingsError("model: expected an ONNX file, found nothing; give --model")
    model = load_model(settings.model)
    refuse_quantized(model)
    given = given_precisions(settings, model)
    settings = _of_all_algorithms(settings, listener)
    data = open_data(settings, model, listener)
    metric = recorder_from_settings(settings, model, listener)
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive(settings.out))
        backend = backend_by_name(settings, listener, lambda _: sample_shapes(data, settings), reuse=False)
        stack.callback(backend.close)
        collector = collector_from_settings(settings, listener)
        calibration = obtain_calibration(settings, model, data, backend, collector, listener)
        if calibration.statistics is None:
            raise CalibrationError(f"{calibration.path}: expected statistics beside the cache, found none; recalibrate")
        fp32 = backend.build(model, "fp32")
        batch = first_batch(data, settings)
        task = chosen_task(model, fp32.runnable, batch, data, settings, listener, metric)
        task = task.with_float(given.float_nodes)
        check_model(model, backend, lambda: fp32.runnable, batch, task.reader)
        candidates = _candidates(calibration.statistics)
        amax = {name: amax_from_statistics(calibration.statistics, a) for name, a in candidates.items()}
        builds = {
            name: backend.build(model, "int8", _cache(values, candidates[name]), task.float_nodes)
            for name, values in amax.items()
        }
        comparison = _Comparison(settings, data, fp32, task, listener)
        rows = comparison.rows(builds, amax, candidates)
        choice = None
        if per_tensor:
            choice = _choice(settings, model, data, amax, rows[0].name, listener, task.float_nodes)
            if choice.changed:
                builds[PER_TENSOR] = backend.build(model, "int8", _cache(choice.amax, None), task.float_nodes)
                rows += comparison.rows({PER_TENSOR: builds[PER_TENSOR]}, {PER_TENSOR: choice.amax}, {})
            else:  # the same scales, so the same result
                rows.append(replace(rows[0], name=PER_TENSOR, algorithm=None))
            rows.sort(key=lambda row: row.rank)  # stable: a single algorithm wins a tie
        kept = build_name("int8", builds[rows[0].name].suffix)
        outdated = _outdated_reports(settings, kept, listener)
        result = SweepResult(
            settings=settings,
            model=model,
            backend=backend,
            baseline=comparison.baseline,
            rows=tuple(rows),
            kept=kept,
            build=builds[rows[0].name],
            data=data,
            calibration=calibration,
            outdated=outdated,
            choice=choice,
            metric=comparison.scored,
            warnings=tuple(listener.warnings),
        )
        document = document_from_sweep(result)
        _keep(result, document)
    return ShownSweep(document)


def _of_all_algorithms(settings: RunSettings, listener: RecordingConsole) -> RunSettings:
    """The settings without what belongs to one algorithm and its cache."""
    if settings.calibrator == "tensorrt":
        listener.warn(
            "calibrator tensorrt: a sweep compares the toolkit's own algorithms; TensorRT's is not among them"
        )
    return replace(
        settings,
        algo="entropy",
        match_tensorrt=False,
        precision="int8",
        cache=None,
        cache_only=False,
        trust_cache=False,
        calibrator="toolkit",
    )


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
    float_nodes: frozenset[str],
) -> TensorChoice:
    """Try changes on every fourth image of some calibration images, and confirm them on the others.

    The images are taken at even distances, because the first ones may be of one class or one scene.
    """
    (first,) = _inputs(settings, data, data.selection[:1]) or [{}]
    bytes_each = sum(array.nbytes for array in first.values()) or 1
    most = min(CHOICE_IMAGES, max(CHOICE_BYTES // bytes_each, 1))
    images = data.selection[:: -(-len(data.selection) // most)]
    is_trial = np.arange(len(images)) % 4 == 0
    trial, confirming = (_inputs(settings, data, part) for part in (images[is_trial], images[~is_trial]))
    with console.task("Choosing by tensor", len(quantizable_tensors(model.light))) as advance:
        return choose_by_tensor(model, amax, start, trial, confirming, advance, float_nodes)


def _inputs(settings: RunSettings, data: RunData, selection: NDArray[np.int64]) -> list[dict[str, NDArray[Any]]]:
    if not len(selection):
        return []
    tolerant = replace(settings, max_bad=1.0)  # unreadable images were counted during calibration
    return [dict(batch.inputs) for batch in replace(data, selection=selection).calibration_stream(tolerant)]


class _Comparison:
    """Evaluates FP32 and compares INT8 builds with it.

    Attributes:
        baseline: FP32's evaluation; set by the first call of `rows`.
        scored: Name of the task's score, and FP32's; None where there is none. Set by the first call of `rows`.
    """

    baseline: Evaluation
    scored: tuple[str, float] | None = None

    def __init__(
        self,
        settings: RunSettings,
        data: RunData,
        fp32: Build,
        task: ChosenTask,
        listener: RecordingConsole,
    ) -> None:
        self._settings = settings
        self._data = data
        self._fp32 = fp32
        self._task = task
        self._recorder = task.recorder
        self._listener = listener

    def rows(
        self,
        builds: Mapping[str, Build],
        amax: Mapping[str, Mapping[str, float]],
        candidates: Mapping[str, Algorithm],
    ) -> list[SweepRow]:
        """Evaluate builds, reading the images once; best first."""
        everything = {"fp32": self._fp32} | {name: replace(build, deployed=None) for name, build in builds.items()}
        evaluations, _ = evaluated(
            everything, "fp32", self._data, self._settings, self._listener, self._task.reader, self._observer()
        )
        drops = drops_from_evaluations(evaluations)
        self.baseline = evaluations.pop("fp32")
        if self.scored is None and self._recorder is not None:
            self._recorder = usable_recorder(self._task, self._listener)
            self.scored = None if self._recorder is None else (self._recorder.name, self._recorder.score("fp32"))
        rows = [
            self._row(name, candidates.get(name), amax[name], found, drops.get(name))
            for name, found in evaluations.items()
        ]
        return sorted(rows, key=lambda row: row.rank)

    def _observer(self) -> Observe | None:
        """An observer that scores only builds without scores, so FP32 once, although it runs with all of them."""
        recorder = self._recorder
        if recorder is None:
            return None
        known = set(recorder.builds)

        def observe(name: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs) -> None:
            if name not in known:
                recorder.observe(name, outputs, batch, reference)

        return observe

    def _row(
        self,
        name: str,
        algorithm: Algorithm | None,
        amax: Mapping[str, float],
        evaluation: Evaluation,
        drop: Drop | None,
    ) -> SweepRow:
        baseline, recorder = self.baseline, self._recorder
        return SweepRow(
            name,
            algorithm,
            amax,
            evaluation,
            drop,
            None if recorder is None else recorder.drop("fp32", name, seed=self._settings.seed),
            None
            if baseline.predicted is None or evaluation.predicted is None
            else agreement(baseline.predicted, evaluation.predicted),
        )


def _cache(amax: Mapping[str, float], algorithm: Algorithm | None) -> CalibrationCache:
    """The scales as a cache; a mixture of algorithms gets TensorRT's usual first line, and says what it is."""
    if algorithm is None:
        return replace(cache_from_amax(amax, Entropy()), made_by="algorithm chosen by tensor")
    return cache_from_amax(amax, algorithm)


def _outdated_reports(settings: RunSettings, kept: str, listener: RecordingConsole) -> tuple[str, ...]:
    """The reports of an earlier run in the folder: the INT8 build that they describe is replaced."""
    found = tuple(name for name in (REPORT_JSON, REPORT_MARKDOWN, REPORT_HTML) if (settings.out / name).is_file())
    if found:
        listener.warn(
            f"{settings.out}: {', '.join(found)} of an earlier run are removed, because they describe another {kept}; "
            "give a sweep a folder of its own with --out"
        )
    return found


def _keep(result: SweepResult, document: dict[str, Any]) -> None:
    """Write the best scales as the cache, then their model and the comparison."""
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
        convergence=stored.convergence if algorithm == Entropy() else (),  # what the sweep's calibration computed
    )
    texts = {SWEEP_JSON: json_from_document(document), SWEEP_PLOT: svg_from_sweep(document)}
    with Transaction(result.settings.out) as files:
        for name in result.outdated:
            files.discard(name)
        stage_calibration(files, kept, path.name)
        stage_build(files, result.kept, result.build)
        stage_texts(files, texts)
