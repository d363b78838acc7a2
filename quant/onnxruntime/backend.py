"""The ONNX Runtime back end: builds and sessions on the CPU."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from calib.caches.cache import CalibrationCache
from calib.calibrator import Calibrator
from quant.backend import Build, Runnable
from quant.errors import BuildError
from quant.onnx_graph.half_precision import light_half_model
from quant.onnx_graph.light_model import LightModel, release_pages
from quant.onnx_graph.made_model import MadeModel
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.resident import Resident, bytes_of_session
from quant.qdq.placement import Placement
from quant.qdq.reader import name_algorithm
from quant.qdq.writer import light_qdq_model
from quant.settings.output_names import MODEL_SUFFIX, build_name


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
        name = f"{model.path} ({precision})"
        if precision == "fp32":
            return _opened(precision, lambda: model.light, name, bytes_of_session(model.light.values), size=model.bytes)
        made = MadeModel(
            partial(_rewritten, model.light, precision, cache, float_nodes), build_name(precision, MODEL_SUFFIX)
        )
        build = _opened(precision, made.model, name, bytes_of_session(made.values), size=made.bytes)
        made.forget()  # now that its sessions are open
        return replace(build, payload=made, graph=made.graph)

    def load(self, model: OnnxModel, precision: str) -> Build:
        """Run a model as it is.

        Raises:
            BuildError: ONNX Runtime cannot load it.
        """
        build = _opened(
            precision, lambda: model.light, str(model.path), bytes_of_session(model.light.values), size=model.bytes
        )
        return replace(build, graph=model.graph if precision == "int8" else None)

    def ahead(self) -> None:
        """Nothing: sessions are made in no time, and all of it is work for the same processors."""

    def close(self) -> None:
        """Do nothing: sessions are freed when nothing refers to them."""


def _opened(precision: str, model: Callable[[], LightModel], name: str, needed: int, *, size: int) -> Build:
    """INT8 is opened twice: as it is written, for accuracy, and as a user would deploy it, for speed."""
    from quant.onnxruntime.session import OnnxRuntimeSession
    from quant.onnxruntime.session_in_parts import SessionInParts

    def deployed() -> Runnable:
        return OnnxRuntimeSession(model(), name=name)

    if precision != "int8":
        return Build(precision, Resident(deployed, needed), None, MODEL_SUFFIX, size, session_bytes=needed)
    exact = Resident(lambda: SessionInParts(model(), name=name), needed)
    other = Resident(deployed, needed, beside=[exact])
    return Build(precision, exact, None, MODEL_SUFFIX, size, deployed=other, session_bytes=needed)


def _rewritten(
    model: LightModel, precision: str, cache: CalibrationCache | None, float_nodes: frozenset[str]
) -> LightModel:
    if precision == "fp16":
        made = light_half_model(model)
    elif cache is None:
        raise BuildError("int8: expected scales, found none; calibrate first")
    else:
        made = light_qdq_model(model, cache.amax, Placement(float_nodes=float_nodes))
        name_algorithm(made, cache)
    release_pages(model)
    return made


def processor_name() -> str:
    """The processor's name, for display."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
