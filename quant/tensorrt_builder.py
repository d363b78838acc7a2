"""Building engines: precision flags, shapes, and scales from a cache or from TensorRT's own calibration."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx

from calib.cache import CalibrationCache, cache_from_amax
from calib.calibrator import Calibrator
from calib.errors import CalibrationError
from quant.calibration_feed import CalibrationFeed, FeedFigures, FeedInput
from quant.device import OutOfDeviceMemoryError, use_device
from quant.errors import BuildError
from quant.interrupts import heed_interrupt, interrupts_deferred
from quant.tensorrt_calibrator import (
    BuilderCalibrator,
    cache_calibrator,
    cache_for_tensorrt,
    checked_native_cache,
    native_calibrator,
)
from quant.tensorrt_log import LogSection, log_section, logger
from quant.tensorrt_network import BatchRange, inner_amax, network_from_proto, prepared_proto
from quant.tensorrt_options import BuilderOptions, apply_options, keep_timings, without_spoiled_timings
from quant.tensorrt_version import TensorRT, load_tensorrt

Note = Callable[[str], None]
BUILD_THREAD = "tensorrt-build"
_MISSING_SCALE = "missing scale and zero-point for tensor "


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine.

    Attributes:
        data: Its bytes.
        network_layers: Layers of the network before the builder worked on it.
        filled: Amax of inner tensors that were added to the cache, by TensorRT's name.
        without_scale: Tensors that stayed float because they have no scale, as TensorRT said.
        warnings: TensorRT's warnings.
    """

    data: bytes
    network_layers: int
    filled: dict[str, float] = field(default_factory=dict)
    without_scale: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def engine_from_onnx(
    proto: onnx.ModelProto,
    precision: str,
    batch: BatchRange,
    options: BuilderOptions,
    *,
    name: str = "model",
    cache: CalibrationCache | None = None,
    note: Note | None = None,
) -> BuiltEngine:
    """Build an engine.

    Args:
        proto: The model: FP32; with Q/DQ for an explicit INT8 build; typed as FP16 for FP16 on TensorRT 11.
        precision: fp32, fp16 or int8.
        batch: Batch sizes.
        options: How.
        name: What to call the model in messages.
        cache: Scales for an implicit INT8 build; None when the model holds Q/DQ.
        note: Called with lines for people.

    Raises:
        BuildError: TensorRT cannot build it, or did not use the cache; quotes TensorRT.
        OutOfDeviceMemoryError: The GPU's memory does not suffice.
    """

    def build(options: BuilderOptions) -> BuiltEngine:
        return _engine(proto, precision, batch, options, name, cache, note)

    return without_spoiled_timings(build, options, note)


def _engine(
    proto: onnx.ModelProto,
    precision: str,
    batch: BatchRange,
    options: BuilderOptions,
    name: str,
    cache: CalibrationCache | None,
    note: Note | None,
) -> BuiltEngine:
    tensorrt = load_tensorrt()
    prepared = prepared_proto(proto, batch, name)
    with interrupts_deferred(), log_section() as log:
        work = _Work(tensorrt, prepared, precision, batch, options, log, note=note)
        filled: dict[str, float] = {}
        bridge = None
        if cache is not None:
            filled = inner_amax(tensorrt, work.network, prepared, cache.amax)
            handed, change = cache_for_tensorrt(cache, tensorrt.number)
            if change is not None and note is not None:
                note(change)
            bridge = cache_calibrator(tensorrt, with_amax(handed, filled))
            work.set_calibrator(bridge)
        data = work.build()
        if bridge is not None and bridge.requested:
            raise BuildError(
                f"TensorRT {tensorrt.version} did not take the calibration cache and asked for images instead; "
                f"it says: {log.reason()}"
            )
    prefix = len(_MISSING_SCALE)
    without = tuple(line[prefix:].split(",", 1)[0] for line in log.warnings if line.lower().startswith(_MISSING_SCALE))
    return BuiltEngine(data, work.layers, filled, without, tuple(log.warnings))


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
    """Let TensorRT calibrate by itself with a public calibrator's images.

    TensorRT calibrates inside a build; this one takes the least effort, and its engine is dropped.

    Args:
        proto: FP32 model.
        calibrator: Its algorithm chooses TensorRT's class; its batches are fed.
        batch: Images in a batch.
        options: How; its level and timing cache are not used.
        name: What to call the model in messages.
        advance: Called with the number of images of each batch.
        note: Called with lines for people.

    Raises:
        BuildError: TensorRT cannot build or calibrate this model.
        OutOfDeviceMemoryError: The GPU's memory does not suffice.
        Exception: Whatever the data stream raised, after the build; there is no cache then.
    """
    tensorrt = load_tensorrt()
    if not tensorrt.has_calibrators:
        raise BuildError(f"TensorRT {tensorrt.version} has no calibrators; use --calibrator toolkit")
    size = BatchRange(batch, batch, batch)
    prepared = prepared_proto(proto, size, name)
    effort = BuilderOptions(workspace=options.workspace, level=0, tactic_sources=options.tactic_sources)
    with interrupts_deferred(), log_section() as log:
        work = _Work(tensorrt, prepared, "int8", size, effort, log, strict=True, note=note)
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


def with_amax(cache: CalibrationCache, extra: dict[str, float]) -> CalibrationCache:
    """A cache with further entries, rounded as a cache file rounds them."""
    from calib.algorithms import Entropy

    scales = cache_from_amax(extra, Entropy()).scales
    return CalibrationCache(cache.header, {**cache.scales, **scales})


