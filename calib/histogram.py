"""Mergeable histogram of an activation.

Bins have width 2^k and start at zero. When a value falls outside, the width is doubled by adding neighbouring bins;
edges nest, so this is exact, and the smallest width that holds the largest magnitude is the one that remains. The
result therefore depends on the set of values alone: any batch size, order, shard or merge gives the same counts, and
memory does not grow with the number of images. The signs are counted apart, so that the histogram of a Relu's or a
Clip's output follows from that of its input.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib import _kernels as kernels
from calib.errors import CalibrationError, NonFiniteError

BINS = 8192  # for each sign; a power of two: at least the upper half of them is in use, 2^-12 of the range each


def _empty_state() -> NDArray[np.int64]:
    state = np.zeros(5, np.int64)
    state[kernels.EXPONENT] = kernels.UNSET
    return state


def _value_from_key(key: int) -> float:
    """The float32 whose order key this is (see `calib._kernels`); -0.0 gives 0.0."""
    bits = key if key >= 0 else (key ^ 0x7FFFFFFF)
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0]) + 0.0


def _key_from_value(value: float) -> int:
    bits = int(struct.unpack("<i", struct.pack("<f", value))[0])
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


@dataclass
class Histogram:
    """Counts of one tensor's values, by sign and magnitude, with the exact extremes beside them.

    Attributes:
        signed_counts: int64 [2, BINS]; row 0 negative values, row 1 zero and positive ones. Bin i holds magnitudes in
            [i * width, (i + 1) * width).
    """

    signed_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    _state: NDArray[np.int64] = field(default_factory=_empty_state)

    def add(self, values: ArrayLike) -> None:
        """Count values of any shape; other floating types are read as float32.

        Raises:
            NonFiniteError: A value is NaN or infinite; the histogram is then unfinished and must be dropped.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        index = kernels.accumulate(flat, flat.view(np.int32), self.signed_counts, self._state)
        if index >= 0:
            raise NonFiniteError(f"value {index} is {flat[index]}, expected a finite number", index=index)

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values together; neither operand is changed."""
        small, large = sorted((self, other), key=lambda h: int(h._state[kernels.EXPONENT]))
        counts, state = small.signed_counts, small._state.copy()
        exponent = int(large._state[kernels.EXPONENT])
        if state[kernels.EXPONENT] != kernels.UNSET:
            counts = _folded(counts, exponent - int(state[kernels.EXPONENT]))
        state[kernels.EXPONENT] = exponent
        state[kernels.ZEROS] += large._state[kernels.ZEROS]
        if state[kernels.STARTED] and large._state[kernels.STARTED]:
            state[kernels.MIN_KEY] = min(state[kernels.MIN_KEY], large._state[kernels.MIN_KEY])
            state[kernels.MAX_KEY] = max(state[kernels.MAX_KEY], large._state[kernels.MAX_KEY])
        elif large._state[kernels.STARTED]:
            state[kernels.MIN_KEY :] = large._state[kernels.MIN_KEY :]
        return Histogram(counts + large.signed_counts, state)

    @property
    def width(self) -> float:
        """Width of a bin, activation units; a power of two."""
        return float(2.0 ** max(int(self._state[kernels.EXPONENT]), kernels.MIN_EXPONENT))

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [BINS]: how many values have a magnitude in each bin; zeros are in bin 0."""
        return np.asarray(self.signed_counts.sum(axis=0), np.int64)

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
        cls, signed_counts: NDArray[np.int64], *, width: float, zeros: int, minimum: float, maximum: float
    ) -> Histogram:
        """Rebuild a histogram from what `signed_counts`, `width`, `zeros`, `min` and `max` gave.

        Raises:
            CalibrationError: The parts contradict each other.
        """
        exponent = round(np.log2(width)) if width > 0 else 0
        if signed_counts.shape != (2, BINS) or (signed_counts < 0).any() or width != 2.0**exponent:
            raise CalibrationError(
                f"expected counts of shape (2, {BINS}), none negative, and a bin width that is a power of two; "
                f"found shape {signed_counts.shape}, width {width}"
            )
        started = bool(signed_counts.any())
        if not (minimum <= maximum and max(abs(minimum), abs(maximum)) < BINS * width and zeros >= 0):
            raise CalibrationError(
                f"expected min <= max, both within {BINS} bins of {width}; found min {minimum}, max {maximum}"
            )
        unset = minimum == 0 == maximum
        state = np.array(
            [
                kernels.UNSET if unset else exponent,
                zeros,
                _key_from_value(minimum) if started else 0,
                _key_from_value(maximum) if started else 0,
                int(started),
            ],
            np.int64,
        )
        return cls(np.ascontiguousarray(signed_counts, np.int64), state)


def _folded(counts: NDArray[np.int64], times: int) -> NDArray[np.int64]:
    """Counts with the bin width doubled `times` times."""
    if times == 0:
        return counts
    folded = np.zeros_like(counts)
    if times >= int(np.log2(BINS)):
        folded[:, 0] = counts.sum(axis=1)
        return folded
    kept = BINS >> times
    folded[:, :kept] = counts.reshape(2, kept, 1 << times).sum(axis=2)
    return folded
