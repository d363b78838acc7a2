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

# Slots of the integer state that `accumulate` keeps between calls.
EXPONENT, ZEROS, MIN_KEY, MAX_KEY, STARTED = range(5)
UNSET = MIN_EXPONENT - 1  # EXPONENT before any value other than zero was seen


@numba.njit(nogil=True, cache=True)
def _fold(counts: NDArray[np.int64], bins: int) -> None:
    """Double the bin width in place: each new bin is the sum of two neighbours; bin 0 is the innermost of each sign."""
    half = bins // 2
    for sign in range(2):
        for i in range(half):
            counts[sign, i] = counts[sign, 2 * i] + counts[sign, 2 * i + 1]
        for i in range(half, bins):
            counts[sign, i] = 0


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
def accumulate(
    values: NDArray[np.float32], bits: NDArray[np.int32], counts: NDArray[np.int64], state: NDArray[np.int64]
) -> int:
    """Count values into a signed histogram that grows by doubling.

    Args:
        values: float32 [n], contiguous.
        bits: The same memory as int32 [n].
        counts: int64 [2, bins], edited: row 0 negative values, row 1 zero and positive values, by magnitude.
        state: int64 [5], edited; see the slot names above.

    Returns:
        -1, or the flat index of the first NaN or infinity, at whose chunk counting stopped.
    """
    bins = counts.shape[1]
    log2_bins = int(np.log2(bins))
    for start in range(0, values.size, CHUNK):
        stop = min(start + CHUNK, values.size)
        low, high, zeros = _extremes(bits[start:stop])
        if high >= INFINITY_KEY or low <= -INFINITY_KEY - 1:
            for i in range(start, stop):
                if (bits[i] & np.int32(INFINITY_KEY)) == np.int32(INFINITY_KEY):
                    return i
        if state[STARTED] == 0:
            state[MIN_KEY], state[MAX_KEY], state[STARTED] = low, high, 1
        else:
            state[MIN_KEY], state[MAX_KEY] = min(state[MIN_KEY], low), max(state[MAX_KEY], high)
        state[ZEROS] += zeros
        largest = max(high, np.int32(0))  # bits of the largest magnitude of the chunk
        if low < 0:
            largest = max(largest, (low ^ np.int32(0x7FFFFFFF)) & np.int32(0x7FFFFFFF))
        if largest > 0:
            needed = max((largest >> 23) - 126 - log2_bins, MIN_EXPONENT)
            if state[EXPONENT] == UNSET:  # only zeros so far: they stay in bin 0 of any width
                state[EXPONENT] = needed
            while state[EXPONENT] < needed:
                _fold(counts, bins)
                state[EXPONENT] += 1
        inverse = np.float32(2.0 ** -max(state[EXPONENT], MIN_EXPONENT))
        for i in range(start, stop):
            value = values[i]
            counts[np.uint32(value < 0), np.uint32(abs(value) * inverse)] += 1
    return -1