class _Work:
    """One build: builder, network, configuration."""

    def __init__(
        self,
        tensorrt: TensorRT,
        proto: onnx.ModelProto,
        precision: str,
        batch: BatchRange,
        options: BuilderOptions,
        log: LogSection,
        *,
        strict: bool | None = None,
        note: Note | None = None,
    ) -> None:
        self.note = note
        self.tensorrt, self.options, self.log, self.batch = tensorrt, options, log, batch
        self.trt = tensorrt.module
        use_device()
        self.trt.init_libnvinfer_plugins(logger(), "")
        try:
            self.builder = self.trt.Builder(logger())
        except (TypeError, RuntimeError) as error:  # what the bindings make of a builder that is null
            raise BuildError(f"TensorRT {tensorrt.version} cannot start: {_start_reason(log)}") from error
        if tensorrt.lacks(self.builder, precision):
            raise BuildError(f"this GPU has no fast {precision.upper()} kernels")
        self.typed = not tensorrt.has_calibrators
        self.network, self._parser = network_from_proto(tensorrt, self.builder, proto, log, strongly_typed=self.typed)
        self.layers = int(self.network.num_layers)
        self.config = self.builder.create_builder_config()
        self.config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED  # what the report reads
        self._set_precision(precision, strict=options.strict_int8 if strict is None else strict)
        apply_options(tensorrt, self.builder, self.config, options)
        self._set_profile()
        self._calibrator: BuilderCalibrator | None = None

    def _set_precision(self, precision: str, *, strict: bool) -> None:
        if self.typed:
            return  # the model's own types say it
        flags = self.trt.BuilderFlag
        if precision == "fp16" or (precision == "int8" and not strict):
            self.config.set_flag(flags.FP16)
        if precision == "int8":
            self.config.set_flag(flags.INT8)

    def _set_profile(self) -> None:
        if self.batch.is_static:
            return
        profile = self.builder.create_optimization_profile()
        usual = self.builder.create_optimization_profile()
        for tensor in self._inputs():
            rest = tuple(tensor.shape)[1:]
            sizes = (self.batch.smallest, self.batch.usual, self.batch.largest)
            profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
            usual.set_shape(tensor.name, *([(self.batch.usual, *rest)] * 3))  # 8.6 calibrates at one size only
        self.config.add_optimization_profile(profile)
        if self.tensorrt.has_calibrators:
            self.config.set_calibration_profile(usual)

    def _inputs(self) -> list[Any]:
        return [self.network.get_input(i) for i in range(self.network.num_inputs)]

    def feed_inputs(self) -> list[FeedInput]:
        return [FeedInput(t.name, tuple(t.shape), self.tensorrt.numpy_type(t.dtype)) for t in self._inputs()]

    def set_calibrator(self, bridge: BuilderCalibrator) -> None:
        self.config.set_quantization_flag(self.trt.QuantizationFlag.CALIBRATE_BEFORE_FUSION)
        self.config.int8_calibrator = bridge
        self._calibrator = bridge  # the configuration does not keep it alive

    def build(self, feed: CalibrationFeed | None = None) -> bytes:
        """Build; Ctrl-C stops the feeding and, where the release can, the build.

        TensorRT works in a thread of its own, so that Ctrl-C is heard while it does. 8.6 cannot stop a build: it is
        waited for, since its buffers may be freed only then. A second Ctrl-C ends the waiting, and the buffers are left
        to the end of the process.
        """
        stop, done = threading.Event(), threading.Event()
        if self.tensorrt.major >= 10:
            self._monitor = _progress_monitor(self.trt, stop)
            self.config.progress_monitor = self._monitor
        outcome: list[Any] = []

        def work() -> None:
            try:
                use_device()
                outcome.append(self.builder.build_serialized_network(self.network, self.config))
            except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
                outcome.append(error)
            finally:
                done.set()

        thread = threading.Thread(target=work, name=BUILD_THREAD, daemon=True)
        thread.start()
        try:
            _wait(done)
        except BaseException as error:
            stop.set()
            if feed is not None:
                feed.stop(error)
            self._wait_for_the_end(done, feed)
            thread.join()
            raise
        thread.join()
        return self._built(outcome[0])

    def _wait_for_the_end(self, done: threading.Event, feed: CalibrationFeed | None) -> None:
        if self.note is not None and self.tensorrt.major < 10 and not done.is_set():
            self.note(f"TensorRT {self.tensorrt.version} cannot stop a build: waiting for its end (Ctrl-C again: not)")
        try:
            _wait(done)
        except BaseException:
            if feed is not None:
                feed.abandon()
            raise

    def _built(self, result: Any) -> bytes:  # noqa: ANN401 - the bindings have no types
        if isinstance(result, BaseException):
            raise result
        if result is None:
            if self.log.out_of_memory:
                raise OutOfDeviceMemoryError(f"TensorRT's build: {self.log.reason()}", "cudaErrorMemoryAllocation")
            raise BuildError(f"TensorRT {self.tensorrt.version} cannot build this: {self.log.reason()}")
        keep_timings(self.config, self.options)
        return bytes(memoryview(result))


def _wait(done: threading.Event) -> None:
    """Wait for a build. Not by joining its thread: Python 3.10 takes a thread whose join is interrupted for ended."""
    while not done.wait(0.2):  # wakes up now and then, since a signal need not interrupt the waiting
        heed_interrupt()


def _start_reason(log: LogSection) -> str:
    said = [line for line in [*log.errors, *log.warnings] if "CUDA initialization failure" in line] or log.errors
    return f"{said[0]} (35 means that the NVIDIA driver is too old or missing)" if said else "it gives no reason"


def _progress_monitor(trt: Any, stop: threading.Event) -> Any:  # noqa: ANN401 - the bindings have no types
    """What lets TensorRT 10 and 11 end a build early."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Not shown."""

        def phase_finish(self, phase_name: str) -> None:
            """Not shown."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not stop.is_set()

    return Monitor()
