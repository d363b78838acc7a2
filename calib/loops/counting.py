"""Compiled loops over activations.

Float32 values are compared through their bits. For a float with bits ``b``, ``b ^ ((b >> 31) & 0x7fffffff)`` read as a
signed integer is its order key: the keys are ordered exactly as the floats are. One integer pass, which the compiler
can vectorise, therefore finds the minimum, the maximum and whether there are non-finite values.

Arrays are addresses here, and `Pointer` stands for a pointer to elements of a type.
"""

from __future__ import annotations

import numpy as np

from calib.histograms.kernels import (
    ABOVE,
    ACCUMULATE,
    CHUNK,
    COUNTED_ROWS,
    COUNTS,
    FOUND,
    INFINITY_KEY,
    JOB_FIELDS,
    JOIN,
    LIMIT,
    MAX_KEY,
    MIN_EXPONENT,
    MIN_KEY,
    NEGATIVE,
    POSITIVE,
    ROWS,
    SIZE,
    STARTED,
    STATE,
    STATE_SLOTS,
    TABLES,
    TASK,
    UNSET,
    VALUES,
    WIDE,
    ZEROS,
)
from calib.native.compiler import Pointer, float32s, inlined, int32s, int64s, prefetch, uint32s

_SAMPLE = 256  # values of a chunk that tell whether equal ones follow each other
_OFTEN = 8  # one of so many does
_LINE = 16  # float32 values in a line of the caches


@inlined
def _fold(row: Pointer, bins: int) -> None:
    """Double the bin width of a row in place: each new bin is the sum of two neighbours."""
    half = bins // 2
    for i in range(half):
        row[i] = row[2 * i] + row[2 * i + 1]
    for i in range(half, bins):
        row[i] = 0


@inlined
def _row(tables: int, table: int, row: int, bins: int) -> int:
    """Address of a row of the tables."""
    return tables + 4 * bins * (table * ROWS + row)


@inlined
def _needed(largest: int, bins: int) -> int:
    """Exponent of the narrowest bins that hold the magnitude with these float32 bits."""
    log2_bins = 0
    while (2 << log2_bins) <= bins:
        log2_bins += 1
    return max((largest >> 23) - 126 - log2_bins, MIN_EXPONENT)


@inlined
def _make_room(tables: int, bins: int, state: Pointer, row: int, needed: int) -> None:
    """Widen a row's bins to 2^needed."""
    if state[row] == UNSET:  # only zeros so far: they stay in bin 0 of any width
        state[row] = needed
    while state[row] < needed:
        for table in range(TABLES):
            _fold(uint32s(_row(tables, table, row, bins)), bins)
        state[row] += 1


@inlined
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


@inlined
def _index(address: int, size: int, scales: Pointer, bins: int, index: Pointer) -> tuple[int, int, int]:
    """Write each value's position in the flattened counts; gives the extreme order keys and the number of zeros.

    The positions are useless if the extremes need wider bins, or a row for values above a limit. The loop has no
    branches, so that it is vectorised. Every sum is made an int32 again, since numba adds two int32 to an int64, of
    which a register holds half as many.
    """
    values, bits = float32s(address), int32s(address)
    smallest, largest, unsigned, zeros = np.int32(0x7FFFFFFF), np.int32(-0x80000000), np.uint32(0), np.int32(0)
    negative, positive = scales[NEGATIVE], scales[POSITIVE]
    one_row = np.int32(bins)
    for i in range(size):
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


@inlined
def _index_with_limit(address: int, size: int, limit_bits: int, scales: Pointer, bins: int, index: Pointer) -> None:
    """The positions alone, with a separate row for values above the limit."""
    values, bits = float32s(address), int32s(address)
    negative, positive, above = scales[NEGATIVE], scales[POSITIVE], scales[ABOVE]
    one_row, two_rows, limit = np.int32(bins), np.int32(2 * bins), np.int32(limit_bits)
    for i in range(size):
        value = values[i]
        below, beyond = value < np.float32(0), bits[i] > limit
        scale = negative if below else (above if beyond else positive)
        offset = np.int32(0) if below else (two_rows if beyond else one_row)
        index[i] = np.uint32(np.int32(abs(value) * scale) + offset)


