"""The ONNX Runtime back end: builds and sessions on the CPU."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import onnx

from calib.caches.cache import CalibrationCache
from calib.calibrator import Calibrator
from quant.backend import Build
from quant.errors import BuildError
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.model import OnnxModel
from quant.onnx_graph.weights_aside import file_size, serialized
from quant.qdq.placement import Placement
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.output_names import MODEL_SUFFIX


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"

    def __init__(self) -> None:
        """Find ONNX Runtime."""
        import onnxruntime

        self.version: str = onnxruntime.__version__
        self.device = processor_name()

    def calibrate(self, model: OnnxModel, calibrator: Calibrator, advance: Callable[[int], None]) -> CalibrationCache:
        """Refuse: ONNX Runtime computes no scales itself.

        Raises:
            BuildError: Always; the message says what to use instead.
        """
        raise BuildError("ONNX Runtime has no calibration of its own; use --calibrator toolkit")

    def build(
        self,
        model: OnnxModel,
        precision: str,
        cache: CalibrationCache | None = None,
        float_nodes: frozenset[str] = frozenset(),
    ) -> Build:
        """Build FP32 from the model as it is, FP16 by changing its types, and INT8 as explicit Q/DQ.

        Raises:
            BuildError: The model cannot be rewritten, or ONNX Runtime cannot load the result.
        """
        proto = _rewritten(model.proto, precision, cache, float_nodes)
        name = f"{model.path} ({precision})"
        return _opened(precision, proto, name, None if precision == "fp32" else serialized(proto, name))

    def load(self, model: OnnxModel, precision: str) -> Build:
        """Run a model as it is.

        Raises:
            BuildError: ONNX Runtime cannot load it.
        """
        payload = serialized(model.proto, str(model.path)) if precision == "int8" else None
        return _opened(precision, model.proto, str(model.path), payload)

    def close(self) -> None:
        """Do nothing: sessions are freed when nothing refers to them."""


def _opened(precision: str, proto: onnx.ModelProto, name: str, payload: bytes | None) -> Build:
    """INT8 is opened twice: as it is written, for accuracy, and as a user would deploy it, for speed."""
    from quant.onnxruntime.session import OnnxRuntimeSession
    from quant.onnxruntime.session_in_parts import SessionInParts

    size = len(payload) if payload is not None else file_size(proto)
    if precision != "int8":
        return Build(precision, OnnxRuntimeSession(proto, name=name), payload, MODEL_SUFFIX, size)
    exact = SessionInParts(proto, name=name)
    deployed = OnnxRuntimeSession(proto, name=name)
    return Build(precision, exact, payload, MODEL_SUFFIX, size, deployed=deployed)


def _rewritten(
    proto: onnx.ModelProto, precision: str, cache: CalibrationCache | None, float_nodes: frozenset[str]
) -> onnx.ModelProto:
    if precision == "int8":
        if cache is None:
            raise BuildError("int8: expected scales, found none; calibrate first")
        return qdq_model_from_amax(proto, cache.amax, Placement(float_nodes=float_nodes))
    return half_model(proto) if precision == "fp16" else proto


def processor_name() -> str:
    """The processor's name, for display."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
