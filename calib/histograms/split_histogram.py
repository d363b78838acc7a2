"""Counting values up to a limit and values above it, from several threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.errors import NonFiniteError
from calib.histograms import kernels
from calib.histograms.histogram import Histogram, folded, key_from_value
from calib.histograms.packed_counts import PackedCounts
from calib.histograms.tables import BINS, count_in_tables, flat_values, given_back, not_finite, taken_tables

_NO_VALUES = np.zeros(0, np.float32)


class SplitHistogram:
    """Counts values up to a limit and values above it separately, in one pass.

    This gives the histograms of a tensor and of its Clip(0, limit), bit for bit as counting each of them would. Several
    threads may add values at a time.

    Attributes:
        limit: Upper bound of the Clip, above zero; infinity for none.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = float(np.float32(limit))
        self._state = kernels.empty_state()
        self._rows = 2 if math.isinf(limit) else 3
        self._counts = np.zeros((self._rows, BINS), np.uint32)  # half of what int64 takes, in memory and in time
        self._place = kernels.place_of_counts(self.limit, self._counts, self._state)
        self._held = 0  # values in them
        self._earlier: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None  # counts and state of values before
        self._packed: PackedCounts | None = None
        self._lock = threading.Lock()  # of the counts and the state

    @classmethod
    def from_counts(cls, limit: float, counts: NDArray[np.int64], state: NDArray[np.int64]) -> SplitHistogram:
        """A histogram that something else has counted, in the arrays of `calib.histograms.kernels`.

        Args:
            limit: Upper bound of the Clip; infinity for none.
            counts: int64 [2 or 3, BINS], the rows of `kernels`; taken over.
            state: int64 [STATE_SLOTS]; taken over.
        """
        made = cls(limit)
        made._earlier, made._state[:] = (counts, state), state
        return made

    def share(self, lock: threading.Lock) -> None:
        """Let only one thread at a time be at all the histograms with this lock; before any values are added."""
        self._lock = lock

    def pack(self) -> None:
        """Take little memory from now on, whenever no counts are being added; nothing else changes."""
        if self._packed is None:
            self._packed = PackedCounts.of(self._all_counts())
            self._earlier, self._counts = None, np.zeros((self._rows, 0), np.uint32)

    def _all_counts(self) -> NDArray[np.int64]:
        if self._packed is not None:
            return self._packed.unpacked()
        counts = self._counts.astype(np.int64)
        if self._earlier is not None:
            earlier, state = self._earlier
            for row in range(self._rows):
                counts[row] += folded(earlier[row], int(self._state[row]), int(state[row]))
        return counts

    def add(self, values: ArrayLike) -> None:
        """Count values of any shape.

        Raises:
            NonFiniteError: A value is NaN or infinite; the histogram is then incomplete and must be discarded, unless
                the values after those that were counted are added in another form.
        """
        count_in_tables(values, self._count)

    def _count(self, part: NDArray[np.float32], tables: kernels.Tables) -> int:
        index = tables.run_one(kernels.job(part, self._place, kernels.ACCUMULATE))
        with self._lock:
            self._join(tables, part.size)
        return index

    def _join(self, tables: kernels.Tables, values: int) -> None:
        """Add tables of at most so many values; the counts make way first where uint32 might not hold both."""
        if self._packed is not None:
            counts = self._packed.unpacked()
            place = kernels.place_of_counts(self.limit, counts, self._state)
            tables.run_one(kernels.job(_NO_VALUES, place, kernels.JOIN))
            self._packed = PackedCounts.of(counts)
            return
        if self._held + values > kernels.MOST:
            self._earlier, self._held = (self._all_counts(), self._state.copy()), 0
            self._counts[:] = 0
        tables.run_one(kernels.job(_NO_VALUES, self._place, kernels.JOIN))
        self._held += values

    def whole(self) -> Histogram:
        """The histogram of the values."""
        found = self._all_counts()
        counts, state = found[:2].copy(), self._state.copy()
        if len(found) > 2:
            above, below = int(state[kernels.ABOVE]), int(state[kernels.POSITIVE])
            widest = max(above, below)
            counts[kernels.POSITIVE] = folded(counts[kernels.POSITIVE], widest, below)
            counts[kernels.POSITIVE] += folded(found[kernels.ABOVE], widest, above)
            state[kernels.POSITIVE] = widest
        state[kernels.ABOVE] = kernels.UNSET
        return Histogram(counts, state)

    def clipped(self) -> Histogram:
        """The histogram of the values clipped to [0, limit]."""
        found = self._all_counts()
        counts, state = found[:2].copy(), self._state.copy()
        state[kernels.ABOVE] = kernels.UNSET
        for slot in (kernels.MIN_KEY, kernels.MAX_KEY):
            state[slot] = min(int(state[slot]), key_from_value(self.limit))
        kept = Histogram(counts, state).rectified()
        at_limit = int(found[kernels.ABOVE].sum()) if len(found) > 2 else 0
        if at_limit:  # then the positive row is already wide enough for the limit
            kept.signed_counts[kernels.POSITIVE, int(self.limit / kept.widths[1])] += at_limit
        return kept


