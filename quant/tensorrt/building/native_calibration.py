"""TensorRT's own calibration, fed by a public calibrator."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from calib.algorithms import Algorithm
from calib.caches.cache import (
    CalibrationCache,
    cache_from_text,
    header_from_algorithm,
)
from calib.calibrator import Calibrator
from calib.errors import CacheError, CalibrationError
from calib.interrupts import interrupts_deferred
from quant.cuda.batch_feed import CalibrationFeed, FeedFigures
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.build_job import BuildJob, Note
from quant.tensorrt.building.calibrator import (
    native_calibrator,
)
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.log import log_section


def native_cache_from_onnx(
    proto: onnx.ModelProto,
    calibrator: Calibrator,
    batch: int,
    options: BuilderOptions,
    *,
    name: str = "model",
    advance: Callable[[int], None] | None = None,
    note: Note | None = None,
) -> tuple[CalibrationCache, FeedFigures]:
    """Let TensorRT itself calibrate with a public calibrator's images.

    TensorRT calibrates inside a build; this build uses the least effort, and its engine is discarded.

    Args:
        proto: FP32 model.
        calibrator: Its algorithm chooses TensorRT's class; its batches are fed.
        batch: Images in a batch.
        options: How to build; the level and timing cache are not used.
        name: What to call the model in messages.
        advance: Called with the number of images of each batch.
        note: Called with lines to display.

    Raises:
        BuildError: TensorRT cannot build or calibrate this model.
        OutOfDeviceMemoryError: The GPU has too little memory.
        Exception: Whatever the data stream raised, after the build; there is then no cache.
    """
    tensorrt = load_tensorrt()
    if not tensorrt.has_calibrators:
        raise BuildError(f"TensorRT {tensorrt.release} has no calibrators; use --calibrator toolkit")
    size = BatchRange(batch, batch, batch)
    prepared = prepared_proto(proto, size, name)
    effort = BuilderOptions(workspace=options.workspace, level=0, tactic_sources=options.tactic_sources)
    with interrupts_deferred(), log_section() as log:
        work = BuildJob(tensorrt, prepared, "int8", size, effort, log, strict=True, note=note)
        with CalibrationFeed(calibrator, work.feed_inputs(), advance) as feed:
            bridge = native_calibrator(tensorrt, calibrator.algorithm, feed)
            work.set_calibrator(bridge)
            try:
                work.build(feed)
            except BuildError:
                if feed.error is None:
                    raise
            if feed.error is not None:
                raise feed.error
            if not feed.figures.images:
                raise CalibrationError("calibration: expected images, found none; check --data")
        return checked_native_cache(bridge.written, calibrator.algorithm, tensorrt.number), feed.figures


def checked_native_cache(data: bytes | None, algorithm: Algorithm, number: int) -> CalibrationCache:
    """TensorRT's own cache after calibration.

    Raises:
        BuildError: TensorRT wrote no cache, or one of another algorithm.
    """
    if data is None:
        raise BuildError("TensorRT calibrated, but wrote no cache; the build cannot be trusted")
    try:
        cache = cache_from_text(data.decode(), "TensorRT's calibration cache")
    except (CacheError, UnicodeDecodeError) as error:
        raise BuildError(f"TensorRT's calibration cannot be used: {error}") from error
    if cache.algo != algorithm.name:
        expected = header_from_algorithm(algorithm, number)
        raise BuildError(f"TensorRT's calibration cache: expected the header '{expected}', found '{cache.header}'")
    return cache
