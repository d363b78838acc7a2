"""Mergeable histogram of an activation.

Bins have width 2^k and start at zero. When a value falls outside, the width is doubled by adding neighbouring bins. The
edges nest, so this is exact, and the width ends up as the smallest that holds the largest magnitude. The result
therefore depends only on the set of values: any batch size, order, shards or merges give the same counts, and memory
does not grow with the number of images. Negative and other values are counted separately, each with a width of their
own, so that the histogram of a Relu's or a Clip's output follows exactly from that of its input.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.errors import CalibrationError, NonFiniteError
from calib.histograms import kernels
from calib.histograms.packed_counts import PackedCounts

BINS = 8192  # for each sign; a power of two, so that the largest magnitude lies in the upper half
MOST_VALUES = 1 << 53  # of a tensor; a petabyte of float32 has fewer
_SIGNS = (kernels.NEGATIVE, kernels.POSITIVE)


def _empty_state() -> NDArray[np.int64]:
    state = np.zeros(kernels.STATE_SLOTS, np.int64)
    state[: kernels.ZEROS] = kernels.UNSET
    return state


def _value_from_key(key: int) -> float:
    """The float32 whose order key this is (see `calib.histograms.kernels`); -0.0 gives 0.0."""
    bits = key if key >= 0 else (key ^ 0x7FFFFFFF)
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0]) + 0.0


def _key_from_value(value: float) -> int:
    bits = int(struct.unpack("<i", struct.pack("<f", value))[0])
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


_Tables = tuple[NDArray[np.uint32], NDArray[np.int64]]  # and their state
# Tables that are all zero. Some are taken out while values are counted in them, so that an interrupt leaves none half
# full.
_spare: list[_Tables] = []


def _count_in_tables(
    values: ArrayLike, count: Callable[[NDArray[np.float32], NDArray[np.uint32], NDArray[np.int64]], int]
) -> None:
    """Count values by way of tables, which stay in the caches.

    Args:
        values: Of any shape.
        count: Counts a part of the values in tables, of which the second array is the state, and joins the tables with
            a histogram; gives the index of the first value that is not finite, or -1.

    Raises:
        NonFiniteError: A value is NaN or infinite; those before its chunk were counted.
    """
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    for start in range(0, flat.size, kernels.MOST):
        part = flat[start : start + kernels.MOST]
        try:
            tables, own = _spare.pop()
        except IndexError:
            tables, own = np.zeros((kernels.TABLES, kernels.ROWS, BINS), np.uint32), _empty_state()
        index = count(part, tables, own)
        _spare.append((tables, own))
        if index >= 0:
            counted = start + index // kernels.CHUNK * kernels.CHUNK
            index += start
            raise NonFiniteError(
                f"value {index} is {flat[index]}, expected a finite number", index=index, counted=counted
            )


@dataclass
class Histogram:
    """Counts of one tensor's values, by sign and magnitude, with the exact extremes.

    Attributes:
        signed_counts: int64 [2, BINS]; row 0 counts negative values, row 1 zero and positive ones. Bin i of a row holds
            magnitudes in [i * width, (i + 1) * width), where width is that row's, see `widths`.
    """

    signed_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    _state: NDArray[np.int64] = field(default_factory=_empty_state)

    def add(self, values: ArrayLike) -> None:
        """Count values of any shape; other floating types are read as float32.

        Raises:
            NonFiniteError: A value is NaN or infinite; the histogram is then incomplete and must be discarded.
        """
        counts, state = self.signed_counts, self._state
        _count_in_tables(
            values,
            lambda part, tables, own: kernels.accumulate_and_join(
                part, part.view(np.int32), math.inf, tables, own, counts, state
            ),
        )

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values together; neither operand changes.

        Raises:
            CalibrationError: There are more values than can be counted.
        """
        if self.count + other.count > MOST_VALUES:
            raise CalibrationError(f"expected up to {MOST_VALUES} values of a tensor in all, found more")
        counts, state = np.empty_like(self.signed_counts), self._state.copy()
        for sign in _SIGNS:
            counts[sign], state[sign] = _joined_rows(self, other, sign)
        state[kernels.ZEROS] += other._state[kernels.ZEROS]
        if self._state[kernels.STARTED] and other._state[kernels.STARTED]:
            state[kernels.MIN_KEY] = min(state[kernels.MIN_KEY], other._state[kernels.MIN_KEY])
            state[kernels.MAX_KEY] = max(state[kernels.MAX_KEY], other._state[kernels.MAX_KEY])
        elif other._state[kernels.STARTED]:
            state[kernels.MIN_KEY :] = other._state[kernels.MIN_KEY :]
        return Histogram(counts, state)

    def rectified(self) -> Histogram:
        """The histogram of max(x, 0), exactly as counting those values would give it."""
        negative = int(self.signed_counts[kernels.NEGATIVE].sum())
        counts, state = self.signed_counts.copy(), self._state.copy()
        counts[kernels.NEGATIVE] = 0
        counts[kernels.POSITIVE, 0] += negative
        state[kernels.NEGATIVE] = kernels.UNSET
        state[kernels.ZEROS] += negative
        for slot, value in ((kernels.MIN_KEY, self.min), (kernels.MAX_KEY, self.max)):
            state[slot] = _key_from_value(max(value, 0.0))
        return Histogram(counts, state)

    def halved(self, times: int) -> Histogram:
        """The histogram of x / 2^times, exactly as counting those values would give it if none is subnormal."""
        counts, state = self.signed_counts.copy(), self._state.copy()
        for sign in _SIGNS:
            if state[sign] != kernels.UNSET:
                exponent = max(int(state[sign]) - times, kernels.MIN_EXPONENT)
                counts[sign] = _folded_times(counts[sign], exponent - (int(state[sign]) - times))
                state[sign] = exponent
        for slot, value in ((kernels.MIN_KEY, self.min), (kernels.MAX_KEY, self.max)):
            state[slot] = _key_from_value(float(np.float32(value) * np.float32(2.0**-times)))
        return Histogram(counts, state)

    def digest(self) -> bytes:
        """A digest that is equal for histograms with the same contents, and only for those."""
        return hashlib.sha256(self.signed_counts.tobytes() + self._state.tobytes()).digest()

    @property
    def widths(self) -> tuple[float, float]:
        """Widths of the bins of negative and of other values, activation units; both are powers of two."""
        negative, positive = (2.0 ** max(int(self._state[sign]), kernels.MIN_EXPONENT) for sign in _SIGNS)
        return negative, positive

    @property
    def width(self) -> float:
        """Width of the bins of `counts`, activation units; the larger of `widths`."""
        return max(self.widths)

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [BINS]: the number of values with a magnitude in each bin of `width`; zeros are in bin 0."""
        exponent = int(self._state[list(_SIGNS)].max())
        total = np.zeros(BINS, np.int64)
        for sign in _SIGNS:
            total += _folded(self.signed_counts[sign], exponent, int(self._state[sign]))
        return total

    @property
    def count(self) -> int:
        """How many values were counted."""
        return int(self.signed_counts.sum())

    @property
    def zeros(self) -> int:
        """How many values were exactly zero."""
        return int(self._state[kernels.ZEROS])

    @property
    def min(self) -> float:
        """Smallest value, exact; 0 when nothing was counted."""
        return _value_from_key(int(self._state[kernels.MIN_KEY])) if self._state[kernels.STARTED] else 0.0

    @property
    def max(self) -> float:
        """Largest value, exact; 0 when nothing was counted."""
        return _value_from_key(int(self._state[kernels.MAX_KEY])) if self._state[kernels.STARTED] else 0.0

    @property
    def abs_max(self) -> float:
        """Largest magnitude, exact."""
        return max(abs(self.min), abs(self.max))

    @classmethod
    def from_parts(
        cls,
        signed_counts: NDArray[np.int64],
        *,
        widths: tuple[float, float],
        zeros: int,
        minimum: float,
        maximum: float,
    ) -> Histogram:
        """Rebuild a histogram from its `signed_counts`, `widths`, `zeros`, `min` and `max`.

        Raises:
            CalibrationError: The parts contradict each other.
        """
        exponents = [round(math.log2(width)) if 0 < width < math.inf else 0 for width in widths]
        if signed_counts.sum(dtype=np.float64) > MOST_VALUES:
            raise CalibrationError(f"expected up to {MOST_VALUES} values of a tensor, found more")
        if signed_counts.shape != (2, BINS) or (signed_counts < 0).any() or [2.0**e for e in exponents] != list(widths):
            raise CalibrationError(
                f"expected counts of shape (2, {BINS}), none negative, and bin widths that are powers of two; "
                f"found shape {signed_counts.shape}, widths {widths}"
            )
        ranges = [BINS * width for width in widths]
        if not (minimum <= maximum and -ranges[0] < minimum and maximum < ranges[1]):
            raise CalibrationError(
                f"expected min <= max, both within {BINS} bins of {widths}; found min {minimum}, max {maximum}"
            )
        first_bin, others = int(signed_counts[kernels.POSITIVE, 0]), int(signed_counts.sum()) - zeros
        if not 0 <= zeros <= first_bin or (others > 0) != bool(minimum or maximum):
            raise CalibrationError(
                f"expected counts of {zeros} zeros and of values from {minimum} to {maximum}, found {first_bin} values "
                f"in the bin of zero and {others} others"
            )
        state = _empty_state()
        for sign, seen in ((kernels.NEGATIVE, minimum < 0), (kernels.POSITIVE, maximum > 0)):
            state[sign] = exponents[sign] if seen else kernels.UNSET
        state[kernels.ZEROS] = zeros
        if signed_counts.any():
            state[kernels.MIN_KEY :] = _key_from_value(minimum), _key_from_value(maximum), 1
        return cls(np.ascontiguousarray(signed_counts, np.int64), state)


class SplitHistogram:
    """Counts values up to a limit and values above it separately, in one pass.

    This gives the histograms of a tensor and of its Clip(0, limit), bit for bit as counting each of them would. Several
    threads may add values at a time.

    Attributes:
        limit: Upper bound of the Clip, above zero; infinity for none.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = float(np.float32(limit))
        self._state = _empty_state()
        self._rows = 2 if math.isinf(limit) else 3
        self._counts = np.zeros((self._rows, BINS), np.uint32)  # half of what int64 takes, in memory and in time
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
        made._earlier, made._state = (counts, state), state.copy()
        return made

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
                counts[row] += _folded(earlier[row], int(self._state[row]), int(state[row]))
        return counts

    def add(self, values: ArrayLike) -> None:
        """Count values of any shape.

        Raises:
            NonFiniteError: A value is NaN or infinite; the histogram is then incomplete and must be discarded, unless
                the values after those that were counted are added in another form.
        """
        _count_in_tables(values, self._count)

    def _count(self, part: NDArray[np.float32], tables: NDArray[np.uint32], own: NDArray[np.int64]) -> int:
        bits = part.view(np.int32)
        # One compiled call where no other thread is at this tensor: after each, a thread waits for the interpreter.
        if self._lock.acquire(blocking=False):
            try:
                if self._packed is None and self._held + part.size <= kernels.MOST:
                    self._held += part.size
                    return kernels.accumulate_and_join(part, bits, self.limit, tables, own, self._counts, self._state)
            finally:
                self._lock.release()
        index = kernels.accumulate(part, bits, self.limit, tables, own, self._state)
        with self._lock:
            self._join(tables, own, part.size)
        return index

    def _join(self, tables: NDArray[np.uint32], own: NDArray[np.int64], values: int) -> None:
        """Add tables of at most so many values; the counts make way first where uint32 might not hold both."""
        if self._packed is not None:
            counts = self._packed.unpacked()
            kernels.join(tables, own, self.limit, counts, self._state)
            self._packed = PackedCounts.of(counts)
            return
        if self._held + values > kernels.MOST:
            self._earlier, self._held = (self._all_counts(), self._state.copy()), 0
            self._counts[:] = 0
        kernels.join(tables, own, self.limit, self._counts, self._state)
        self._held += values

    def whole(self) -> Histogram:
        """The histogram of the values."""
        found = self._all_counts()
        counts, state = found[:2].copy(), self._state.copy()
        if len(found) > 2:
            above, below = int(state[kernels.ABOVE]), int(state[kernels.POSITIVE])
            widest = max(above, below)
            counts[kernels.POSITIVE] = _folded(counts[kernels.POSITIVE], widest, below)
            counts[kernels.POSITIVE] += _folded(found[kernels.ABOVE], widest, above)
            state[kernels.POSITIVE] = widest
        state[kernels.ABOVE] = kernels.UNSET
        return Histogram(counts, state)

    def clipped(self) -> Histogram:
        """The histogram of the values clipped to [0, limit]."""
        found = self._all_counts()
        counts, state = found[:2].copy(), self._state.copy()
        state[kernels.ABOVE] = kernels.UNSET
        for slot in (kernels.MIN_KEY, kernels.MAX_KEY):
            state[slot] = min(int(state[slot]), _key_from_value(self.limit))
        kept = Histogram(counts, state).rectified()
        at_limit = int(found[kernels.ABOVE].sum()) if len(found) > 2 else 0
        if at_limit:  # then the positive row is already wide enough for the limit
            kept.signed_counts[kernels.POSITIVE, int(self.limit / kept.widths[1])] += at_limit
        return kept


def _joined_rows(first: Histogram, second: Histogram, sign: int) -> tuple[NDArray[np.int64], int]:
    """The sum of two histograms' counts of one sign, and its exponent."""
    exponents = int(first._state[sign]), int(second._state[sign])
    widest = max(exponents)
    rows = (_folded(h.signed_counts[sign], widest, e) for h, e in zip((first, second), exponents, strict=True))
    return np.asarray(sum(rows), np.int64), widest


def _folded(row: NDArray[np.int64], exponent: int, own: int) -> NDArray[np.int64]:
    """A row with its bins joined to width 2^exponent, at least its own width; a row of only zeros fits any width."""
    return _folded_times(row, 0 if own == kernels.UNSET else exponent - own)


def _folded_times(row: NDArray[np.int64], times: int) -> NDArray[np.int64]:
    """A row with its bins joined in pairs, so many times."""
    if times == 0:
        return row
    folded = np.zeros_like(row)
    if times >= int(np.log2(BINS)):
        folded[0] = row.sum()
        return folded
    kept = BINS >> times
    folded[:kept] = row.reshape(kept, 1 << times).sum(axis=1)
    return folded
