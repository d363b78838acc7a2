"""Statistics of all activations of a model, from one pass over the images on ONNX Runtime.

Only tensors whose histogram does not follow from others' are fetched. A batch is run in parts, so that the activations
held at a time stay within a budget; where one image alone exceeds it, the tensors are fetched in groups, each by a
session of its own. Two parts are at work at a time, each run and then counted by a thread of its own: that keeps two
processors busy without one waiting for the other, as the threads of one run do. Buffers are used again. Memory does
not grow with the number of images, and the statistics do not depend on how they are split, but for tensors that hold no
images, such as a factor computed from shapes: these are counted once a part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import length_hint
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.algorithms import Entropy
from calib.calibrator import CalibrationBatch, Calibrator
from calib.first_batch import largest_magnitude
from calib.histogram import SplitHistogram
from calib.processors import usable_processors
from calib.statistics import Statistics
from quant.activation_types import activation_types
from quant.blocked_layout import blocked_session, is_worth_blocking
from quant.counting import Counts
from quant.derivation import derived_histogram, first_holders, origins, split_limits
from quant.errors import BuildError, ModelError
from quant.graph import OnnxModel, with_free_batch
from quant.onnxruntime_backend import OnnxRuntimeSession
from quant.placement import product_inputs

Array = NDArray[Any]
Advance = Callable[[int], None]  # called with the number of images that were just done
Use = Callable[[Mapping[str, Array], Sequence[str]], None]  # of a part's activations and the names of its images

MEMORY_LIMIT = 1 << 30  # bytes of activations held at a time, unless told otherwise
_PART_BYTES = 40 << 20  # a part of a batch holds so much
_PART_IMAGES = 8  # and up to twice as much where it would have fewer images: few images are not run efficiently
_PROCESSORS = usable_processors()
_AT_WORK = min(2, _PROCESSORS)  # parts at a time
_WAITING = 2  # parts that are cut before their turn, so that no thread waits for the oldest part
_RUN_THREADS = max(1, _PROCESSORS - 1)  # of ONNX Runtime: the thread that calls it works too, for each part
_COUNT_THREADS = max(1, _PROCESSORS // 2)  # for each part
_FLOAT_KINDS = {"tensor(float)", "tensor(float16)", "tensor(double)"}


def _ignore(images: int) -> None:
    """Progress that nobody watches."""


def collect_statistics(
    model: OnnxModel, calibrator: Calibrator, advance: Advance = _ignore, *, memory_limit: int = MEMORY_LIMIT
) -> None:
    """Run a calibrator's batches through a model and give it their statistics.

    Args:
        model: FP32 model.
        calibrator: Where batches come from and statistics go.
        advance: Called with the number of images that were just done.
        memory_limit: Bytes of activations that may be held at a time. The model itself and its own workspace are not
            counted; a single tensor of a single image is held in any case.

    Raises:
        NonFiniteError: An activation holds NaN or infinity; names the tensor and the image.
        ModelError: The model cannot be run.
    """
    with ThreadPoolExecutor(_PROCESSORS, "calib-count") as helpers, ThreadPoolExecutor(_AT_WORK, "calib-part") as parts:
        parts.submit(_load_loops)
        try:
            statistics = _Pass(model, calibrator, memory_limit, parts, helpers).run(advance)
        except BaseException:  # Ctrl-C too: only parts that are being run are waited for
            parts.shutdown(wait=False, cancel_futures=True)
            raise
    products = product_inputs(model.proto) & statistics.histograms.keys()
    calibrator.merge(replace(statistics, products=frozenset(products)))


def _load_loops() -> None:
    """Let numba load its compiled loops while ONNX Runtime loads the model: that takes a third of a second."""
    SplitHistogram().add(np.zeros(1, np.float32))


@dataclass(eq=False)
class _Group:
    """Tensors that one session fetches."""

    session: OnnxRuntimeSession
    tensors: list[str]
    open_ragged: Callable[[], OnnxRuntimeSession]

    def run(self, inputs: Mapping[str, Array], buffers: dict[str, Array], *, full: bool) -> dict[str, Array]:
        """Activations of a part; where it is a full one they lie in the buffers, and stay there until the next."""
        if not self.tensors:  # all follow from the input
            return {}
        if full and buffers:
            self.session.run_into(inputs, buffers)
            return buffers
        if not full and self.session.fixed_batch is not None:
            return self._run_ragged(inputs)
        results = dict(zip(self.tensors, self.session.run(inputs, self.tensors), strict=True))
        if full and self.session.fixed_shapes:
            buffers.update(results)
        return results

    def _run_ragged(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Fewer images than the model's fixed batch: with the batch freed, or filled up where the graph relies on it.

        Filling up repeats images, and what is theirs cannot be cut from a tensor whose first axis is not the batch.
        """
        try:
            results = self.open_ragged().run(inputs, self.tensors)
        except (BuildError, ModelError):
            results = self.session.run(inputs, self.tensors)
        return dict(zip(self.tensors, results, strict=True))


