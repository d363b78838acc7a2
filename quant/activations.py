"""Statistics of all activations of a model, from one pass over the images on ONNX Runtime.

Only tensors whose histogram does not follow from another's are fetched. A batch is run in parts, so that the
activations held at a time stay within a budget; where one image alone exceeds it, the tensors are fetched in groups,
each by a session of its own. While one part is counted, in threads, the next one runs; buffers are used again. Memory
does not grow with the number of images, and the statistics do not depend on how they are split.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.algorithms import Entropy
from calib.calibrator import CalibrationBatch, Calibrator
from calib.errors import NonFiniteError
from calib.first_batch import FirstBatchHistogram, largest_magnitude
from calib.histogram import SplitHistogram
from calib.statistics import Statistics
from quant.activation_types import activation_types
from quant.blocked_layout import blocked_session, is_worth_blocking
from quant.derivation import derived_histogram, origins, split_limits
from quant.errors import BuildError, ModelError
from quant.graph import OnnxModel, with_free_batch
from quant.onnxruntime_backend import OnnxRuntimeSession

Array = NDArray[Any]
Advance = Callable[[int], None]  # called with the number of images that were just done

MEMORY_LIMIT = 1 << 30  # bytes of activations held at a time, unless told otherwise
_PART_BYTES = 40 << 20  # a part of a batch holds so much
_PART_IMAGES = 8  # and up to twice as much where it would have fewer images: few images are not run efficiently
_THREADS = os.cpu_count() or 1
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
    calibrator.merge(_Pass(model, calibrator, memory_limit).run(advance))


@dataclass
class _Group:
    """Tensors that one session fetches, with two sets of buffers for a full part."""

    session: OnnxRuntimeSession
    tensors: list[str]
    open_ragged: Callable[[], OnnxRuntimeSession]
    buffers: list[dict[str, Array]] = field(default_factory=lambda: [{}, {}])

    def run(self, inputs: Mapping[str, Array], slot: int, *, full: bool) -> dict[str, Array]:
        if full and self.buffers[slot]:
            self.session.run_into(inputs, self.buffers[slot])
            return self.buffers[slot]
        if not full and self.session.fixed_batch is not None:
            return self._run_ragged(inputs)
        results = dict(zip(self.tensors, self.session.run(inputs, self.tensors), strict=True))
        if full and self.session.fixed_shapes:
            self.buffers[slot] = results
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

    def __init__(self, model: OnnxModel, calibrator: Calibrator, memory_limit: int) -> None:
        algorithm = calibrator.algorithm
        self._model = model
        self._calibrator = calibrator
        self._memory_limit = memory_limit
        self._first: dict[str, FirstBatchHistogram] | None = None
        match = isinstance(algorithm, Entropy) and algorithm.match_tensorrt
        types = activation_types(model.proto)
        inputs = [info.name for info in model.inputs if info.dtype.startswith("float")]
        unknown = [name for name, kind in types.items() if kind == onnx.TensorProto.UNDEFINED and name not in inputs]
        kinds = self._session(unknown).types if unknown else {}
        floats = {*inputs, *(name for name in types if name not in unknown or kinds[name] in _FLOAT_KINDS)}
        self._origins = origins(model.proto, [name for name in types if name in floats], moved_only=match)
        self._counted = {root: SplitHistogram(limit) for root, limit in split_limits(self._origins).items()}
        self._inputs = [name for name in inputs if name in self._counted]
        self._fetched = [name for name in self._counted if name not in inputs]
        self._groups = [self._group(self._fetched)]
        self._part = 0
        if match:
            self._first = {root: FirstBatchHistogram() for root in self._counted}

    def _group(self, tensors: list[str]) -> _Group:
        return _Group(self._session(tensors), tensors, lambda: self._session(tensors, free_batch=True))

    def _session(self, tensors: Sequence[str], *, free_batch: bool = False) -> OnnxRuntimeSession:
        """The model with these tensors as outputs."""
        try:
            return OnnxRuntimeSession(
                self._proto(tensors, free_batch=free_batch), name=str(self._model.path), spin=False
            )
        except BuildError as error:
            raise ModelError(str(error)) from error

    def _proto(self, tensors: Sequence[str], *, free_batch: bool = False) -> onnx.ModelProto:
        proto = with_free_batch(self._model.proto) if free_batch else onnx.ModelProto()
        if not free_batch:
            proto.CopyFrom(self._model.proto)
        existing = {value.name for value in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in existing)
        return proto

    def run(self, advance: Advance) -> Statistics:
        images = 0
        batch_size = 0
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="calib-count") as pool:
            pending: _Counting | None = None
            slot = 0
            for number, batch in enumerate(self._calibrator):
                self._plan_parts(batch)
                if self._first is not None:
                    self._start_batch(batch, first=number == 0)
                batch_size = max(batch_size, len(batch.names))
                for inputs, names in self._parts(batch):
                    for group in self._groups:
                        activations = group.run(inputs, slot, full=len(names) == self._part)
                        if group is self._groups[0]:
                            activations = {name: inputs[name] for name in self._inputs} | activations
                        if pending is not None:
                            pending.finish()
                        pending = _Counting(activations, names, self._add, pool)
                        slot = 1 - slot
                    images += len(names)
                    advance(len(names))
            if pending is not None:
                pending.finish()
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
        budget = self._memory_limit // 2  # one half is counted while the other is filled
        if sum(sizes.values()) > budget:
            self._groups = [self._group(tensors) for tensors in _grouped(sizes, budget)]
            self._part = fixed or 1
        else:
            self._part = fixed or _images_in_part(sum(sizes.values()), budget)
        images = length_hint(self._calibrator.batches) * len(batch.names)
        if fixed is None and is_worth_blocking(self._model.proto, one, images):
            for group in self._groups:
                expected = {name: one[name] for name in group.tensors}
                faster = blocked_session(self._proto(group.tensors), str(self._model.path), image, expected)
                group.session = faster or group.session

    def _parts(self, batch: CalibrationBatch) -> Iterator[tuple[dict[str, Array], Sequence[str]]]:
        for start in range(0, len(batch.names), self._part):
            stop = start + self._part
            yield {name: array[start:stop] for name, array in batch.inputs.items()}, batch.names[start:stop]

    def _start_batch(self, batch: CalibrationBatch, *, first: bool) -> None:
        """Tell TensorRT's histograms that a batch begins; the first one is run twice, once for its range."""
        assert self._first is not None
        for histogram in self._first.values():
            histogram.start_batch()
        if not first:
            return
        largest = dict.fromkeys(self._counted, 0.0)
        for inputs, names in self._parts(batch):
            for group in self._groups:
                activations = group.run(inputs, 0, full=len(names) == self._part)
                for name, array in ({n: inputs[n] for n in self._inputs} | activations).items():
                    largest[name] = max(largest[name], largest_magnitude(array))
        for name, value in largest.items():
            if np.isfinite(value):
                self._first[name].open(value)

    def _add(self, name: str, array: Array) -> None:
        self._counted[name].add(array)
        if self._first is not None:
            self._first[name].add(array, largest_magnitude(array))

    def _statistics(self, images: int, batch_size: int) -> Statistics:
        histograms = {name: derived_histogram(parts, self._counted) for name, parts in self._origins.items()}
        if self._first is None:
            return Statistics(histograms, images)
        first = {name: self._first[part.root] for name, (part,) in self._origins.items()}
        return Statistics(histograms, images, first, batch_size)


class _Counting:
    """The tensors of a part, being counted in threads: a job a thread, since there may be hundreds of tensors."""

    def __init__(
        self,
        activations: Mapping[str, Array],
        names: Sequence[str],
        add: Callable[[str, Array], None],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._activations, self._names, self._add = activations, names, add
        self._errors: dict[str, NonFiniteError] = {}
        # The largest tensors first, so that the threads end together.
        self._left = deque(sorted(activations, key=lambda name: -activations[name].size))
        self._jobs = [pool.submit(self._work) for _ in range(min(_THREADS, len(activations)))]

    def _work(self) -> None:
        while True:
            try:
                name = self._left.popleft()
            except IndexError:
                return
            try:
                self._add(name, self._activations[name])
            except NonFiniteError as error:
                self._errors[name] = error

    def finish(self) -> None:
        """Wait for the end; name tensor and image where a value is not finite: the first tensor in the graph's order.

        Raises:
            NonFiniteError: An activation holds NaN or infinity.
        """
        for job in self._jobs:
            job.result()
        for tensor in self._activations:
            if tensor in self._errors:
                raise self._named(tensor, self._errors[tensor])

    def _named(self, tensor: str, error: NonFiniteError) -> NonFiniteError:
        array, names = self._activations[tensor], self._names
        where = ""
        if array.ndim and len(array) == len(names):
            where = f", image '{names[error.index // (array.size // len(names))]}'"
        return NonFiniteError(
            f"tensor '{tensor}'{where}: expected finite activations, found {array.reshape(-1)[error.index]}; check the "
            "image and the preprocessing, and that the model itself gives no NaN or infinity there",
            tensor=tensor,
            index=error.index,
        )


def _images_in_part(size: int, budget: int) -> int:
    """How many images of `size` bytes of activations are run at a time."""
    size = max(1, size)
    images = max(_PART_BYTES // size, min(_PART_IMAGES, 2 * _PART_BYTES // size))
    return max(1, min(images, budget // size))


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
