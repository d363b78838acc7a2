"""One build in its own thread: builder, network, configuration, Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import onnx

from calib.interrupts import heed_interrupt
from quant.cuda.batch_feed import CalibrationFeed, FeedInput
from quant.cuda.device import OutOfDeviceMemoryError, use_device
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.building.calibrator import (
    BuilderCalibrator,
)
from quant.tensorrt.building.network import network_from_proto, side_axes
from quant.tensorrt.building.options import BuilderOptions, apply_options, keep_timings
from quant.tensorrt.log import LogSection, log_section, logger

Note = Callable[[str], None]


BUILD_THREAD = "tensorrt-build"
_begun = threading.Event()  # a builder was made for the GPU


def has_built() -> bool:
    """Whether this process has begun to build for the GPU: what is loaded once is then there, or being loaded."""
    return _begun.is_set()


def load_builder(tensorrt: TensorRT) -> Any:  # noqa: ANN401 - the bindings have no types
    """A builder for the GPU, which loads what a process's first one takes seconds for; that stays with it.

    Raises:
        BuildError: TensorRT cannot start.
    """
    use_device()
    _begun.set()
    with log_section() as log:
        return _builder(tensorrt, log)


def _builder(tensorrt: TensorRT, log: LogSection) -> Any:  # noqa: ANN401 - the bindings have no types
    tensorrt.module.init_libnvinfer_plugins(logger(tensorrt), "")
    try:
        return tensorrt.module.Builder(logger(tensorrt))
    except (TypeError, RuntimeError) as error:  # raised by the bindings if the builder is null
        raise BuildError(f"TensorRT {tensorrt.release} cannot start: {_start_reason(log)}") from error


class BuildJob:
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
        capability: str | None = None,
    ) -> None:
        self.note = note
        self._on_device = capability is None
        self.tensorrt, self.options, self.log, self.batch = tensorrt, options, log, batch
        self.trt = tensorrt.module
        if self._on_device:
            use_device()
            _begun.set()
        self.builder = _builder(tensorrt, log)
        if tensorrt.lacks(self.builder, precision):
            raise BuildError(f"this GPU has no fast {precision.upper()} kernels")
        self.typed = not tensorrt.has_calibrators
        self.network, self._parser = network_from_proto(tensorrt, self.builder, proto, log, strongly_typed=self.typed)
        self.layers = int(self.network.num_layers)
        self.config = self.builder.create_builder_config()
        self.config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED  # the report reads it
        self._set_precision(precision, strict=options.strict_int8 if strict is None else strict)
        apply_options(tensorrt, self.builder, self.config, options)
        if capability is not None:
            tensorrt.set_capability(self.config, capability)
        self._set_profile()
        self._calibrator: BuilderCalibrator | None = None

    def _set_precision(self, precision: str, *, strict: bool) -> None:
        if self.typed:
            return  # the model's own types set the precision
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
            shape = tuple(int(size) for size in tensor.shape)
            least, tuned, most = (self._shape(shape, which) for which in ("smallest", "usual", "largest"))
            profile.set_shape(tensor.name, least, tuned, most)
            usual.set_shape(tensor.name, *([tuned] * 3))  # 8.6 calibrates at one size only
        self.config.add_optimization_profile(profile)
        if self.tensorrt.has_calibrators:
            self.config.set_calibration_profile(usual)

    def _shape(self, shape: tuple[int, ...], which: str) -> tuple[int, ...]:
        """An input's shape at the smallest, usual or largest size."""
        found = [getattr(self.batch, which), *shape[1:]]
        for axis, side in zip(side_axes(shape), self.batch.sides or (), strict=False):
            if shape[axis] < 0:
                found[axis] = getattr(side, which)
        return tuple(found)

    def _inputs(self) -> list[Any]:
        return [self.network.get_input(i) for i in range(self.network.num_inputs)]

    def feed_inputs(self) -> list[FeedInput]:
        """The network's inputs, for a feed to fill."""
        return [FeedInput(t.name, tuple(t.shape), self.tensorrt.numpy_type(t.dtype)) for t in self._inputs()]

    def set_calibrator(self, bridge: BuilderCalibrator) -> None:
        """Give the builder a calibrator, which reads a cache or provides batches to calibrate on."""
        self.config.set_quantization_flag(self.trt.QuantizationFlag.CALIBRATE_BEFORE_FUSION)
        self.config.int8_calibrator = bridge
        self._calibrator = bridge  # the configuration does not keep it alive

    def build(self, feed: CalibrationFeed | None = None) -> bytes:
        """Build; Ctrl-C stops the feeding and, if the release can stop it, the build.

        TensorRT works in its own thread, so that Ctrl-C is noticed meanwhile. 8.6 cannot stop a build, so this waits
        for it to finish, because its buffers may be freed only then. A second Ctrl-C ends the waiting, and the buffers
        are kept until the process ends.
        """
        stop, done = threading.Event(), threading.Event()
        if self.tensorrt.major >= 10:
            self._monitor = _progress_monitor(self.trt, stop)
            self.config.progress_monitor = self._monitor
        outcome: list[Any] = []

        def work() -> None:
            try:
                if self._on_device:
                    use_device()
                with self.log.followed():
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
            self.note(
                f"TensorRT {self.tensorrt.release} cannot stop a build: waiting for it to finish "
                "(press Ctrl-C again to stop waiting)"
            )
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
            raise BuildError(f"TensorRT {self.tensorrt.release} cannot build this: {self.log.reason()}")
        keep_timings(self.config, self.options)
        return bytes(memoryview(result))


def _wait(done: threading.Event) -> None:
    """Wait for a build without joining its thread: Python 3.10 takes a thread for ended if its join is interrupted."""
    while not done.wait(0.2):  # wakes up now and then, because a signal may not interrupt the waiting
        heed_interrupt()


def _start_reason(log: LogSection) -> str:
    said = [line for line in [*log.errors, *log.warnings] if "CUDA initialization failure" in line] or log.errors
    return f"{said[0]} (35 means that the NVIDIA driver is too old or missing)" if said else "it gives no reason"


def _progress_monitor(trt: Any, stop: threading.Event) -> Any:  # noqa: ANN401 - the bindings have no types
    """A monitor that lets TensorRT 10 and 11 end a build early."""

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
