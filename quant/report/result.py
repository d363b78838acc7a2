"""The results of a run, a comparison or a sweep, before they become a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calib.algorithms import Algorithm
from calib.caches.provenance import Calibration
from quant.backend import Backend, Build, Latency
from quant.calibration.obtain import CalibrationResult
from quant.calibration.preset_trial import PresetTrial
from quant.calibration.run_data import RunData
from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import Drop, MetricDrop
from quant.evaluation.verdict import Verdict
from quant.onnx_graph.model import OnnxModel
from quant.qdq.migration import Migration
from quant.recovery.ladder import Recovery
from quant.search.algorithms import BetterAlgorithm
from quant.search.per_tensor import TensorChoice
from quant.settings.precision_file import PrecisionFile
from quant.settings.run_settings import RunSettings
from quant.tensorrt.engines.engine_model import EngineModel


@dataclass(frozen=True)
class Measurement:
    """How builds did on the same images.

    Attributes:
        evaluations: Evaluations by build.
        drops: Drops against the baseline by build, if images are labelled.
        latencies: Latencies by build.
        metric: The user's own metric, as `quant.evaluation.metric.section_from_scores` gives it; None if there is none.
        quarantined: Images that could not be read, each with the reason.
        layers: Milliseconds of each layer of an engine, by build and TensorRT's name of the layer.
    """

    evaluations: Mapping[str, Evaluation]
    drops: Mapping[str, Drop]
    latencies: Mapping[str, Latency]
    metric: Mapping[str, Any] | None
    quarantined: Mapping[str, str]
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What recovery made of an INT8 build that lost too much.

    Attributes:
        recovery: Its steps.
        first: What the INT8 build lost before, in words.
        used: Is the INT8 build of the run the recovered one? Otherwise it did not become better.
        model: The float model that it was built from.
        calibration: Its scales.
        build: The build.
        precisions: Text of the file that says what is in float; empty where nothing is.
    """

    recovery: Recovery
    first: str
    used: bool
    model: OnnxModel | None = None
    calibration: Calibration | None = None
    build: Build | None = None
    precisions: str = ""


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """One of the two models of a comparison.

    Attributes:
        path: Its file.
        sha256: Hash of its contents.
        precision: Its precision.
        report: The report of the run that built it, if that was given instead.
    """

    path: str
    sha256: str
    precision: str
    report: str | None = None


