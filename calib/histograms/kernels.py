"""Compiled loops over activations (numba). They release the GIL, so several threads can count at the same time.

Float32 values are compared through their bits. For a float with bits ``b``, ``b ^ ((b >> 31) & 0x7fffffff)`` read as a
signed integer is its order key: the keys are ordered exactly as the floats are. One integer pass, which the compiler
can vectorise, therefore finds the minimum, the maximum and whether there are non-finite values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.histograms.compiled import compiled

CHUNK = 4096  # values; a chunk and its indices stay in the L1 cache between the loops over it
TABLES = 2  # values go to them in turn, so that equal values in a row need not wait for each other's increment
ROWS = 3
MOST = 1 << 30  # values that the tables may hold, since they count in uint32
INFINITY_KEY = 0x7F800000  # order key of +inf; keys >= this, or <= -INFINITY_KEY - 1, are not finite
MIN_EXPONENT = -120  # smallest bin width 2^-120, so that 1 / width fits a float32
UNSET = MIN_EXPONENT - 1  # exponent of a row that holds nothing but zeros

# Rows of counts: magnitudes of negative values, of zero and positive values, and of values above a limit.
NEGATIVE, POSITIVE, ABOVE = range(3)
# Slots of the integer state that `accumulate` keeps between calls; the first three are the rows' exponents.
ZEROS, MIN_KEY, MAX_KEY, STARTED = range(3, 7)
STATE_SLOTS = 7


@compiled
def _fold(row: NDArray[np.integer[Any]]) -> None:
    """Double the bin width of a row in place: each new bin is the sum of two neighbours."""
    half = row.size // 2
    for i in range(half):
        row[i] = row[2 * i] + row[2 * i + 1]
    for i in range(half, row.size):
        row[i] = 0


@compiled
def _make_room(tables: NDArray[np.uint32], state: NDArray[np.int64], row: int, largest: int, log2_bins: int) -> None:
    """Widen a row's bins until they hold the magnitude with these float32 bits."""
    needed = max((largest >> 23) - 126 - log2_bins, MIN_EXPONENT)
    if state[row] == UNSET:  # only zeros so far: they stay in bin 0 of any width
        state[row] = needed
    while state[row] < needed:
        for table in range(TABLES):
            _fold(tables[table, row])
        state[row] += 1


@compiled
def _keys(smallest: int, largest: int, unsigned: int) -> tuple[int, int]:
    """Smallest and largest order key of values; -0.0 is 0.0.

    Read as signed integers, the bits of positive floats keep their order, and those of negative floats lie below them
    in reverse order. So the largest signed integer is the largest positive value, and the largest unsigned integer is
    the negative value of largest magnitude. The smallest signed integer is needed only if all values have the same
    sign: it is the value closest to zero.

    Args:
        smallest: Smallest of the values' bits as signed integers.
        largest: Largest of them.
        unsigned: Largest of the values' bits as unsigned integers.
    """
    high = largest if largest >= 0 else smallest ^ np.int32(0x7FFFFFFF)
    negative = np.int32(unsigned)
    low = negative ^ np.int32(0x7FFFFFFF) if negative < 0 else smallest
    return (np.int32(0) if low == -1 else low), (np.int32(0) if high == -1 else high)


@compiled
def _index(
    values: NDArray[np.float32],
    bits: NDArray[np.int32],
    scales: NDArray[np.float32],
    bins: int,
    index: NDArray[np.uint32],
) -> tuple[int, int, int]:
    """Write each value's position in the flattened counts; gives the extreme order keys and the number of zeros.

    The positions are useless if the extremes need wider bins, or a row for values above a limit. The loop has no
    branches, so that it is vectorised. Every sum is made an int32 again, since numba adds two int32 to an int64, of
    which a register holds half as many.
    """
    smallest, largest, unsigned, zeros = np.int32(0x7FFFFFFF), np.int32(-0x80000000), np.uint32(0), np.int32(0)
    negative, positive = scales[NEGATIVE], scales[POSITIVE]
    one_row = np.int32(bins)
    for i in range(bits.size):  # numba does not vectorise a loop over the array itself
        b, value = bits[i], values[i]
        smallest = min(smallest, b)
        largest = max(largest, b)
        unsigned = max(unsigned, np.uint32(b))
        zeros = np.int32(zeros + np.int32((b & np.int32(0x7FFFFFFF)) == np.int32(0)))
        below = value < np.float32(0)
        scale = negative if below else positive
        index[i] = np.uint32(np.int32(abs(value) * scale) + (np.int32(0) if below else one_row))
    low, high = _keys(smallest, largest, unsigned)
    return low, high, zeros