class ArrayGroup:
    """Arrays that are filled again and again, each with a histogram, to be counted in one compiled call.

    A thread waits for the interpreter after each call, and preparing one takes as long as counting a small array.

    Attributes:
        names: Of the arrays.
    """

    def __init__(self, histograms: Mapping[str, SplitHistogram], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Prepare the call.

        Args:
            histograms: One for each array, by the same name.
            arrays: Of any shape and type; they are not read yet.
        """
        self._histograms = {name: histograms[name] for name in arrays}
        self.names = tuple(arrays)
        self._in_place = all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays.values())
        self._sizes = [(histogram, arrays[name].size) for name, histogram in self._histograms.items()]
        self._locks = {histogram._lock for histogram, _ in self._sizes}
        self._jobs = kernels.jobs(
            [kernels.job(flat_values(arrays[name]), histogram._place) for name, histogram in self._histograms.items()]
            if self._in_place
            else []
        )

    def add(self, arrays: Mapping[str, NDArray[Any]], *, wait: bool = True) -> dict[str, NonFiniteError] | None:
        """Add what the arrays hold now.

        Args:
            arrays: Those that the group was made of, from one thread at a time.
            wait: If another thread is at one of the histograms, add one by one. Otherwise add nothing then.

        Returns:
            By name, the errors that `SplitHistogram.add` would raise; None if nothing was added.
        """
        held: list[threading.Lock] = []
        try:
            for lock in self._locks:
                if lock.acquire(blocking=False):
                    held.append(lock)
            free = len(held) == len(self._locks)
            if not free and not wait:
                return None
            if free and self._in_place and self._fit():
                tables = taken_tables()
                broken = tables.run(self._jobs)
                given_back(tables)
                return self._errors(arrays) if broken else {}
        finally:
            for lock in held:
                lock.release()
        return self._one_by_one(arrays)

    def _fit(self) -> bool:
        """Whether the histograms can take the arrays as they are; then they hold them from now on."""
        for histogram, size in self._sizes:
            if histogram._packed is not None or histogram._held + size > kernels.MOST:
                return False
        for histogram, size in self._sizes:
            histogram._held += size
        return True

    def _errors(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NonFiniteError]:
        return {
            name: not_finite(flat_values(arrays[name]), int(index))
            for name, index in zip(self._histograms, self._jobs[:, kernels.FOUND], strict=True)
            if index >= 0
        }

    def _one_by_one(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NonFiniteError]:
        errors: dict[str, NonFiniteError] = {}
        for name, histogram in self._histograms.items():
            try:
                histogram.add(arrays[name])
            except NonFiniteError as error:
                errors[name] = error
        return errors