@dataclass(frozen=True, kw_only=True)
class MigrationResult:
    """A cache taken over into a Q/DQ model, and how the new build did against the old one.

    Attributes:
        cache: Path of the cache.
        header: Its first line.
        model: The file of the Q/DQ model.
        migration: The account of every tensor.
        forecast: Is the old build a forecast in exact arithmetic, and no engine?
        drop: What the new build loses against the old one in top-1; None without labels, or where a metric decides.
        metric_drop: The same in the metric or the task's score; None without one, or without labels.
        agreement: Images on which both give the same class, per cent, with its 95 % interval; None of no classifier.
    """

    cache: str
    header: str
    model: str
    migration: Migration
    forecast: bool
    drop: Drop | None = None
    metric_drop: MetricDrop | None = None
    agreement: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class HeadTrial:
    """A detector's head in float, and what it would be in INT8; or the other way round.

    Attributes:
        kept: float or int8: how the INT8 build has it.
        nodes: The head's products.
        other: The score's row of the other build; None where it could not be built or scored.
        latency: Of the other build.
    """

    kept: str
    nodes: tuple[str, ...]
    other: Mapping[str, Any] | None
    latency: Latency | None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """All results of a run or of a comparison.

    A run names its builds by their precision, and `fp32` is its baseline; a comparison has two, `baseline` and
    `candidate`; a migration has `fp32`, `old` and `new`.

    Attributes:
        settings: Settings of the run.
        model: The baseline: the FP32 model or, in a comparison, the first model or engine.
        data: The images.
        backend: What ran them.
        calibration: Scales; None when no INT8 was asked for.
        builds: Builds by name, the baseline first.
        failed: Why a precision could not be built, by precision.
        baseline: Name of the build that the others are compared with.
        measured: How the builds did.
        verdict: What to use, and why.
        quarantined: Unreadable images of calibration and evaluation, each once with the reason.
        warnings: What the user should read.
        timings: Seconds by stage; empty where they were not taken.
        timeline: When stages began and ended, seconds after the run's beginning.
        head: A detector's head; None of other models.
        float_nodes: Products that stay float in INT8, by `quant.qdq.operators.node_key`.
        precisions: The file that says which products stay float; None without one.
        recovered: What was done about an INT8 build that lost too much; None where none did, or nothing could be done.
        presets: What FP32 answers on a few labelled images after other preprocessings; None where that was not tried.
        better: Another algorithm that would serve the outputs better; None where none does, or none was looked for.
        files: Files of the builds by name: those that are kept in `settings.out`, or those that were compared.
        outdated: Files in `settings.out` that an earlier run left, of precisions that this one could not build.
        compared: The two models of a comparison, or the three of a migration, by the names of their builds.
        migration: What became of an old cache; None but for `calib migrate`.
        command: The command line that repeats it; None if it was called from Python.
        working_folder: The folder where that command was given.
    """

    settings: RunSettings
    model: OnnxModel | EngineModel
    data: RunData
    backend: Backend
    calibration: CalibrationResult | None = None
    builds: Mapping[str, Build]
    failed: Mapping[str, str] = field(default_factory=dict)
    baseline: str = "fp32"
    measured: Measurement
    verdict: Verdict
    quarantined: Mapping[str, str]
    warnings: tuple[str, ...]
    timings: Mapping[str, float] = field(default_factory=dict)
    timeline: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    precisions: PrecisionFile | None = None
    recovered: Recovered | None = None
    better: BetterAlgorithm | None = None
    presets: PresetTrial | None = None
    head: HeadTrial | None = None
    float_nodes: frozenset[str] = frozenset()
    files: Mapping[str, str]
    outdated: tuple[str, ...] = ()
    compared: Mapping[str, ComparedModel] = field(default_factory=dict)
    migration: MigrationResult | None = None
    command: str | None = None
    working_folder: str | None = None

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names of the builds that are compared with the baseline."""
        return tuple(name for name in self.builds if name != self.baseline)


@dataclass(frozen=True)
class SweepRow:
    """One way to choose scales, and how it did.

    Attributes:
        name: Its displayed name, such as "percentile 99.9".
        algorithm: The algorithm; None for the choice by tensor.
        amax: amax of all tensors, in activation units.
        evaluation: Evaluation of the INT8 build.
        drop: Drop of top-1 against FP32; None without labels.
        metric: Drop of the user's metric; None if there is none.
        agreement: Share of images with FP32's top-1 class, per cent; None when the model is not a classifier.
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
        """Smaller is better: the drop (of the user's metric if there is one) decides, then the larger SQNR."""
        drop = self.metric.drop if self.metric else self.drop.points if self.drop else 0.0
        return drop, -self.evaluation.sqnr_db


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """All results of a sweep.

    Attributes:
        settings: Settings of the sweep.
        model: The FP32 model.
        backend: What ran it.
        baseline: Evaluation of FP32.
        rows: The rows, best first.
        kept: Name of the file that holds the best row's build.
        build: The best row's build.
        data: The images.
        calibration: The calibration that all rows share.
        outdated: Reports in `settings.out` that an earlier run left, which describe a build that is replaced.
        choice: The choice by tensor; None if it was not asked for.
        metric: Name of the user's metric and FP32's average; None if there is none.
        warnings: What the user should read.
        timings: Seconds by stage; empty where they were not taken.
    """

    settings: RunSettings
    model: OnnxModel
    backend: Backend
    baseline: Evaluation
    rows: tuple[SweepRow, ...]
    kept: str
    build: Build
    data: RunData
    calibration: CalibrationResult
    outdated: tuple[str, ...]
    choice: TensorChoice | None
    metric: tuple[str, float] | None
    warnings: tuple[str, ...]
