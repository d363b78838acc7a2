"""Builds engines: precision flags, shapes, and scales from a cache or from TensorRT's own calibration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial

import onnx

from calib.caches.cache import CalibrationCache, cache_from_amax
from calib.interrupts import interrupts_deferred
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import TensorRT, load_tensorrt
from quant.tensorrt.building.build_job import BuildJob, Note
from quant.tensorrt.building.calibrator import (
    cache_calibrator,
    cache_for_tensorrt,
)
from quant.tensorrt.building.float_layers import keep_in_float
from quant.tensorrt.building.inner_tensors import inner_amax
from quant.tensorrt.building.mask_scales import scales_of_masks, without_scales_of
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.options import BuilderOptions, without_spoiled_timings
from quant.tensorrt.engines.layer_log import inspector_text
from quant.tensorrt.log import log_section

_MISSING_SCALE = "missing scale and zero-point for tensor "


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine.

    Attributes:
        data: Its bytes.
        network_layers: Layers of the network before the builder worked on it.
        filled: Amax of inner tensors that were added to the cache, by TensorRT's name.
        without_scale: Tensors that stayed float because they have no scale, according to TensorRT.
        warnings: TensorRT's warnings.
        layer_text: Its layers as the engine inspector's JSON, where the builder says them: TensorRT for RTX does.
    """

    data: bytes
    network_layers: int
    filled: dict[str, float] = field(default_factory=dict)
    without_scale: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    layer_text: str = ""


def engine_from_onnx(
    proto: onnx.ModelProto,
    precision: str,
    batch: BatchRange,
    options: BuilderOptions,
    *,
    name: str = "model",
    cache: CalibrationCache | None = None,
    note: Note | None = None,
    float_nodes: Collection[str] = (),
    tensorrt: TensorRT | None = None,
    capability: str | None = None,
) -> BuiltEngine:
    """Build an engine.

    Args:
        proto: The model: FP32, with Q/DQ for an explicit INT8 build, or typed as FP16 for FP16 on TensorRT 11.
        precision: fp32, fp16 or int8.
        batch: Batch sizes.
        options: How to build.
        name: What to call the model in messages.
        cache: Scales for an implicit INT8 build; None if the model holds Q/DQ.
        note: Called with lines to display.
        float_nodes: Products that stay float in an implicit INT8 build.
        tensorrt: Who builds it; None for the TensorRT that is installed.
        capability: Compute capability to build for, such as "8.9", without a GPU; None for the GPU that is here.

    Raises:
        BuildError: TensorRT cannot build it, or did not use the cache; the message quotes TensorRT.
        OutOfDeviceMemoryError: The GPU has too little memory.
    """
    builds = tensorrt or load_tensorrt()

    def build(options: BuilderOptions, *, whole_edges: bool = True) -> BuiltEngine:
        return _engine(
            builds,
            proto,
            precision,
            batch,
            options,
            name,
            cache,
            note,
            float_nodes,
            capability,
            whole_edges=whole_edges,
        )

    try:
        return without_spoiled_timings(build, options, note)
    except BuildError as error:
        if not float_nodes:
            raise
        if note is not None:
            note(f"products in float cannot all read floats ({error}); TensorRT chooses what they read")
        return without_spoiled_timings(partial(build, whole_edges=False), options, note)


def _engine(
    tensorrt: TensorRT,
    proto: onnx.ModelProto,
    precision: str,
    batch: BatchRange,
    options: BuilderOptions,
    name: str,
    cache: CalibrationCache | None,
    note: Note | None,
    float_nodes: Collection[str],
    capability: str | None,
    *,
    whole_edges: bool,
) -> BuiltEngine:
    prepared = prepared_proto(proto, batch, name)
    with interrupts_deferred(), log_section() as log:
        work = BuildJob(tensorrt, prepared, precision, batch, options, log, note=note, capability=capability)
        if float_nodes:
            half = not options.strict_int8
            keep_in_float(tensorrt, work.network, work.config, float_nodes, half=half, whole_edges=whole_edges)
        filled: dict[str, float] = {}
        bridge = None
        if cache is not None:
            cache = _without_masks(prepared, cache, note)
            filled = inner_amax(tensorrt, work.network, prepared, cache.amax)
            handed, change = cache_for_tensorrt(cache, tensorrt.number)
            if change is not None and note is not None:
                note(change)
            bridge = cache_calibrator(tensorrt, with_amax(handed, filled))
            work.set_calibrator(bridge)
        data = work.build()
        if bridge is not None and bridge.requested:
            raise BuildError(
                f"TensorRT {tensorrt.release} did not accept the calibration cache and asked for images instead; "
                f"it says: {log.reason()}"
            )
    prefix = len(_MISSING_SCALE)
    without = tuple(line[prefix:].split(",", 1)[0] for line in log.warnings if line.lower().startswith(_MISSING_SCALE))
    return BuiltEngine(data, work.layers, filled, without, tuple(log.warnings), inspector_text(log.layers))


def _without_masks(proto: onnx.ModelProto, cache: CalibrationCache, note: Note | None) -> CalibrationCache:
    masks = scales_of_masks(proto, cache)
    if masks and note is not None:
        note(
            f"{len(masks)} scales of the cache are left out, '{masks[0]}' first: the tensor holds a mask beside its "
            "values, and no scale serves both"
        )
    return without_scales_of(cache, masks) if masks else cache


def with_amax(cache: CalibrationCache, extra: dict[str, float]) -> CalibrationCache:
    """A cache with more entries, rounded as in a cache file."""
    from calib.algorithms import Entropy

    scales = cache_from_amax(extra, Entropy()).scales
    return CalibrationCache(cache.header, {**cache.scales, **scales})
