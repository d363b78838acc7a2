"""The interface between the main job and what builds and runs models: one protocol, and one class per back end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import onnx
from numpy.typing import NDArray

from calib.caches.cache import CalibrationCache
from calib.calibrator import Calibrator
from quant.onnx_graph.made_model import MadeModel
from quant.onnx_graph.model import OnnxModel

Array = NDArray[Any]
Contents = bytes  # a file's contents; `Build` has a field called bytes
SampleShapes = Callable[[OnnxModel], Mapping[str, tuple[int, ...]]]  # of a model's inputs, without the batch


class Runnable(Protocol):
    """A build that can be run: a session or an engine."""

    def run(self, inputs: Mapping[str, Array]) -> list[Array]: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class Latency:
    """Time of one run.

    Attributes:
        milliseconds: Median time of a batch.
        batch: Images in a batch.
        runs: Number of timed runs, after warm-up.
        p99: 99th percentile of the time of a batch, milliseconds; None if there are too few runs for one.
    """

    milliseconds: float
    batch: int
    runs: int
    p99: float | None = None

    @property
    def images_per_second(self) -> float:
        """Throughput at that batch size."""
        return 1000 * self.batch / self.milliseconds


@runtime_checkable
class TimesItself(Protocol):
    """A build with a better clock than the host's: an engine, which is timed by the GPU's events."""

    def latency(self, inputs: Mapping[str, Array]) -> Latency: ...  # noqa: D102 - see the class


@runtime_checkable
class TimesLayers(Protocol):
    """A build that can say what each of its layers takes: an engine, with TensorRT's profiler."""

    def layer_seconds(self, inputs: Mapping[str, Array]) -> Mapping[str, float]: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class Build:
    """A model built for one precision.

    Attributes:
        precision: fp32, fp16 or int8.
        runnable: Runs batches, in the arithmetic that the model states.
        payload: What the built file holds: an engine's bytes or a model; None for a file of the user's own, as FP32 on
            ONNX Runtime is.
        suffix: Ending of the built file's name.
        bytes: Size of the built file, and of the weights beside it.
        files: Contents of further files beside it, by what is appended to its name.
        details: For the report: layers and their precisions, device memory.
        deployed: Runs batches as a user would deploy the file, where that computes in another way; it is what is timed.
        graph: The graph of an ONNX model that has layers of several precisions; None for others.
        session_bytes: What its session may hold of its weights, and that of `deployed` as well.
        is_engine: Whether it is an engine, built for this very device. The next run reuses it, so its file is always
            kept. Its latency is that of a deployment, so it counts in the choice of the build.
    """

    precision: str
    runnable: Runnable
    payload: Contents | MadeModel | None
    suffix: str
    bytes: int
    files: Mapping[str, Contents] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    deployed: Runnable | None = None
    graph: onnx.ModelProto | None = None
    session_bytes: int = 0
    is_engine: bool = False


class Begun(Protocol):
    """A build that was begun before it is needed."""

    @property
    def reused(self) -> bool:
        """Whether it was there already, from an earlier run."""

    @property
    def span(self) -> tuple[float, float] | None:
        """Once it is taken: when it was made, by `time.perf_counter`; None where `take` itself made or found it."""

    def is_there(self) -> bool:
        """Whether `take` would give it, or find that it must be made in another way, without waiting."""

    def take(self) -> Build:
        """The build, once; waits for it. What went wrong beside other work is done again, alone.

        Raises:
            BuildError: It cannot be built.
        """

    def drop(self) -> None:
        """It is not needed any more."""


@dataclass(frozen=True)
class WhenTaken:
    """A build of which nothing is begun: it is made when it is taken.

    Attributes:
        make: Makes it.
        reused: See `Begun`.
        span: See `Begun`.
    """

    make: Callable[[], Build]
    reused: bool = False
    span: tuple[float, float] | None = None

    def is_there(self) -> bool:
        """See `Begun`."""
        return False

    def take(self) -> Build:
        """See `Begun`."""
        return self.make()

    def drop(self) -> None:
        """See `Begun`."""


@dataclass(frozen=True)
class Found:
    """A build that was there already.

    Attributes:
        build: It.
        reused: See `Begun`.
        span: See `Begun`.
    """

    build: Build
    reused: bool = True
    span: tuple[float, float] | None = None

    def is_there(self) -> bool:
        """See `Begun`."""
        return True

    def take(self) -> Build:
        """See `Begun`."""
        return self.build

    def drop(self) -> None:
        """See `Begun`."""


class Ahead(Protocol):
    """Builds beside the other work of this process; a context manager at whose end nothing is left running."""

    def begin(
        self,
        model: OnnxModel,
        precision: str,
        cache: CalibrationCache | None = None,
        float_nodes: frozenset[str] = frozenset(),
    ) -> Begun:
        """Begin a build; see `Backend.build`.

        Raises:
            BuildError: What is asked for makes no sense.
        """

    def expect(self, precision: str) -> None:
        """Get ready for a build of this precision, which will begin later."""

    def end(self) -> None:
        """End what has not ended, so that nothing runs beside what follows; a second call does nothing."""

    def __enter__(self) -> Ahead: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Backend(Protocol):
    """Builds and runs models, and may calibrate them itself.

    Attributes:
        name: onnxruntime or tensorrt.
        version: Its version.
        device: What it runs on, in words.
    """

    name: str
    version: str
    device: str

    def calibrate(self, model: OnnxModel, calibrator: Calibrator, advance: Callable[[int], None]) -> CalibrationCache:
        """Let the back end itself compute the scales from the calibrator's batches.

        Raises:
            BuildError: It has no calibration of its own, or cannot calibrate this model.
        """

    def build(
        self,
        model: OnnxModel,
        precision: str,
        cache: CalibrationCache | None = None,
        float_nodes: frozenset[str] = frozenset(),
    ) -> Build:
        """Build the model; INT8 needs the scales of its tensors.

        Args:
            model: The FP32 model.
            precision: fp32, fp16 or int8.
            cache: For INT8, the scales.
            float_nodes: For INT8, the products that stay float: `quant.qdq.operators.node_key` of each, as the nodes
                are called once they are prepared for quantization.

        Raises:
            BuildError: This precision cannot be built.
        """

    def load(self, model: OnnxModel, precision: str) -> Build:
        """Run a model as it is, without rewriting any of it.

        Args:
            model: A float, half or Q/DQ model.
            precision: Which of these it is: fp32, fp16 or int8.

        Raises:
            BuildError: It cannot be run.
        """

    def ahead(self) -> Ahead | None:
        """What builds beside the other work of this process; None where builds have to follow each other.

        The builds come out the same.
        """

    def close(self) -> None:
        """Free what builds hold, so that they can no longer be run; a second call does nothing."""
