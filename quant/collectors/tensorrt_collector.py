"""Statistics of all activations of a model, from one pass over the images on an NVIDIA GPU.

TensorRT runs the model in FP32 and leaves the activations in GPU memory. Kernels count them there, so only counts come
back. The counts are those that the processor would give for the same values; the values are those of TensorRT's
kernels, which add in another order. Batches are decoded and copied while the GPU works on the one before.

A whole batch is run at a time, if its activations fit the memory limit; otherwise fewer images, and if those of a
single image do not fit, the tensors are fetched in groups, each by an engine of its own. The last batch may have fewer
images than the engine takes: it is filled up, and the copies are not counted.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.calibrator import Calibrator
from calib.errors import NonFiniteError
from calib.histograms.counting import named_error
from calib.histograms.statistics import Statistics
from datasets.arrays.stream import model_batches
from quant.collectors.activation_engines import Engines, OpenRunner, Reference, Runner
from quant.collectors.collector import MEMORY_LIMIT, Advance, ignore
from quant.collectors.derivation import first_holders, split_limits
from quant.collectors.plan import whole_batches
from quant.cuda.batch_feed import CalibrationFeed
from quant.cuda.counting_kernels import CountingKernels
from quant.cuda.device import PinnedBuffer, Stream
from quant.cuda.device_counts import BYTES_OF_TENSOR, DeviceCounts, Kernels
from quant.errors import BuildError
from quant.onnx_graph.model import OnnxModel
from quant.tensorrt.activation_engine import ActivationEngine, DeviceArray
from quant.tensorrt.building.open_axes import with_sizes
from quant.tensorrt.building.options import BuilderOptions

_DIFFERENCE = 0.1  # of a tensor's values, relative, beyond which TensorRT computes something else than the model says
_PIECE = 1 << 24  # bytes copied at a time from the GPU


@dataclass
class GpuFigures:
    """Where the time of a pass went, seconds.

    Attributes:
        engine: Building and loading engines, and compiling kernels.
        decoding: The feeding thread, with batches and their copying into pinned memory.
        waiting: The GPU waited for batches.
        images: Images counted.
        passing: The whole pass, from the first batch to the last.
    """

    engine: float = 0.0
    decoding: float = 0.0
    waiting: float = 0.0
    images: int = 0
    passing: float = 0.0


class TensorRTCollector:
    """Collects with TensorRT on a GPU.

    Attributes:
        figures: Of the last pass.
        where: See `Collector`.
    """

    where = "TensorRT on the GPU"

    def __init__(
        self,
        memory_limit: int = MEMORY_LIMIT,
        options: BuilderOptions | None = None,
        *,
        note: Callable[[str], None] = lambda line: None,
        kernels: Callable[[], Kernels] = CountingKernels,
        open_runner: OpenRunner | None = None,
    ) -> None:
        """Keep the settings; the GPU is not touched yet.

        Args:
            memory_limit: Bytes of activations and counts in GPU memory. The model and TensorRT's workspace are not
                counted; a single tensor of a single image is always held.
            options: How engines are built.
            note: Called with lines to display.
            kernels: Gives the kernels that count.
            open_runner: Builds what runs the model; TensorRT's engines by default.
        """
        self._memory_limit, self._note = memory_limit, note
        self._options = options or BuilderOptions()
        self._kernels, self._open_runner = kernels, open_runner
        self.figures = GpuFigures()

    @property
    def seconds(self) -> Mapping[str, float]:
        """See `Collector`."""
        figures = self.figures
        return {
            "engine and kernels": figures.engine,
            "GPU waited for images": figures.waiting,
            "forward pass and counting": max(figures.passing - figures.waiting, 0.0),
        }

    def collect(self, model: OnnxModel, calibrator: Calibrator, advance: Advance = ignore) -> None:
        """Run a calibrator's batches through a model and give it their statistics.

        Args:
            model: FP32 model.
            calibrator: Provides the batches and receives the statistics.
            advance: Called with the number of images that were just done.

        Raises:
            NonFiniteError: An activation holds NaN or infinity; the message names the tensor and the image.
            BuildError: TensorRT cannot run the model so, or not with the values that it states.
            DeviceError: The GPU cannot be used.
            ModelError: The model cannot be run.
        """
        self.figures = GpuFigures()
        batches = model_batches(calibrator, model.inputs)
        first = next(batches, None)
        if first is None:
            return
        model = with_sizes(model, {name: np.shape(array)[1:] for name, array in first.inputs.items()})
        reference = Reference.of(model, calibrator, first)
        if reference.plan.first_batch:
            raise BuildError("match_tensorrt: its counts are not made on the GPU; use --collector cpu")
        if not reference.plan.fetched:
            raise BuildError(f"{model.path}: all activations follow from the inputs; use --collector cpu")
        stream = itertools.chain([first], batches)
        division = whole_batches(
            reference.sizes,
            max(self._memory_limit - len(reference.roots) * BYTES_OF_TENSOR, self._memory_limit // 4),
            len(first.names),
            model.fixed_batch,
        )
        with contextlib.ExitStack() as stack:
            engines = Engines(model, reference, self._opener(model))
            stack.callback(engines.close)
            start = time.perf_counter()
            division = engines.fit(division, self._note)
            compiled = self._kernels()
            begun = time.perf_counter()
            self.figures.engine = begun - start
            self._note(
                f"activations: {len(reference.plan.fetched)} tensors by TensorRT, {division.images} images at a time"
                f"{f' in {len(division.groups)} groups' if len(division.groups) > 1 else ''}; "
                f"ready after {self.figures.engine:.1f} s"
            )
            work: Stream = stack.enter_context(Stream())
            required, clipped = reference.plan.required_roots()
            counts = stack.enter_context(
                DeviceCounts(
                    split_limits(reference.plan.origins), compiled, work, required=required, required_clipped=clipped
                )
            )
            feed = stack.enter_context(CalibrationFeed(stream, engines.inputs, advance))
            statistics = _Pass(reference, engines, counts, feed, work).run(calibrator)
            self.figures.engine += engines.seconds
            self.figures.decoding, self.figures.waiting = feed.figures.decode_seconds, feed.figures.waited_seconds
            self.figures.images, self.figures.passing = feed.figures.images, time.perf_counter() - begun
        calibrator.merge(statistics)

    def _opener(self, model: OnnxModel) -> OpenRunner:
        if self._open_runner is not None:
            return self._open_runner

        def open_runner(proto: onnx.ModelProto, tensors: Sequence[str], batch: int) -> Runner:
            return ActivationEngine(proto, tensors, batch, self._options, str(model.path), self._note)

        return open_runner


class _Pass:
    """One pass over the images."""

    def __init__(
        self, reference: Reference, engines: Engines, counts: DeviceCounts, feed: CalibrationFeed, stream: Stream
    ) -> None:
        self._plan, self._reference = reference.plan, reference
        self._engines, self._counts, self._feed, self._stream = engines, counts, feed, stream
        self._holders = first_holders(reference.plan.origins)

    def run(self, calibrator: Calibrator) -> Statistics:
        images = largest = 0
        names = [wanted.name for wanted in self._engines.inputs]
        while (pointers := self._feed.next(names)) is not None:
            batch = self._feed.names
            self._count(dict(zip(names, pointers, strict=True)), batch, check=not images)
            images += len(batch)
            largest = max(largest, len(batch))
            over = calibrator.over_images
            if over is not None and over.is_due(images):
                over.take(self._plan.statistics(self._counts.counted(), images, largest))
        if self._feed.error is not None:
            raise self._feed.error
        return self._plan.statistics(self._counts.counted(), images, largest)

    def _count(self, inputs: Mapping[str, int], names: Sequence[str], *, check: bool) -> None:
        """Run and count a batch."""
        size, engines = self._engines.for_images(len(names))
        own = {
            wanted.name: DeviceArray(inputs[wanted.name], (len(names), *wanted.shape[1:]))
            for wanted in self._engines.inputs
            if wanted.name in self._plan.inputs
        }
        for runner, placed in engines:
            runner.run(inputs, self._stream)
            arrays = own | {name: self._counted(name, array, size, len(names)) for name, array in placed.items()}
            own = {}
            bad = self._counts.count({name: (array.pointer, array.size) for name, array in arrays.items()})
            if bad:
                self._raise(bad[0], arrays[bad[0]], names)
            if check:
                self._check(placed, size)

    def _counted(self, name: str, array: DeviceArray, size: int, images: int) -> DeviceArray:
        """The part of a tensor that is counted: without the images that fill up the batch."""
        if images < size and self._reference.holds(name, array.shape, size) == "first":
            return DeviceArray(array.pointer, (images, *array.shape[1:]))
        return array

    def _raise(self, tensor: str, array: DeviceArray, names: Sequence[str]) -> None:
        values = self._downloaded(array)
        places = np.flatnonzero(~np.isfinite(values.reshape(-1)))
        error = NonFiniteError("not finite", index=int(places[0]))
        raise named_error(error, self._holders.get(tensor, tensor), values, names)

    def _check(self, placed: Mapping[str, DeviceArray], size: int) -> None:
        """Compare the first image's activations with ONNX Runtime's: an engine's inner tensors are not taken on trust.

        Raises:
            BuildError: A tensor has other values.
        """
        for name, array in placed.items():
            expected = self._reference.one[name].reshape(-1).astype(np.float32, copy=False)
            if size > 1 and self._reference.holds(name, array.shape, size) == "elsewhere":
                continue
            found = self._downloaded(DeviceArray(array.pointer, expected.shape))
            both = np.isfinite(expected) & np.isfinite(found)
            scale = float(np.linalg.norm(expected[both].astype(np.float64)))
            error = float(np.linalg.norm(found[both].astype(np.float64) - expected[both]))
            if error > _DIFFERENCE * scale + 1e-6 or (np.isfinite(expected) != np.isfinite(found)).any():
                raise BuildError(
                    f"tensor '{name}': TensorRT computes other values than ONNX Runtime, {error:.3g} off a norm of "
                    f"{scale:.3g}; use --collector cpu"
                )

    def _downloaded(self, array: DeviceArray) -> NDArray[np.float32]:
        values = np.empty(array.size, np.float32)
        step = _PIECE // values.itemsize
        with PinnedBuffer((min(step, max(array.size, 1)),), np.float32) as piece:
            for start in range(0, array.size, step):
                count = min(step, array.size - start)
                self._stream.copy_from(piece, array.pointer + start * values.itemsize, count * values.itemsize)
                self._stream.synchronize()
                values[start : start + count] = piece.array[:count]
        return values.reshape(array.shape)