@compiled
def _index_with_limit(
    values: NDArray[np.float32], limit: float, scales: NDArray[np.float32], bins: int, index: NDArray[np.uint32]
) -> None:
    """The positions alone, with a separate row for values above the limit."""
    negative, positive, above = scales[NEGATIVE], scales[POSITIVE], scales[ABOVE]
    one_row, two_rows = np.int32(bins), np.int32(2 * bins)
    for i in range(values.size):
        value = values[i]
        below, beyond = value < np.float32(0), value > limit
        scale = negative if below else (above if beyond else positive)
        offset = np.int32(0) if below else (two_rows if beyond else one_row)
        index[i] = np.uint32(np.int32(abs(value) * scale) + offset)


@compiled
def _scatter(index: NDArray[np.uint32], first: NDArray[np.uint32], second: NDArray[np.uint32]) -> None:
    """Add one at each position, in the two flattened tables alternately."""
    for i in range(index.size // 2):
        first[np.uint64(index[2 * i])] += np.uint32(1)
        second[np.uint64(index[2 * i + 1])] += np.uint32(1)
    if index.size % 2:
        first[np.uint64(index[index.size - 1])] += np.uint32(1)


@compiled
def _first_not_finite(bits: NDArray[np.int32]) -> int:
    """Position of the first NaN or infinity; there must be one."""
    i = 0
    while (bits[i] & np.int32(INFINITY_KEY)) != np.int32(INFINITY_KEY):
        i += 1
    return i


@compiled
def _largest(low: int, high: int, limit_bits: int) -> tuple[int, int, int]:
    """Bits of the largest magnitude of each row, zero for none, from the extreme order keys."""
    negative = (low ^ np.int32(0x7FFFFFFF)) & np.int32(0x7FFFFFFF) if low < 0 else np.int32(0)
    return negative, max(min(high, limit_bits), np.int32(0)), high if high > limit_bits else np.int32(0)


@compiled
def _extend(state: NDArray[np.int64], low: int, high: int, zeros: int) -> None:
    """Take in the extreme order keys and the zeros of some values."""
    if state[STARTED] == 0:
        state[MIN_KEY], state[MAX_KEY], state[STARTED] = low, high, 1
    else:
        state[MIN_KEY], state[MAX_KEY] = min(state[MIN_KEY], low), max(state[MAX_KEY], high)
    state[ZEROS] += zeros


@compiled
def accumulate(
    values: NDArray[np.float32],
    bits: NDArray[np.int32],
    limit: float,
    tables: NDArray[np.uint32],
    own: NDArray[np.int64],
    state: NDArray[np.int64],
) -> int:
    """Count values in tables whose bins grow by doubling; `join` adds them to a histogram and clears them.

    Args:
        values: float32 [n], contiguous, at most MOST.
        bits: The same memory as int32 [n].
        limit: Values above it go to the third row; infinity for none.
        tables: uint32 [TABLES, ROWS, bins], all zero, changed in place.
        own: The tables' state, int64 [STATE_SLOTS], set in place.
        state: The histogram's, which may grow in the meantime: its exponents are where those of the tables begin.

    Returns:
        -1, or the flat index of the first NaN or infinity; counting stops before its chunk.
    """
    bins = tables.shape[2]
    log2_bins = int(np.log2(bins))
    limit32 = np.float32(limit)
    limit_bits = np.array([limit32]).view(np.int32)[0]
    first, second = tables[0].reshape(ROWS * bins), tables[1].reshape(ROWS * bins)
    index = np.empty(CHUNK, np.uint32)
    scales = np.empty(ROWS, np.float32)
    own[:] = 0
    for row in range(ROWS):
        own[row] = state[row]
        scales[row] = 2.0 ** -max(own[row], MIN_EXPONENT)
    for start in range(0, values.size, CHUNK):
        stop = min(start + CHUNK, values.size)
        part = index[: stop - start]
        low, high, zeros = _index(values[start:stop], bits[start:stop], scales, bins, part)
        if high >= INFINITY_KEY or low <= -INFINITY_KEY - 1:
            return start + _first_not_finite(bits[start:stop])
        _extend(own, low, high, zeros)
        largest = _largest(low, high, limit_bits)
        widened = False
        for row in range(ROWS):
            if largest[row] > 0 and own[row] < max((largest[row] >> 23) - 126 - log2_bins, MIN_EXPONENT):
                widened = True
                _make_room(tables, own, row, largest[row], log2_bins)
                scales[row] = 2.0 ** -max(own[row], MIN_EXPONENT)
        if high > limit_bits:  # rare: of values that a Clip would cut, most chunks hold none
            _index_with_limit(values[start:stop], limit32, scales, bins, part)
        elif widened:
            _index(values[start:stop], bits[start:stop], scales, bins, part)
        _scatter(part, first, second)
    return -1


@compiled
def _last_bin(largest: int, exponent: int) -> int:
    """The bin of width 2^exponent that holds the magnitude with these float32 bits."""
    if (largest >> 23) == 0 or exponent == UNSET:  # denormals are smaller than the narrowest bin
        return 0
    return ((largest & 0x7FFFFF) | 0x800000) >> min(150 + exponent - (largest >> 23), 63)


@compiled
def join(
    tables: NDArray[np.uint32],
    own: NDArray[np.int64],
    limit: float,
    counts: NDArray[np.integer[Any]],
    state: NDArray[np.int64],
) -> None:
    """Add what `accumulate` has counted to a histogram, and clear the tables.

    Args:
        tables: uint32 [TABLES, ROWS, bins], changed in place.
        own: Their state, int64 [STATE_SLOTS]; its exponents are changed.
        limit: The limit that they were counted with.
        counts: uint32 or int64 [rows, bins], changed in place; they must be able to hold all values. See the row names
            above. Without a limit, two rows are enough.
        state: int64 [STATE_SLOTS] of the counts, changed in place.
    """
    if own[STARTED] == 0:
        return
    limit_bits = np.array([np.float32(limit)]).view(np.int32)[0]
    largest = _largest(own[MIN_KEY], own[MAX_KEY], limit_bits)
    for row in range(counts.shape[0]):
        if state[row] == UNSET:
            state[row] = own[row]
        elif own[row] != UNSET:
            while state[row] < own[row]:
                _fold(counts[row])
                state[row] += 1
            while own[row] < state[row]:
                for table in range(TABLES):
                    _fold(tables[table, row])
                own[row] += 1
        used = _last_bin(largest[row], own[row]) + 1
        total, first, second = counts[row, :used], tables[0, row, :used], tables[1, row, :used]
        for i in range(used):
            total[i] += np.int64(first[i]) + np.int64(second[i])
        first[:] = 0
        second[:] = 0
    _extend(state, own[MIN_KEY], own[MAX_KEY], own[ZEROS])


@compiled
def accumulate_and_join(
    values: NDArray[np.float32],
    bits: NDArray[np.int32],
    limit: float,
    tables: NDArray[np.uint32],
    own: NDArray[np.int64],
    counts: NDArray[np.integer[Any]],
    state: NDArray[np.int64],
) -> int:
    """`accumulate` and `join` in one call, with their arguments; gives what `accumulate` gives."""
    index = accumulate(values, bits, limit, tables, own, state)
    join(tables, own, limit, counts, state)
    return index
