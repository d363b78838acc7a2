"""Compiled loops over activations (numba). They release the GIL, so tensors can be counted in threads side by side.

Float32 values are compared through their bits: for a float with bits ``b``, ``b ^ ((b >> 31) & 0x7fffffff)`` read as a
signed integer orders values exactly as the floats do, so one integer pass gives minimum, maximum and non-finite values,
and the compiler can vectorise it.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

CHUNK = 16384  # values: a chunk stays in the L2 cache between the pass for extremes and the pass that counts
INFINITY_KEY = 0x7F800000  # order key of +inf; keys from here on, or up to -INFINITY_KEY - 1, are not finite
MIN_EXPONENT = -120  # smallest bin width 2^-120: keeps 1 / width a float32
UNSET = MIN_EXPONENT - 1  # exponent of a row that holds nothing but zeros

# Rows of counts: magnitudes of negative values, of zero and positive ones, of those above a limit.
NEGATIVE, POSITIVE, ABOVE = range(3)
# Slots of the integer state that `accumulate` keeps between calls; the first three are the rows' exponents.
ZEROS, MIN_KEY, MAX_KEY, STARTED = range(3, 7)
STATE_SLOTS = 7


@numba.njit(nogil=True, cache=True)
def _fold(row: NDArray[np.int64]) -> None:
    """Double the bin width of a row in place: each new bin is the sum of two neighbours."""
    half = row.size // 2
    for i in range(half):
        row[i] = row[2 * i] + row[2 * i + 1]
    for i in range(half, row.size):
        row[i] = 0


@numba.njit(nogil=True, cache=True)
def _make_room(row: NDArray[np.int64], state: NDArray[np.int64], slot: int, largest: int, log2_bins: int) -> None:
    """Widen a row's bins until they hold the magnitude with these float32 bits."""
    if largest <= 0:
        return
    needed = max((largest >> 23) - 126 - log2_bins, MIN_EXPONENT)
    if state[slot] == UNSET:  # only zeros so far: they stay in bin 0 of any width
        state[slot] = needed
    while state[slot] < needed:
        _fold(row)
        state[slot] += 1


@numba.njit(nogil=True, cache=True)
def _extremes(bits: NDArray[np.int32]) -> tuple[int, int, int]:
    """Smallest and largest order key and the number of zeros of the float32 values with these bits."""
    low, high, zeros = np.int32(0x7FFFFFFF), np.int32(-0x80000000), np.int32(0)
    for b in bits:
        key = b ^ ((b >> np.int32(31)) & np.int32(0x7FFFFFFF))
        low = min(low, key)
        high = max(high, key)
        zeros += np.int32((b & np.int32(0x7FFFFFFF)) == np.int32(0))
    return low, high, zeros


@numba.njit(nogil=True, cache=True)
def accumulate(  # noqa: PLR0912 - one loop, so that a chunk is read from memory once
    values: NDArray[np.float32],
    bits: NDArray[np.int32],
    limit: float,
    counts: NDArray[np.int64],
    state: NDArray[np.int64],
) -> int:
    """Count values into histograms that grow by doubling.

    Args:
        values: float32 [n], contiguous.
        bits: The same memory as int32 [n].
        limit: Values above it go to the third row; infinity for none.
        counts: int64 [rows, bins], edited; see the row names above. Two rows will do without a limit.
        state: int64 [STATE_SLOTS], edited.

    Returns:
        -1, or the flat index of the first NaN or infinity, at whose chunk counting stopped.
    """
    log2_bins = int(np.log2(counts.shape[1]))
    limit32 = np.float32(limit)
    limit_bits = np.array([limit32]).view(np.int32)[0]
    negative, positive, above = counts[NEGATIVE], counts[POSITIVE], counts[counts.shape[0] - 1]
    for start in range(0, values.size, CHUNK):
        stop = min(start + CHUNK, values.size)
        low, high, zeros = _extremes(bits[start:stop])
        low = np.int32(0) if low == -1 else low  # -0.0 counts as 0.0
        high = np.int32(0) if high == -1 else high
        if high >= INFINITY_KEY or low <= -INFINITY_KEY - 1:
            for i in range(start, stop):
                if (bits[i] & np.int32(INFINITY_KEY)) == np.int32(INFINITY_KEY):
                    return i
        if state[STARTED] == 0:
            state[MIN_KEY], state[MAX_KEY], state[STARTED] = low, high, 1
        else:
            state[MIN_KEY], state[MAX_KEY] = min(state[MIN_KEY], low), max(state[MAX_KEY], high)
        state[ZEROS] += zeros
        if low < 0:
            largest = (low ^ np.int32(0x7FFFFFFF)) & np.int32(0x7FFFFFFF)
            _make_room(negative, state, NEGATIVE, largest, log2_bins)
        _make_room(positive, state, POSITIVE, min(high, limit_bits), log2_bins)
        if high > limit_bits:
            _make_room(above, state, ABOVE, high, log2_bins)
        scale_negative = np.float32(2.0 ** -max(state[NEGATIVE], MIN_EXPONENT))
        scale_positive = np.float32(2.0 ** -max(state[POSITIVE], MIN_EXPONENT))
        scale_above = np.float32(2.0 ** -max(state[ABOVE], MIN_EXPONENT))
        if high <= limit_bits:
            for i in range(start, stop):
                value = values[i]
                if value < 0:
                    negative[np.uint32(-value * scale_negative)] += 1
                else:
                    positive[np.uint32(value * scale_positive)] += 1
        else:
            for i in range(start, stop):
                value = values[i]
                if value < 0:
                    negative[np.uint32(-value * scale_negative)] += 1
                elif value <= limit32:
                    positive[np.uint32(value * scale_positive)] += 1
                else:
                    above[np.uint32(value * scale_above)] += 1
    return -1
