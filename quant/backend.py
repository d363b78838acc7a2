"""The seam between the main job and what builds and runs models: one protocol, one class for each back end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from calib.caches.cache import CalibrationCache
from calib.calibrator import Calibrator
from quant.onnx_graph.model import OnnxModel

Array = NDArray[Any]
Contents = bytes  # of a file; `Build` has a field called bytes


class Runnable(Protocol):
    """A build that can be run: a session or an engine."""

    def run(self, inputs: Mapping[str, Array]) -> list[Array]: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class Latency:
    """Time of one run.

    Attributes:
        milliseconds: Median of a batch.
        batch: Images in it.
        runs: How many were timed, after warm-up.
        p99: 99th percentile of a batch, milliseconds; None where runs are too few for one.
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
    """A build with a better clock than the host's: an engine, by the GPU's events."""

    def latency(self, inputs: Mapping[str, Array]) -> Latency: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class Build:
    """A model built for one precision.

    Attributes:
        precision: fp32, fp16 or int8.
        runnable: Runs batches, in the arithmetic that the model states.
        payload: The built file's contents; None for FP32 on ONNX Runtime, which is the user's own model.
        suffix: Ending of the built file's name.
        bytes: Size of the built file.
        files: Contents of further files beside it, by what is added to its name.
        details: For the report: layers and their precisions, device memory.
        deployed: Runs batches as a user would deploy the file, where that computes in another way; it is what is timed.
        is_engine: Is it an engine, built for this very device? The next run uses it again, so its file is kept in any
            case; and its latency is that of a deployment, so it counts in the choice of the build.
    """

    precision: str
    runnable: Runnable
    payload: bytes | None
    suffix: str
    bytes: int
    files: Mapping[str, Contents] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    deployed: Runnable | None = None
    is_engine: bool = False


class Backend(Protocol):
    """What builds and runs models, and may calibrate them by itself.

    Attributes:
        name: onnxruntime or tensorrt.
        version: Its version.
        device: What it runs on, for people.
    """

    name: str
    version: str
    device: str

    def calibrate(self, model: OnnxModel, calibrator: Calibrator, advance: Callable[[int], None]) -> CalibrationCache:
        """Let the back end compute the scales by itself, from the calibrator's batches.

        Raises:
            BuildError: It has no calibration of its own, or cannot calibrate this model.
        """

    def build(self, model: OnnxModel, precision: str, cache: CalibrationCache | None = None) -> Build:
        """Build the model; INT8 needs the scales of its tensors.

        Raises:
            BuildError: This precision cannot be built.
        """

    def load(self, model: OnnxModel, precision: str) -> Build:
        """Run a model as it is: nothing of it is rewritten.

        Args:
            model: Float, half or with Q/DQ.
            precision: Which of these: fp32, fp16 or int8.

        Raises:
            BuildError: It cannot be run.
        """

    def close(self) -> None:
        """Free what builds hold; they cannot be run any more. Again does nothing."""
