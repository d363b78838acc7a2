"""Counting activations into histograms, one per tensor, from several threads."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.errors import NonFiniteError
from calib.histograms.first_batch import FirstBatchHistogram, largest_magnitude
from calib.histograms.split_histogram import ArrayGroup, SplitHistogram

Array = NDArray[Any]

BYTES_OF_COUNTER = 3 << 15  # of a tensor that is counted: its histogram, with a row for values above a limit
BYTES_OF_PACKED = 1 << 14  # of one that is packed between its parts, about
_GROUP = 1 << 20  # values of tensors that are counted in one compiled call, about a millisecond of work
_GOLDEN = 0.618  # of a circle: however many steps of so much there are, they keep apart


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
        self._grouping, self._grouped = threading.Lock(), set[str]()
        self._together: dict[tuple[str, ...], list[list[str]]] = {}  # tensors of one call, by the tensors of a part
        self._kept: dict[tuple[tuple[str, ...], tuple[int, ...]], tuple[Sequence[ArrayGroup], object]] = {}
        self._turns = itertools.count()
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

        def add(group: ArrayGroup, wait: bool) -> bool:
            return self._add(group, activations, errors, wait=wait)

        self._for_each(self._groups_of(activations), add, helpers, threads)
        first = next(filter(errors.__contains__, activations), None) if errors else None
        if first is not None:
            raise named_error(errors[first], self._holders.get(first, first), activations[first], names)

    def _groups_of(self, activations: Mapping[str, Array]) -> Sequence[ArrayGroup]:
        """Arrays to be counted in one call each; kept while they live, since most are filled again and again."""
        key = tuple(activations), tuple(map(id, activations.values()))
        kept = self._kept.get(key)
        if kept is not None:
            return kept[0]
        with self._grouping:
            together = self._together.get(key[0])
            if together is None:
                together = self._together[key[0]] = _in_groups(activations)
                for names in together:
                    self._share_lock([name for name in names if name not in self._grouped])
                    self._grouped.update(names)
        groups = [ArrayGroup(self.histograms, {name: activations[name] for name in names}) for names in together]

        def forget(_: object) -> None:  # another array may get the same id
            self._kept.pop(key, None)

        self._kept[key] = groups, [weakref.ref(array, forget) for array in activations.values()]
        return groups

    def _share_lock(self, names: Sequence[str]) -> None:
        """Let tensors that will be counted together have one lock, which is taken sooner than many."""
        lock = threading.Lock()
        for name in names:
            self.histograms[name].share(lock)

    def _add(
        self,
        group: ArrayGroup,
        activations: Mapping[str, Array],
        errors: dict[str, NonFiniteError],
        *,
        wait: bool,
    ) -> bool:
        """Add the arrays of some tensors; what is not finite and has to be goes into `errors`.

        Gives False, and adds nothing, if another thread is at them, unless `wait`.
        """
        rectified: list[str] = []
        if not self.rectified.isdisjoint(group.names) or not self.dropped.isdisjoint(group.names):
            rectified = [name for name in group.names if name in self.rectified]
            whole = [name for name in group.names if name not in rectified and name not in self.dropped]
            group = ArrayGroup(self.histograms, {name: activations[name] for name in whole})
        found = group.add(activations, wait=wait)
        if found is None:
            return False
        if self.first is not None:
            for name in group.names:
                if name not in found:
                    self._add_to_first(self.first[name], name, activations[name])
        for name, error in found.items():
            if self._required is not None and name not in self._required and name in self._required_clipped:
                self.rectified.add(name)
                self._add_clipped(name, activations[name], error.counted, errors)
            else:
                self._failed(name, error, errors)
        for name in rectified:
            self._add_clipped(name, activations[name], 0, errors)
        return True

    def _add_clipped(self, name: str, array: Array, counted: int, errors: dict[str, NonFiniteError]) -> None:
        """Add the values after those that were counted, clipped, so that NaN alone is left of what is not finite."""
        histogram = self.histograms[name]
        try:
            histogram.add(np.clip(array.reshape(-1)[counted:], 0, histogram.limit))
        except NonFiniteError as error:
            self._failed(name, NonFiniteError(str(error), index=error.index + counted), errors)

    def _failed(self, name: str, error: NonFiniteError, errors: dict[str, NonFiniteError]) -> None:
        if self._required is None or name in self._required or name in self._required_clipped:
            errors[name] = error
        else:
            self.dropped.add(name)

    def _add_to_first(self, first: FirstBatchHistogram, name: str, array: Array) -> None:
        largest = largest_magnitude(array)
        with self._locks[name]:
            if first.limit:
                first.add(array, largest)
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
        self, groups: Sequence[ArrayGroup], use: Callable[[ArrayGroup, bool], bool], helpers: Executor, threads: int
    ) -> None:
        """Call `use` for groups: the largest tensors first, so that all threads end at about the same time.

        It is called again, at the end, for those of which it gives False.
        """
        left = deque(groups)
        if threads == 1:  # parts that are counted at the same time begin at different tensors, and stay apart
            left.rotate(int(len(left) * (next(self._turns) * _GOLDEN % 1)))

        def work() -> None:
            later = []
            while True:
                try:
                    group = left.popleft()
                except IndexError:
                    break
                if not use(group, False):
                    later.append(group)
            for group in later:
                use(group, True)

        jobs = [helpers.submit(work) for _ in range(min(threads, len(left)) - 1)]
        work()
        for job in jobs:
            job.result()


def _in_groups(activations: Mapping[str, Array]) -> list[list[str]]:
    """The tensors, the largest first, those of one compiled call together."""
    groups: list[list[str]] = []
    size = _GROUP
    for name in sorted(activations, key=lambda name: -activations[name].size):
        if size >= _GROUP:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += activations[name].size
    return groups


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
