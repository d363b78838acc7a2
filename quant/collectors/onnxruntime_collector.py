"""Statistics of all activations of a model, from one pass over the images with ONNX Runtime.

Only tensors whose histogram does not follow from others are fetched. A batch is run in parts, so that the activations
held at a time stay within a budget. If a single image exceeds it, the tensors are fetched in groups, each by its own
session. Several parts are in progress at a time, one for each processor, each run and then counted by its own thread.
So no processor waits for another, as the threads of a single run would. Buffers are reused. Memory does not grow with
the number of images. The statistics do not depend on how the images are split, except for tensors that hold no
images, such as a factor computed from shapes: these are counted once per part.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.calibrator import CalibrationBatch, Calibrator
from calib.histograms.first_batch import largest_magnitude
from calib.histograms.loading import begin_loading
from calib.histograms.statistics import Statistics
from calib.processors import usable_processors
from datasets.arrays.stream import model_batches
from quant.collectors.collector import MEMORY_LIMIT, Advance, Estimate, ignore
from quant.collectors.part_runner import Activations, Group, PartRunner
from quant.collectors.plan import PART_BYTES, CollectionPlan, collection_plan
from quant.onnx_graph.model import OnnxModel
from quant.progress import Timings

Array = NDArray[Any]
Use = Callable[
    [Mapping[str, Array], Sequence[str]], None
]  # called with a part's activations and the names of its images

Consider = Callable[[Estimate], None]

_WAITING = 2  # parts prepared before their turn, so that no thread waits for the oldest part


@dataclass(frozen=True)
class Spread:
    """How a pass is spread over processors.

    Attributes:
        parts: Parts of batches that are run and counted at a time, each with buffers of its own.
        run_threads: ONNX Runtime's threads for a part; the thread that calls it works too.
        count_threads: Threads that count a part.
        part_bytes: Bytes of activations that a part has, about.
    """

    parts: int
    run_threads: int
    count_threads: int
    part_bytes: int = PART_BYTES

    @classmethod
    def over(cls, processors: int) -> Spread:
        """The usual one for so many processors: a part for each, because threads of one run wait for each other.

        Measured on 16: 2,048 images through mobilenetv2 take 1.40 s so, 1.55 s in 8 parts of 2 threads each, 1.93 s in
        2 parts of 15; and 2.0 s in parts of 16 MiB, as each part brings all histograms into the caches again.
        """
        return cls(processors, 1, 1)


class OnnxRuntimeCollector:
    """Collects with ONNX Runtime on the CPU.

    Attributes:
        where: See `Collector`.
        seconds: See there.
    """

    where = ""

    def __init__(self, memory_limit: int = MEMORY_LIMIT, spread: Spread | None = None) -> None:
        """Choose how much memory and how many processors are used.

        Args:
            memory_limit: Bytes of activations and counts that may be held at a time, see `collect_statistics`.
            spread: How the work is spread over processors, see there.
        """
        self._memory_limit, self._spread = memory_limit, spread
        self.seconds: Mapping[str, float] = {}

    def collect(
        self,
        model: OnnxModel,
        calibrator: Calibrator,
        advance: Advance = ignore,
        consider: Consider | None = None,
    ) -> None:
        """See `collect_statistics`."""
        timings = Timings()
        collect_statistics(
            model,
            calibrator,
            advance,
            memory_limit=self._memory_limit,
            consider=consider,
            spread=self._spread,
            timings=timings,
        )
        self.seconds = timings.seconds()


def collect_statistics(
    model: OnnxModel,
    calibrator: Calibrator,
    advance: Advance = ignore,
    *,
    memory_limit: int = MEMORY_LIMIT,
    consider: Consider | None = None,
    spread: Spread | None = None,
    timings: Timings | None = None,
) -> None:
    """Run a calibrator's batches through a model and give it their statistics.

    Args:
        model: FP32 model.
        calibrator: Provides the batches, which may be a DataLoader's or other arrays, and receives the statistics.
        advance: Called with the number of images that were just done.
        memory_limit: Bytes of activations and of counts that may be held at a time. The model itself and its own
            workspace are not counted; a single tensor of a single image is always held. Counts that would take more
            than half of it are packed between their parts, which takes a little longer.
        consider: Called with what the pass will take, once the first batch is done and before `advance`; what it raises
            ends the pass.
        spread: How the work is spread over processors; by default over all that this process may use.
        timings: Takes the seconds of start-up, waiting for images, forward pass and counting.

    Raises:
        NonFiniteError: An activation holds NaN or infinity; the message names the tensor and the image.
        ModelError: The model cannot be run.
        TypeError: What the batches hold is nothing that the model takes; the message says what is.
    """
    spread, timings = spread or Spread.over(usable_processors()), timings or Timings()
    with (
        ThreadPoolExecutor(spread.parts * spread.count_threads, "calib-count") as helpers,
        ThreadPoolExecutor(spread.parts, "calib-part") as parts,
    ):
        begin_loading()  # while ONNX Runtime loads the model
        runner = PartRunner(model, threads=spread.run_threads, at_work=spread.parts, part_bytes=spread.part_bytes)
        try:
            with timings.of("start-up"):
                plan = collection_plan(model, calibrator.algorithm, runner.types)
                runner.open(plan.fetched)
            work = _Pass(plan, runner, parts, helpers, memory_limit, spread, timings)
            statistics = work.run(calibrator, model, advance, consider)
        except BaseException:  # Ctrl-C too: wait only for parts that are already running
            parts.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            runner.close()
    calibrator.merge(statistics)


class _Pass:
    """One pass over the images: decides when each part is run and counted."""

    def __init__(
        self,
        plan: CollectionPlan,
        runner: PartRunner,
        threads: ThreadPoolExecutor,
        helpers: ThreadPoolExecutor,
        memory_limit: int,
        spread: Spread,
        timings: Timings,
    ) -> None:
        self._plan, self._runner, self._spread, self._timings = plan, runner, spread, timings
        self._counts = plan.counts(memory_limit)
        self._for_activations = plan.left_for_activations(memory_limit)
        self._threads, self._helpers = threads, helpers
        self._pace: list[float] = []  # seconds an image, of each part that is run while `_times`
        self._times = True

    def run(
        self, calibrator: Calibrator, model: OnnxModel, advance: Advance, consider: Consider | None = None
    ) -> Statistics:
        images = 0
        batch_size = 0
        self._times = consider is not None
        waiting: deque[tuple[Future[None], int]] = deque()
        for batch in self._timed(model_batches(calibrator, model.inputs)):
            if not images:
                expected = length_hint(calibrator.batches) * len(batch.names)
                with self._timings.of("start-up"):
                    self._runner.divide(self._plan, batch, expected, self._for_activations)
            if self._plan.first_batch:  # TensorRT's grids depend on which images share a batch
                _finish(waiting, advance, 0)
                self._start_batch(batch, first=not images)
            batch_size = max(batch_size, len(batch.names))
            held: list[int] = []
            tell = held.append if consider is not None else advance
            for future, done in self._started(batch, self._count):
                waiting.append((future, done))
                _finish(waiting, tell, self._spread.parts + _WAITING)
            if consider is not None:
                _finish(waiting, tell, 0)
                consider(self._estimate(length_hint(calibrator.batches) * len(batch.names)))
                consider, self._times = None, False
                advance(sum(held))
            images += len(batch.names)
            if calibrator.over_images is not None and calibrator.over_images.is_due(images):
                _finish(waiting, advance, 0)
                calibrator.over_images.take(self._plan.statistics(self._counts.counted(), images, batch_size))
        _finish(waiting, advance, 0)
        return self._plan.statistics(self._counts.counted(), images, batch_size)

    def _timed(self, batches: Iterator[CalibrationBatch]) -> Iterator[CalibrationBatch]:
        """The batches, with the time that they are waited for."""
        while True:
            with self._timings.of("waiting for images"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _estimate(self, images: int) -> Estimate:
        """What so many images will take, as fast as the fastest part; others may have waited for code to be loaded."""
        seconds = min(self._pace, default=0.0) * len(self._runner.groups) / self._spread.parts
        return Estimate(images, seconds, self._runner.bytes_of_image)

    def _started(self, batch: CalibrationBatch, use: Use) -> Iterator[tuple[Future[None], int]]:
        """Run a batch in parts, in threads; yields each part with the number of images that it completes.

        All parts are run for one group of tensors before the next: its session may be the only one that is open.
        """
        part, groups = self._runner.part, self._runner.groups
        for group in groups:
            for start in range(0, len(batch.names), part):
                stop = min(start + part, len(batch.names))
                inputs = {name: a[start:stop] if a.ndim else a for name, a in batch.inputs.items()}
                names = batch.names[start:stop]
                future = self._threads.submit(self._work, group, inputs, names, use, self._runner.take_first())
                yield future, stop - start if group is groups[-1] else 0

    def _work(
        self, group: Group, inputs: Mapping[str, Array], names: Sequence[str], use: Use, ready: Activations | None
    ) -> None:
        """Run a part, unless its activations are ready, and pass them to `use`."""
        start = time.perf_counter()
        with self._runner.activations(group, inputs, len(names), ready) as found:
            self._timings.add("forward pass (threads)", time.perf_counter() - start)
            own = {name: inputs[name] for name in self._plan.inputs} if group is self._runner.groups[0] else {}
            with self._timings.of("counting (threads)"):
                for activations in (own, found):  # apart: the latter are the same arrays each time
                    use(activations, names)
        if self._times and ready is None:
            self._pace.append((time.perf_counter() - start) / len(names))

    def _count(self, activations: Mapping[str, Array], names: Sequence[str]) -> None:
        threads = max(self._spread.count_threads, self._spread.parts // self._runner.at_work)
        self._counts.count(activations, names, self._helpers, threads)

    def _start_batch(self, batch: CalibrationBatch, *, first: bool) -> None:
        """Tell TensorRT's histograms that a batch begins; the first batch is run twice, once to find its range."""
        self._counts.start_batch()
        if not first:
            return
        found: dict[str, list[float]] = {name: [] for name in self._counts.histograms}

        def measure(activations: Mapping[str, Array], names: Sequence[str]) -> None:
            for name, array in activations.items():
                found[name].append(largest_magnitude(array))

        for future in [future for future, _ in self._started(batch, measure)]:
            future.result()
        self._counts.open({name: float(np.max(values)) for name, values in found.items()})


def _finish(waiting: deque[tuple[Future[None], int]], advance: Advance, most: int) -> None:
    """Wait until at most `most` parts are in progress; the error raised is that of the oldest part."""
    while len(waiting) > most:
        future, images = waiting.popleft()
        future.result()
        if images:
            advance(images)
