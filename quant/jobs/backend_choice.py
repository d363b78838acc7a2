"""Which back end and which collector a run uses; TensorRT is looked for only when it may be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.backend import Backend, SampleShapes
from quant.collectors.collector import Collector
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.errors import QuantError
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.progress import Console
from quant.settings.output_names import TIMING_CACHE
from quant.settings.run_settings import RunSettings

if TYPE_CHECKING:
    from quant.tensorrt.building.options import BuilderOptions


def backend_from_settings(settings: RunSettings, console: Console, shapes: SampleShapes | None = None) -> Backend:
    """The back end that a run asks for; a note says which one it is.

    Args:
        settings: `auto` takes TensorRT if it and a GPU are found.
        console: Where notes go.
        shapes: Shapes of the data, for models that leave sizes open.

    Raises:
        QuantError: TensorRT was asked for and cannot be used; says what to install.
    """
    reason = ""
    if settings.backend != "onnxruntime":
        try:
            return _tensorrt(settings, console, shapes)
        except QuantError as error:
            if settings.backend == "tensorrt" or settings.calibrator == "tensorrt":
                raise
            reason = f"; not TensorRT: {error}"
    return _onnxruntime(settings, console, reason)


def collector_from_settings(settings: RunSettings, console: Console) -> Collector:
    """The collector of the activations' statistics.

    Args:
        settings: `auto` considers the GPU if it and TensorRT are found, and ONNX Runtime was not asked for by name;
            workers count on the CPU unless the GPU is asked for.
        console: Where notes go.

    Raises:
        QuantError: The GPU was asked for and cannot be used; says what to install.
    """
    if settings.workers or settings.ray:
        from quant.collectors.ray_collector import RayCollector

        return RayCollector(
            settings.workers,
            settings.ray,
            memory_limit=settings.memory_limit << 20,
            gpu=_builder_options(settings) if settings.collector == "gpu" else None,
            note=console.note,
        )
    cpu = OnnxRuntimeCollector(settings.memory_limit << 20)
    automatic = settings.collector == "auto"
    if settings.collector == "cpu" or (automatic and (settings.backend == "onnxruntime" or settings.match_tensorrt)):
        return cpu
    from quant.collectors.automatic_collector import AutomaticCollector
    from quant.collectors.tensorrt_collector import TensorRTCollector
    from quant.cuda.device import find_device
    from quant.tensorrt.bindings import load_tensorrt

    try:
        load_tensorrt()
        find_device()
    except QuantError:
        if automatic:
            return cpu
        raise
    gpu = TensorRTCollector(settings.memory_limit << 20, _builder_options(settings), note=console.note)
    return AutomaticCollector(cpu, gpu, console.note) if automatic else gpu


def backend_by_name(
    settings: RunSettings, console: Console, shapes: SampleShapes | None = None, *, reuse: bool = True
) -> Backend:
    """TensorRT if it is asked for by name, else ONNX Runtime: for comparisons, which need no GPU.

    Args:
        settings: `auto` takes ONNX Runtime.
        console: Where notes go.
        shapes: Shapes of the data, for models that leave sizes open.
        reuse: Whether engines of an earlier run in `out` may be reused.

    Raises:
        QuantError: TensorRT was asked for and cannot be used; says what to install.
    """
    if settings.backend == "tensorrt":
        return _tensorrt(settings, console, shapes, reuse=reuse)
    return _onnxruntime(settings, console)


def _onnxruntime(settings: RunSettings, console: Console, reason: str = "") -> Backend:
    backend = OnnxRuntimeBackend()
    console.note(f"back end: ONNX Runtime {backend.version} on the CPU ({backend.device}){reason}")
    return backend


def _tensorrt(settings: RunSettings, console: Console, shapes: SampleShapes | None, *, reuse: bool = True) -> Backend:
    from quant.settings.batch_range import batch_range_from_text
    from quant.tensorrt.bindings import load_tensorrt

    load_tensorrt()  # raises where it is not installed, before all that works with it is imported
    from quant.tensorrt.backend import TensorRTBackend

    backend = TensorRTBackend(
        batch_range_from_text(settings.dynamic) if settings.dynamic else settings.batch_size,
        _builder_options(settings),
        calibration_batch=settings.batch_size,
        engines=settings.out if reuse else None,
        shapes=shapes,
        note=console.note,
    )
    console.note(f"back end: TensorRT {backend.version} on {backend.device}")
    return backend


def _builder_options(settings: RunSettings) -> BuilderOptions:
    from quant.tensorrt.building.options import BuilderOptions

    sources = tuple(name.strip() for name in settings.tactic_sources.split(",")) if settings.tactic_sources else None
    return BuilderOptions(
        strict_int8=settings.strict_int8,
        explicit=settings.explicit,
        workspace=settings.workspace << 20 if settings.workspace else None,
        level=settings.builder_level,
        tactic_sources=sources,
        dla_core=settings.dla,
        timing_cache=settings.out / TIMING_CACHE,
    )
