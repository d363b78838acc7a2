"""The seam between the main job and what runs models: one protocol, one class for each back end."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray

from calib.cache import CalibrationCache
from calib.calibrator import Calibrator
from quant.errors import BuildError
from quant.evaluate import Runnable
from quant.graph import OnnxModel
from quant.half import half_model
from quant.qdq import qdq_model_from_amax

PRECISIONS = ("fp32", "fp16", "int8")
Contents = bytes  # of a file; `Build` has a field called bytes


@dataclass(frozen=True)
class Build:
    """A model built for one precision.

    Attributes:
        precision: fp32, fp16 or int8.
        runnable: Runs batches.
        payload: The built file's contents; None for FP32 on ONNX Runtime, which is the user's own model.
        suffix: Ending of the built file's name.
        bytes: Size of the built file.
        files: Contents of further files beside it, by what is added to its name.
        details: For the report: layers and their precisions, device memory.
    """

    precision: str
    runnable: Runnable
    payload: bytes | None
    suffix: str
    bytes: int
    files: Mapping[str, Contents] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """What calibrates, builds and runs models.

    Attributes:
        name: onnxruntime or tensorrt.
        version: Its version.
        device: What it runs on, for people.
    """

    name: str
    version: str
    device: str

    def collect(self, model: OnnxModel, calibrator: Calibrator, advance: Callable[[int], None]) -> None:
        """Stream the calibrator's batches through the model and give it the activations."""

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


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"

    def __init__(self, memory_limit: int | None = None) -> None:
        """Find ONNX Runtime.

        Args:
            memory_limit: Bytes of activations that calibration may hold at a time; None for the default.
        """
        import onnxruntime

        self._memory_limit = memory_limit
        self.version: str = onnxruntime.__version__
        self.device = processor_name()

    def collect(self, model: OnnxModel, calibrator: Calibrator, advance: Callable[[int], None]) -> None:
        """Stream the calibrator's batches through the model and give it the activations."""
        from quant.activations import MEMORY_LIMIT, collect_statistics

        collect_statistics(model, calibrator, advance, memory_limit=self._memory_limit or MEMORY_LIMIT)

    def calibrate(self, model: OnnxModel, calibrator: Calibrator, advance: Callable[[int], None]) -> CalibrationCache:
        """ONNX Runtime computes no scales by itself.

        Raises:
            BuildError: Always; says what to use instead.
        """
        raise BuildError("ONNX Runtime has no calibration of its own; use --calibrator toolkit")

    def build(self, model: OnnxModel, precision: str, cache: CalibrationCache | None = None) -> Build:
        """FP32 as it is, FP16 by typing the model, INT8 as explicit Q/DQ.

        Raises:
            BuildError: The model cannot be rewritten, or ONNX Runtime cannot load the result.
        """
        from quant.onnxruntime_backend import OnnxRuntimeSession

        proto = _rewritten(model.proto, precision, cache)
        session = OnnxRuntimeSession(proto, name=f"{model.path} ({precision})")
        payload = None if precision == "fp32" else proto.SerializeToString()
        return Build(precision, session, payload, ".onnx", len(payload) if payload else proto.ByteSize())

    def load(self, model: OnnxModel, precision: str) -> Build:
        """Run a model as it is.

        Raises:
            BuildError: ONNX Runtime cannot load it.
        """
        from quant.onnxruntime_backend import OnnxRuntimeSession

        payload = model.proto.SerializeToString()
        return Build(precision, OnnxRuntimeSession(model.proto, name=str(model.path)), payload, ".onnx", len(payload))

    def close(self) -> None:
        """Nothing to free: sessions go when nobody refers to them."""


def _rewritten(proto: onnx.ModelProto, precision: str, cache: CalibrationCache | None) -> onnx.ModelProto:
    if precision == "int8":
        if cache is None:
            raise BuildError("int8: expected scales, found none; calibrate first")
        return qdq_model_from_amax(proto, cache.amax)
    return half_model(proto) if precision == "fp16" else proto


def processor_name() -> str:
    """The processor's name, for people."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def rows_of(inputs: Mapping[str, NDArray[Any]]) -> int:
    """Batch size of a set of inputs."""
    return len(next(iter(inputs.values())))