@inlined
def _scatter(index: Pointer, size: int, first: Pointer, second: Pointer, following: int) -> None:
    """Add one at each position, in the two flattened tables alternately.

    Args:
        index: uint32 [size], the positions.
        size: How many.
        first: A table.
        second: Another one, or the same.
        following: Address of the values that come next: memory is read while the increments wait for each other.
    """
    for line in range(size // _LINE):
        prefetch(following + 4 * _LINE * line)
        for i in range(line * _LINE, (line + 1) * _LINE, 2):
            first[np.uint64(index[i])] += np.uint32(1)
            second[np.uint64(index[i + 1])] += np.uint32(1)
    for i in range(size // _LINE * _LINE, size):
        first[np.uint64(index[i])] += np.uint32(1)


@inlined
def _repeats(index: Pointer, size: int) -> bool:
    """Whether equal positions often follow each other, so that each increment would wait for the one before."""
    sample = min(size, _SAMPLE)
    same = np.int32(0)
    for i in range(sample - 1):
        same = np.int32(same + np.int32(index[i] == index[i + 1]))
    return _OFTEN * same >= sample


@inlined
def _first_not_finite(address: int) -> int:
    """Position of the first NaN or infinity; there must be one."""
    bits = int32s(address)
    i = 0
    while (bits[i] & np.int32(INFINITY_KEY)) != np.int32(INFINITY_KEY):
        i += 1
    return i


@inlined
def _largest(low: int, high: int, limit_bits: int, row: int) -> int:
    """Bits of the largest magnitude of a row, zero for none, from the extreme order keys."""
    if row == NEGATIVE:
        return (low ^ np.int32(0x7FFFFFFF)) & np.int32(0x7FFFFFFF) if low < 0 else np.int32(0)
    if row == POSITIVE:
        return max(min(high, limit_bits), np.int32(0))
    return high if high > limit_bits else np.int32(0)


@inlined
def _extend(state: Pointer, low: int, high: int, zeros: int) -> None:
    """Take in the extreme order keys and the zeros of some values."""
    if state[STARTED] == 0:
        state[MIN_KEY], state[MAX_KEY], state[STARTED] = low, high, 1
    else:
        state[MIN_KEY], state[MAX_KEY] = min(state[MIN_KEY], low), max(state[MAX_KEY], high)
    state[ZEROS] += zeros


@inlined
def _bits_of_scale(exponent: int) -> int:
    """Bits of the float32 that is the number of bins of width 2^exponent in a unit."""
    return np.int32((127 - max(exponent, MIN_EXPONENT)) << 23)


@inlined
def _accumulate(job: Pointer, tables: int, bins: int, own: Pointer, index: Pointer, scales: int) -> int:
    """Count a job's values in tables whose bins grow by doubling.

    Args:
        job: Its values are counted; the exponents of its state are where those of the tables begin.
        tables: uint32 [TABLES, ROWS, bins], all zero, changed in place.
        bins: See there.
        own: The tables' state, int64 [STATE_SLOTS], set in place.
        index: uint32 [CHUNK], to work in.
        scales: Address of float32 [ROWS], to work in.

    Returns:
        -1, or the flat index of the first NaN or infinity; counting stops before its chunk.
    """
    values, size, limit_bits, state = job[VALUES], job[SIZE], job[LIMIT], int64s(job[STATE])
    bits_of_scales, factors = int32s(scales), float32s(scales)
    for slot in range(STATE_SLOTS):
        own[slot] = 0
    for row in range(ROWS):
        own[row] = state[row]
        bits_of_scales[row] = _bits_of_scale(own[row])
    first = uint32s(tables)
    used = 1
    for start in range(0, size, CHUNK):
        part, many = values + 4 * start, min(CHUNK, size - start)
        low, high, zeros = _index(part, many, factors, bins, index)
        if high >= INFINITY_KEY or low <= -INFINITY_KEY - 1:
            return start + _first_not_finite(part)
        _extend(own, low, high, zeros)
        widened = False
        for row in range(ROWS):
            largest = _largest(low, high, limit_bits, row)
            needed = _needed(largest, bins)
            if largest > 0 and own[row] < needed:
                widened = True
                _make_room(tables, bins, own, row, needed)
                bits_of_scales[row] = _bits_of_scale(own[row])
        if high > limit_bits:  # rare: of values that a Clip would cut, most chunks hold none
            _index_with_limit(part, many, limit_bits, factors, bins, index)
        elif widened:
            _index(part, many, factors, bins, index)
        second = first  # one table fits into the L1 cache, where two may not
        if _repeats(index, many):
            used = TABLES
            second = uint32s(_row(tables, 1, 0, bins))
        _scatter(index, many, first, second, part + 4 * CHUNK)
        own[STARTED] = used
    return -1


@inlined
def _last_bin(largest: int, exponent: int) -> int:
    """The bin of width 2^exponent that holds the magnitude with these float32 bits."""
    if (largest >> 23) == 0 or exponent == UNSET:  # denormals are smaller than the narrowest bin
        return 0
    return ((largest & 0x7FFFFF) | 0x800000) >> min(150 + exponent - (largest >> 23), 63)


@inlined
def _join_row(tables: int, bins: int, own: Pointer, state: Pointer, row: int, largest: int, total: Pointer) -> None:
    """Add a row of the tables to that of a histogram, whose counts `total` points to, and clear it."""
    if state[row] == UNSET:
        state[row] = own[row]
    elif own[row] != UNSET:
        while state[row] < own[row]:
            _fold(total, bins)
            state[row] += 1
        while own[row] < state[row]:
            for table in range(own[STARTED]):
                _fold(uint32s(_row(tables, table, row, bins)), bins)
            own[row] += 1
    used = _last_bin(largest, own[row]) + 1
    for table in range(own[STARTED]):
        added = uint32s(_row(tables, table, row, bins))
        for i in range(used):
            total[i] += added[i]
            added[i] = 0


@inlined
def _join(job: Pointer, tables: int, bins: int, own: Pointer) -> None:
    """Add what `_accumulate` has counted to a job's counts, and clear the tables.

    Args:
        job: Its counts and their state are changed.
        tables: uint32 [TABLES, ROWS, bins], changed in place.
        bins: See there.
        own: Their state, int64 [STATE_SLOTS]; its exponents are changed.
    """
    if own[STARTED] == 0:
        return
    counts, state = job[COUNTS], int64s(job[STATE])
    for row in range(job[COUNTED_ROWS]):
        largest = _largest(own[MIN_KEY], own[MAX_KEY], job[LIMIT], row)
        if job[WIDE]:
            _join_row(tables, bins, own, state, row, largest, int64s(counts + 8 * bins * row))
        else:
            _join_row(tables, bins, own, state, row, largest, uint32s(counts + 4 * bins * row))
    _extend(state, own[MIN_KEY], own[MAX_KEY], own[ZEROS])


def count_jobs(jobs: int, amount: int, tables: int, bins: int, own: int, index: int, scales: int) -> int:
    """Do jobs, see `calib.histograms.kernels`.

    Args:
        jobs: int64 [amount, JOB_FIELDS]; FOUND is set to what `_accumulate` gives.
        amount: How many.
        tables: uint32 [TABLES, ROWS, bins].
        bins: Of each row, a power of two.
        own: int64 [STATE_SLOTS], the tables' state.
        index: uint32 [CHUNK], to work in.
        scales: float32 [ROWS], to work in.

    Returns:
        How many of the jobs met a value that is not finite.
    """
    broken = 0
    for j in range(amount):
        job = int64s(jobs + 8 * JOB_FIELDS * j)
        if job[TASK] & ACCUMULATE:
            job[FOUND] = _accumulate(job, tables, bins, int64s(own), uint32s(index), scales)
            broken += job[FOUND] >= 0
        if job[TASK] & JOIN:
            _join(job, tables, bins, int64s(own))
    return broken
