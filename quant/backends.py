"""Which back end a run uses; TensorRT is looked for only when it may be used."""

from __future__ import annotations

from quant.backend import Backend, OnnxRuntimeBackend
from quant.console import Console
from quant.errors import QuantError
from quant.settings import RunSettings


def backend_from_settings(settings: RunSettings, console: Console) -> Backend:
    """The back end that a run asks for; says which one it is.

    Args:
        settings: `auto` takes TensorRT where it and a GPU are found.
        console: Where notes go.

    Raises:
        QuantError: TensorRT was asked for and cannot be used; says what to install.
    """
    reason = ""
    if settings.backend != "onnxruntime":
        try:
            return _tensorrt(settings, console)
        except QuantError as error:
            if settings.backend == "tensorrt" or settings.calibrator == "tensorrt":
                raise
            reason = f"; not TensorRT: {error}"
    return _onnxruntime(settings, console, reason)


def backend_by_name(settings: RunSettings, console: Console, *, reuse: bool = True) -> Backend:
    """TensorRT where it is asked for by name, else ONNX Runtime: for comparisons, which need no GPU.

    Args:
        settings: `auto` takes ONNX Runtime.
        console: Where notes go.
        reuse: May engines of an earlier run in `out` be used again?

    Raises:
        QuantError: TensorRT was asked for and cannot be used; says what to install.
    """
    return (
        _tensorrt(settings, console, reuse=reuse) if settings.backend == "tensorrt" else _onnxruntime(settings, console)
    )


def _onnxruntime(settings: RunSettings, console: Console, reason: str = "") -> Backend:
    backend = OnnxRuntimeBackend(settings.memory_limit << 20)
    console.note(f"back end: ONNX Runtime {backend.version} on the CPU ({backend.device}){reason}")
    return backend


def _tensorrt(settings: RunSettings, console: Console, *, reuse: bool = True) -> Backend:
    from quant.tensorrt_backend import TensorRTBackend
    from quant.tensorrt_network import batch_range_from_text
    from quant.tensorrt_options import BuilderOptions

    sources = tuple(name.strip() for name in settings.tactic_sources.split(",")) if settings.tactic_sources else None
    backend = TensorRTBackend(
        batch_range_from_text(settings.dynamic) if settings.dynamic else settings.batch_size,
        BuilderOptions(
            strict_int8=settings.strict_int8,
            explicit=settings.explicit,
            workspace=settings.workspace << 20 if settings.workspace else None,
            level=settings.builder_level,
            tactic_sources=sources,
            dla_core=settings.dla,
            timing_cache=settings.out / "timing.cache",
        ),
        calibration_batch=settings.batch_size,
        engines=settings.out if reuse else None,
        memory_limit=settings.memory_limit << 20,
        note=console.note,
    )
    console.note(f"back end: TensorRT {backend.version} on {backend.device}")
    return backend