class _Pass:
    """One pass over the images."""

    def __init__(
        self,
        model: OnnxModel,
        calibrator: Calibrator,
        memory_limit: int,
        threads: ThreadPoolExecutor,
        helpers: ThreadPoolExecutor,
    ) -> None:
        algorithm = calibrator.algorithm
        self._model = model
        self._calibrator = calibrator
        self._memory_limit = memory_limit
        self._threads, self._helpers = threads, helpers
        self._match = isinstance(algorithm, Entropy) and algorithm.match_tensorrt
        types = activation_types(model.proto)
        inputs = [info.name for info in model.inputs if info.dtype.startswith("float")]
        unknown = [name for name, kind in types.items() if kind == onnx.TensorProto.UNDEFINED and name not in inputs]
        kinds = self._session(unknown).types if unknown else {}
        floats = {*inputs, *(name for name in types if name not in unknown or kinds[name] in _FLOAT_KINDS)}
        self._origins = origins(model.proto, [name for name in types if name in floats], moved_only=self._match)
        self._counts = Counts(
            split_limits(self._origins), first_batch=self._match, holders=first_holders(self._origins)
        )
        self._inputs = [name for name in inputs if name in self._counts.histograms]
        self._fetched = [name for name in self._counts.histograms if name not in inputs]
        self._groups = [self._group(self._fetched)]
        self._buffers: SimpleQueue[dict[str, Array]] = SimpleQueue()  # a set for each part at work
        for _ in range(_AT_WORK):
            self._buffers.put({})
        self._part = 0
        self._one: dict[str, Array] | None = None  # activations of the first image, where they are a part already

    def _group(self, tensors: list[str]) -> _Group:
        return _Group(self._session(tensors), tensors, lambda: self._session(tensors, free_batch=True))

    def _session(self, tensors: Sequence[str], *, free_batch: bool = False) -> OnnxRuntimeSession:
        """The model with these tensors as outputs."""
        proto = with_free_batch(self._model.proto) if free_batch else self._model.proto
        try:
            return OnnxRuntimeSession(proto, name=str(self._model.path), threads=_RUN_THREADS, spin=False, also=tensors)
        except BuildError as error:
            raise ModelError(str(error)) from error

    def run(self, advance: Advance) -> Statistics:
        images = 0
        batch_size = 0
        waiting: deque[tuple[Future[None], int]] = deque()
        for batch in self._calibrator:
            self._plan_parts(batch)
            if self._match:  # TensorRT's grids depend on which images share a batch
                _finish(waiting, advance, 0)
                self._start_batch(batch, first=not images)
            batch_size = max(batch_size, len(batch.names))
            for future, done in self._started(batch, self._count):
                waiting.append((future, done))
                _finish(waiting, advance, _AT_WORK + _WAITING)
            images += len(batch.names)
        _finish(waiting, advance, 0)
        self._groups = []  # they refer to this object: sessions and buffers would otherwise wait for the collector
        return self._statistics(images, batch_size)

    def _plan_parts(self, batch: CalibrationBatch) -> None:
        """Decide, with the first image, how many images are run at a time and whether tensors go in groups."""
        if self._part:
            return
        fixed = self._groups[0].session.fixed_batch
        if not self._fetched:
            self._part = fixed or len(batch.names)
            return
        image = {name: array[:1] for name, array in batch.inputs.items()}
        one = dict(zip(self._fetched, self._groups[0].session.run(image, self._fetched), strict=True))
        sizes = {name: array.nbytes * (fixed or 1) for name, array in one.items()}
        budget = self._memory_limit // _AT_WORK
        if sum(sizes.values()) > budget:
            self._groups = [self._group(tensors) for tensors in _grouped(sizes, budget)]
            self._part = fixed or 1
        else:
            self._part = fixed or _images_in_part(sum(sizes.values()), budget, len(batch.names))
        if self._part == 1 and len(self._groups) == 1 and not self._match:
            self._one = one
            self._buffers.get()  # these take their place, once they are counted
        images = length_hint(self._calibrator.batches) * len(batch.names)
        if fixed is None and is_worth_blocking(self._model.proto, one, images):
            for group in self._groups:
                expected = {name: one[name] for name in group.tensors}
                faster = blocked_session(
                    self._model.proto, str(self._model.path), image, expected, threads=_RUN_THREADS
                )
                group.session = faster or group.session

    def _started(self, batch: CalibrationBatch, use: Use) -> Iterator[tuple[Future[None], int]]:
        """Run a batch in parts, in threads; with each, how many images are done when it is."""
        for start in range(0, len(batch.names), self._part):
            stop = min(start + self._part, len(batch.names))
            inputs = {name: array[start:stop] for name, array in batch.inputs.items()}
            names = batch.names[start:stop]
            if self._one is not None:
                one, self._one = self._one, None
                yield self._threads.submit(self._work, self._groups[0], inputs, names, use, one), 1
                continue
            for group in self._groups:
                future = self._threads.submit(self._work, group, inputs, names, use)
                yield future, stop - start if group is self._groups[-1] else 0

    def _work(
        self,
        group: _Group,
        inputs: Mapping[str, Array],
        names: Sequence[str],
        use: Use,
        ready: dict[str, Array] | None = None,
    ) -> None:
        """Run a part, unless its activations are ready, and do something with them."""
        buffers = self._buffers.get() if ready is None else ready
        try:
            activations = ready or group.run(inputs, buffers, full=len(names) == self._part)
            if group is self._groups[0]:
                activations = {name: inputs[name] for name in self._inputs} | activations
            use(activations, names)
        finally:
            self._buffers.put({} if len(self._groups) > 1 else buffers)

    def _count(self, activations: Mapping[str, Array], names: Sequence[str]) -> None:
        self._counts.count(activations, names, self._helpers, _COUNT_THREADS)

    def _start_batch(self, batch: CalibrationBatch, *, first: bool) -> None:
        """Tell TensorRT's histograms that a batch begins; the first one is run twice, once for its range."""
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

    def _statistics(self, images: int, batch_size: int) -> Statistics:
        counted = self._counts.histograms
        histograms = {name: derived_histogram(parts, counted) for name, parts in self._origins.items()}
        if self._counts.first is None:
            return Statistics(histograms, images)
        self._counts.end_batch()
        first = {name: self._counts.first[part.root] for name, (part,) in self._origins.items()}
        return Statistics(histograms, images, first, batch_size)


def _finish(waiting: deque[tuple[Future[None], int]], advance: Advance, most: int) -> None:
    """Wait until at most so many parts are under way; the oldest part's error is the one that is raised."""
    while len(waiting) > most:
        future, images = waiting.popleft()
        future.result()
        if images:
            advance(images)


def _images_in_part(size: int, budget: int, batch: int) -> int:
    """How many images of a batch are run at a time, `size` bytes of activations each; an even share where it can be."""
    size = max(1, size)
    images = max(_PART_BYTES // size, min(_PART_IMAGES, 2 * _PART_BYTES // size))
    images = max(1, min(images, budget // size))
    return next((part for part in range(images, images // 2, -1) if batch % part == 0), images)


def _grouped(sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """Tensors in the order of the graph, in groups that fit the budget; one that exceeds it alone is alone."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if groups[-1] and used + size > budget:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups
