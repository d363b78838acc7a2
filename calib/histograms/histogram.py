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
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.errors import CalibrationError
from calib.histograms import kernels
from calib.histograms.tables import BINS, count_in_tables

MOST_VALUES = 1 << 53  # of a tensor; a petabyte of float32 has fewer
_SIGNS = (kernels.NEGATIVE, kernels.POSITIVE)


def _value_from_key(key: int) -> float:
    """The float32 whose order key this is (see `calib.histograms.kernels`); -0.0 gives 0.0."""
    bits = key if key >= 0 else (key ^ 0x7FFFFFFF)
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0]) + 0.0


def key_from_value(value: float) -> int:
    """The order key of a float32."""
    bits = int(struct.unpack("<i", struct.pack("<f", value))[0])
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


@dataclass
class Histogram:
    """Counts of one tensor's values, by sign and magnitude, with the exact extremes.

    Attributes:
        signed_counts: int64 [2, BINS]; row 0 counts negative values, row 1 zero and positive ones. Bin i of a row holds
            magnitudes in [i * width, (i + 1) * width), where width is that row's, see `widths`.
    """

    signed_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    _state: NDArray[np.int64] = field(default_factory=kernels.empty_state)

    def add(self, values: ArrayLike) -> None:
        """Count values of any shape; other floating types are read as float32.

        Raises:
            NonFiniteError: A value is NaN or infinite; the histogram is then incomplete and must be discarded.
        """
        place = kernels.place_of_counts(math.inf, self.signed_counts, self._state)
        count_in_tables(values, lambda part, tables: tables.run_one(kernels.job(part, place)))

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
            state[slot] = key_from_value(max(value, 0.0))
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
            state[slot] = key_from_value(float(np.float32(value) * np.float32(2.0**-times)))
        return Histogram(counts, state)

    def equals(self, other: Histogram) -> bool:
        """Whether both have the same contents."""
        return np.array_equal(self._state, other._state) and np.array_equal(self.signed_counts, other.signed_counts)

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
            total += folded(self.signed_counts[sign], exponent, int(self._state[sign]))
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
        state = kernels.empty_state()
        for sign, seen in ((kernels.NEGATIVE, minimum < 0), (kernels.POSITIVE, maximum > 0)):
            state[sign] = exponents[sign] if seen else kernels.UNSET
        state[kernels.ZEROS] = zeros
        if signed_counts.any():
            state[kernels.MIN_KEY :] = key_from_value(minimum), key_from_value(maximum), 1
        return cls(np.ascontiguousarray(signed_counts, np.int64), state)


def _joined_rows(first: Histogram, second: Histogram, sign: int) -> tuple[NDArray[np.int64], int]:
    """The sum of two histograms' counts of one sign, and its exponent."""
    exponents = int(first._state[sign]), int(second._state[sign])
    widest = max(exponents)
    rows = (folded(h.signed_counts[sign], widest, e) for h, e in zip((first, second), exponents, strict=True))
    return np.asarray(sum(rows), np.int64), widest


def folded(row: NDArray[np.int64], exponent: int, own: int) -> NDArray[np.int64]:
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
