"""Counting activations into histograms, one per tensor, from several threads."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.errors import NonFiniteError
from calib.histograms.first_batch import FirstBatchHistogram, largest_magnitude
from calib.histograms.histogram import SplitHistogram

Array = NDArray[Any]

BYTES_OF_COUNTER = 3 << 15  # of a tensor that is counted: its histogram, with a row for values above a limit
BYTES_OF_PACKED = 1 << 14  # of one that is packed between its parts, about


@dataclass(frozen=True)
class Counted:
    """What a pass has counted.

    Attributes:
        histograms: Histogram of each tensor, by name.
        dropped: Tensors that held NaN or infinity where that is no error: their histograms do not count.
        rectified: Tensors of which only the histograms of the values clipped to [0, limit] count, see `Counts`.
        first: Histogram of each tensor on TensorRT's grid, which depends on the first batch; None if not wanted.
    """

    histograms: Mapping[str, SplitHistogram]
    dropped: Collection[str] = ()
    rectified: Collection[str] = ()
    first: Mapping[str, FirstBatchHistogram] | None = None


class Counts:
    """The histograms of a model's tensors, which several threads may count at a time.

    Attributes:
        histograms: Histogram of each tensor, by name.
        first: Histogram of each tensor on TensorRT's grid, which depends on the first batch; None if not wanted.
        dropped: Tensors that held NaN or infinity where that is no error: their histograms do not count.
        rectified: Tensors that held infinity below zero, or above their limit, where only the values clipped to
            [0, limit] are required: only the histograms of these count.
    """

    def __init__(
        self,
        limits: Mapping[str, float],
        *,
        first_batch: bool,
        holders: Mapping[str, str] | None = None,
        required: Collection[str] | None = None,
        required_clipped: Collection[str] = (),
        packed: bool = False,
    ) -> None:
        """Create empty histograms.

        Args:
            limits: For each tensor to count, the limit of its `SplitHistogram`.
            first_batch: Whether to count on TensorRT's grid too.
            holders: For each tensor, the tensor to name in messages; by default the tensor itself.
            required: Tensors in which NaN and infinity are errors. In others they end the counting of that tensor. None
                for all.
            required_clipped: Tensors whose values clipped to [0, limit] are required, and no others of them.
            packed: Whether a tensor's histogram is packed whenever no counts are being added to it.
        """
        self._holders = holders or {}
        self.histograms = {name: SplitHistogram(limit) for name, limit in limits.items()}
        for histogram in self.histograms.values() if packed else ():
            histogram.pack()
        self.first = {name: FirstBatchHistogram() for name in limits} if first_batch else None
        # Arrays of the current batch that cannot be counted on TensorRT's grid yet, because its range is not known.
        self._early: dict[str, list[Array]] = {name: [] for name in limits}
        self._locks = {name: threading.Lock() for name in limits}  # of the histograms on TensorRT's grid
        self._required, self._required_clipped = required, required_clipped
        self.dropped: set[str] = set()
        self.rectified: set[str] = set()

    def count(self, activations: Mapping[str, Array], names: Sequence[str], helpers: Executor, threads: int) -> None:
        """Count the activations of some images.

        Args:
            activations: Values by tensor name, in the order of the graph.
            names: Names of the images.
            helpers: Executor that provides the additional threads.
            threads: Number of threads that count, including the calling one.

        Raises:
            NonFiniteError: A value of a required tensor is NaN or infinite. It names the first such tensor in the
                graph, and the image.
        """
        errors: dict[str, NonFiniteError] = {}

        def add(name: str, array: Array) -> None:
            if name in self.dropped:
                return
            try:
                self._add_or_rectified(name, array)
            except NonFiniteError as error:
                if self._required is None or name in self._required or name in self._required_clipped:
                    errors[name] = error
                else:
                    self.dropped.add(name)

        self._for_each(activations, add, helpers, threads)
        for tensor, array in activations.items():
            if tensor in errors:
                raise named_error(errors[tensor], self._holders.get(tensor, tensor), array, names)

    def _add_or_rectified(self, name: str, array: Array) -> None:
        """Add an array; if only its clipped values are required and infinity came up, clip it, so NaN alone is left."""
        counted = 0
        if name not in self.rectified:
            try:
                self._add(name, array)
            except NonFiniteError as error:
                if self._required is None or name in self._required or name not in self._required_clipped:
                    raise
                counted = error.counted
                self.rectified.add(name)
            else:
                return
        histogram, values = self.histograms[name], array.reshape(-1)
        try:
            histogram.add(np.clip(values[counted:], 0, histogram.limit))
        except NonFiniteError as error:
            raise NonFiniteError(str(error), index=error.index + counted) from None

    def _add(self, name: str, array: Array) -> None:
        self.histograms[name].add(array)
        if self.first is None:
            return
        largest = largest_magnitude(array)
        with self._locks[name]:
            if self.first[name].limit:
                self.first[name].add(array, largest)
            elif largest:  # zero in all earlier batches: the range comes from this whole batch, not from its first part
                self._early[name].append(array.copy())

    def end_batch(self) -> None:
        """Finish a batch: tensors that were zero in all earlier batches get their range from this one."""
        for name, arrays in self._early.items():
            if self.first is not None and arrays:
                self.first[name].open(max(map(largest_magnitude, arrays)))
                for array in arrays:
                    self.first[name].add(array, largest_magnitude(array))
                arrays.clear()

    def counted(self) -> Counted:
        """What has been counted so far, the current batch included."""
        self.end_batch()
        return Counted(self.histograms, self.dropped, self.rectified, self.first)

    def start_batch(self) -> None:
        """Finish the current batch and start a new one: the images counted from now on belong to it."""
        self.end_batch()
        for histogram in (self.first or {}).values():
            histogram.start_batch()

    def open(self, largest: Mapping[str, float]) -> None:
        """Set the ranges of TensorRT's grids to the largest magnitudes of the first batch."""
        for name, histogram in (self.first or {}).items():
            if math.isfinite(largest[name]):  # otherwise counting will raise the error
                histogram.open(largest[name])

    def _for_each(
        self, activations: Mapping[str, Array], use: Callable[[str, Array], None], helpers: Executor, threads: int
    ) -> None:
        """Call `use` for each tensor, the largest first so that all threads end at about the same time."""
        left = deque(sorted(activations, key=lambda name: -activations[name].size))

        def work() -> None:
            while True:
                try:
                    name = left.popleft()
                except IndexError:
                    return
                use(name, activations[name])

        jobs = [helpers.submit(work) for _ in range(min(threads, len(activations)) - 1)]
        work()
        for job in jobs:
            job.result()


def named_error(error: NonFiniteError, tensor: str, array: Array, names: Sequence[str]) -> NonFiniteError:
    """The error of an array, with its tensor and image named.

    Args:
        error: Its index is that of a value that is not finite.
        tensor: The tensor to name.
        array: Its values, of any shape.
        names: Names of the images; they are on the first axis, unless its size differs.
    """
    where = ""
    if array.ndim and len(array) == len(names):
        where = f", image '{names[error.index // (array.size // len(names))]}'"
    return NonFiniteError(
        f"tensor '{tensor}'{where}: expected finite activations, found {array.reshape(-1)[error.index]}; check the "
        "image and the preprocessing, and that the model itself gives no NaN or infinity there",
        tensor=tensor,
        index=error.index,
    )
