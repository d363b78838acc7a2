"""What a run does when INT8 loses too much: it recovers, builds again and measures again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import calib
from calib.algorithms import algorithm_from_name
from calib.caches.cache import cache_from_amax
from calib.caches.provenance import Calibration, Source
from calib.calibrator import calibrator_from_name
from calib.histograms.statistics import Statistics
from quant.backend import Backend, Build
from quant.calibration.obtain import CalibrationResult
from quant.calibration.run_data import RunData
from quant.calibration.stored import source_of_run
from quant.collectors.collector import Collector
from quant.errors import BuildError, ModelError
from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import MetricDrop, paired_drop
from quant.evaluation.latency import measure_latency
from quant.evaluation.metric import recorder_from_settings
from quant.evaluation.recorder import Recorder
from quant.jobs.measurement import evaluated, first_batch
from quant.jobs.recovering.float_rules import rules_from_choice
from quant.jobs.tasks.head_trial import without_other_head
from quant.jobs.tasks.task_choice import ChosenTask
from quant.onnx_graph.light_model import light_model
from quant.onnx_graph.model import OnnxModel
from quant.onnx_graph.model_file import has_data_file
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.progress import Console, RecordingConsole
from quant.recovery.candidate import Candidate, Outlook
from quant.recovery.judging import Judge
from quant.recovery.ladder import Ladder, Recovery
from quant.recovery.success import outlook_of_drop, outlook_of_metric, outlook_of_noise
from quant.report.result import Measurement, Recovered
from quant.settings.output_names import RECOVERED_MODEL
from quant.settings.precision_file import PrecisionFile, text_from_rules
from quant.settings.run_settings import RunSettings
from quant.tasks.drawn_recorder import DrawnRecorder

Array = NDArray[Any]

_FIT, _JUDGE = 128, 256  # images
_CHUNK = 32  # images run at a time
_BYTES = 1 << 28  # of images held


@dataclass(frozen=True)
class _Look:
    """What the evaluation of one candidate gave."""

    build: Build
    evaluations: Mapping[str, Evaluation]
    metric: Mapping[str, Any] | None
    recorder: Recorder | None


class RecoveryJob:
    """Recovers the INT8 build of a run."""

    def __init__(
        self,
        settings: RunSettings,
        model: OnnxModel,
        data: RunData,
        backend: Backend,
        collector: Collector,
        task: ChosenTask,
        console: Console,
    ) -> None:
        """Keep what the run works with."""
        self._settings, self._model, self._data = settings, model, data
        self._backend, self._collector, self._task, self._console = backend, collector, task, console
        self._reader = task.reader
        self._looks: list[tuple[Candidate, _Look]] = []

    def run(
        self,
        calibration: CalibrationResult,
        builds: Mapping[str, Build],
        found: Measurement,
        float_nodes: frozenset[str] = frozenset(),
        precisions: PrecisionFile | None = None,
    ) -> tuple[Recovered, Measurement] | None:
        """Recover where INT8 loses too much; None where it does not, or where nothing can be done.

        Args:
            calibration: Scales of the INT8 build.
            builds: The run's builds by precision.
            found: How they did.
            float_nodes: Products that stay float whatever is found.
            precisions: The user's file that says so of some; None without one.

        Returns:
            What was recovered, and how the builds do with it; the measurement is the given one where the INT8 build
            stays what it was.
        """
        begin = self._outlook(found.evaluations, found.metric)
        steps = self._settings.recovery_steps
        if begin.within or not steps:
            return None
        if has_data_file(self._model.light):
            self._console.warn(
                f"INT8 loses too much ({begin.text}) and is not recovered: that takes several copies of a model in "
                "memory, and this one has 1 GiB of weights or more"
            )
            return None
        self._console.note(f"INT8 loses too much ({begin.text}): recovering")
        try:
            recovery = self._climbed(calibration, steps, begin, builds["fp32"], float_nodes)
        except (BuildError, ModelError) as error:
            self._console.warn(f"INT8 could not be recovered: {error}")
            return None
        looked = next((look for candidate, look in self._looks if candidate is recovery.candidate), None)
        if looked is None or not self._is_better(looked, begin):
            return Recovered(recovery=recovery, first=begin.text, used=False), found
        rules = [*precisions.rules] if precisions is not None else []
        rules += rules_from_choice(recovery.sensitivities, recovery.candidate.float_nodes, recovery.macs)
        recovered = self._recovered(recovery, begin, looked, calibration)
        if rules:
            recovered = replace(recovered, precisions=text_from_rules(rules))
        return recovered, self._measured(looked, builds, found)

    def _climbed(
        self,
        calibration: CalibrationResult,
        steps: Sequence[str],
        begin: Outlook,
        baseline_build: Build,
        float_nodes: frozenset[str],
    ) -> Recovery:
        baseline = OnnxRuntimeSession(self._model.proto, name=str(self._model.path))
        images, fixed = self._images(), baseline.fixed_batch
        total = _size(images)
        fit = min(_FIT, max(total // 3, 1))
        parts = _chunks(images, 0, fit, fixed), _chunks(images, fit, total, fixed)
        if not all(parts):
            raise BuildError(f"expected at least two batches of calibration images, found {total} images")
        start = Candidate(
            self._model.proto,
            self._model.proto,
            calibration.statistics if calibration.statistics and calibration.statistics.histograms else None,
            algorithm_from_name(self._settings.algo, self._settings.percentile),
            calibration.amax,
            float_nodes,
        )
        ladder = Ladder(
            start,
            parts[0],
            Judge(baseline, parts[0], self._reader),
            Judge(baseline, parts[1], self._reader),
            self._statistics,
            self._console.note,
            fixed,
        )
        return ladder.climb(steps, begin, lambda candidate: self._look(candidate, baseline_build))

    def _images(self) -> dict[str, Array]:
        """Inputs of the first calibration images, as many as both parts need and memory allows."""
        batches: list[Mapping[str, Array]] = []
        held = images = 0
        for batch in self._data.calibration_stream(self._settings):
            batches.append(batch.inputs)
            held += sum(array.nbytes for array in batch.inputs.values())
            images += len(batch.names)
            if images >= _FIT + _JUDGE or held >= _BYTES:
                break
        names = batches[0]
        return {
            name: np.concatenate([batch[name] for batch in batches])[: _FIT + _JUDGE]
            if names[name].ndim
            else names[name]
            for name in names
        }

    def _statistics(self, proto: onnx.ModelProto) -> Statistics:
        """Statistics of another float model, from all calibration images."""
        stream = self._data.calibration_stream(self._settings)
        calibrator = calibrator_from_name(self._settings.algo, stream, percentile=self._settings.percentile)
        with self._console.task("Calibrating the equalized model", stream.images) as advance:
            self._collector.collect(self._model_of(proto), calibrator, advance)
        return calibrator.statistics

    def _model_of(self, proto: onnx.ModelProto) -> OnnxModel:
        """A float model made in this run, under the name that it will have."""
        if proto is self._model.proto:
            return self._model
        digest = hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
        return OnnxModel(Path(self._settings.out) / RECOVERED_MODEL, light_model(proto), digest)

    def _look(self, candidate: Candidate, baseline: Build) -> Outlook:
        """Build a candidate and evaluate it against FP32."""
        cache = cache_from_amax(candidate.amax, candidate.algorithm)
        build = self._backend.build(self._model_of(candidate.proto), "int8", cache, candidate.float_nodes)
        named = RecordingConsole()  # the run has named the file
        own = recorder_from_settings(self._settings, self._model, named, self._task.texts)
        recorder = own if own is not None else self._task.fresh()
        evaluations, _ = evaluated(
            {"fp32": baseline, "int8": build},
            "fp32",
            self._data,
            self._settings,
            self._console,
            self._reader,
            recorder.observe if recorder else None,
        )
        looked = _Look(build, evaluations, self._section(recorder), recorder)
        self._looks.append((candidate, looked))
        outlook = self._outlook(evaluations, looked.metric)
        return replace(outlook, milliseconds=self._milliseconds(build)) if build.is_engine else outlook

    def _milliseconds(self, build: Build) -> float:
        inputs = first_batch(self._data, self._settings).inputs
        return measure_latency({build.precision: build.runnable}, inputs)[build.precision].milliseconds

    def _section(self, recorder: Recorder | None) -> Mapping[str, Any] | None:
        settings = self._settings
        return recorder.section("fp32", seed=settings.seed, max_drop=settings.max_drop) if recorder else None

    def _outlook(self, evaluations: Mapping[str, Evaluation], metric: Mapping[str, Any] | None) -> Outlook:
        """What the evaluation tells of INT8; the noise counts where nothing else judges it, or where it is too much."""
        if metric is not None and metric.get("against") != "fp32":  # agreement is no accuracy, so it has no limit
            row = next(row for row in metric["builds"] if row["precision"] == "int8")
            low, high = row["drop_ci95"]
            drop = MetricDrop(row["score"], row["drop"], low, high)
            return outlook_of_metric(drop, metric["allowed_drop"], metric["name"])
        right, mine = evaluations["fp32"].correct, evaluations["int8"].correct
        if right is None or mine is None:
            return outlook_of_noise(evaluations["int8"])
        return outlook_of_drop(paired_drop(right, mine), len(right), self._settings.max_drop)

    def _is_better(self, looked: _Look, begin: Outlook) -> bool:
        now = self._outlook(looked.evaluations, looked.metric)
        return now.within or now.excess < begin.excess

    def _recovered(
        self, recovery: Recovery, begin: Outlook, looked: _Look, calibration: CalibrationResult
    ) -> Recovered:
        candidate = recovery.candidate
        model = self._model_of(candidate.proto)
        algorithm = candidate.algorithm
        cache = cache_from_amax(candidate.amax, algorithm)
        source = source_of_run(self._model, self._data, None)
        made = Calibration(
            cache=cache,
            algorithm=candidate.algo,
            parameters=dict(candidate.changed) if candidate.changed else asdict(algorithm),
            source=Source(
                model.sha256,
                source.data,
                source.preprocessing,
                source.images,
                {**source.paths, "model": str(model.path)},
                calibration.quarantined,
            ),
            statistics=candidate.statistics or Statistics(images=calibration.images or 0),
            versions={"calib": calib.__version__, self._backend.name: self._backend.version},
        )
        return Recovered(
            recovery=recovery,
            first=begin.text,
            used=True,
            model=model,
            calibration=made,
            build=looked.build,
        )

    def _measured(self, looked: _Look, builds: Mapping[str, Build], found: Measurement) -> Measurement:
        now = {**builds, "int8": looked.build}
        timed = {name: build.deployed or build.runnable for name, build in now.items()}
        evaluations = {**found.evaluations, "int8": looked.evaluations["int8"]}
        right = evaluations["fp32"].correct
        mine = evaluations["int8"].correct
        drops = dict(found.drops)
        if right is not None and mine is not None:
            drops["int8"] = paired_drop(right, mine)
        metric = found.metric
        if isinstance(self._task.recorder, DrawnRecorder) and looked.recorder is not None:
            self._task.recorder.adopt("int8", looked.recorder)
            section = self._section(self._task.recorder)
            metric = None if section is None else without_other_head(section)
        elif metric is not None and looked.metric is not None:
            row = next(row for row in looked.metric["builds"] if row["precision"] == "int8")
            metric = {**metric, "builds": [row if r["precision"] == "int8" else r for r in metric["builds"]]}
        latencies = measure_latency(timed, first_batch(self._data, self._settings).inputs)
        return replace(found, evaluations=evaluations, drops=drops, latencies=latencies, metric=metric)


def _size(inputs: Mapping[str, Array]) -> int:
    return len(next(array for array in inputs.values() if array.ndim))


def _chunks(inputs: Mapping[str, Array], start: int, stop: int, fixed: int | None) -> list[dict[str, Array]]:
    """Images from `start` to `stop`, in batches; whole ones where the model fixes their size."""
    step = fixed or _CHUNK
    last = stop - (stop - start) % step if fixed else stop
    return [
        {name: array[i : min(i + step, last)] if array.ndim else array for name, array in inputs.items()}
        for i in range(start, last, step)
    ]
