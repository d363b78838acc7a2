"""What the compiled loops over activations count, and how they are called (`calib.loops.counting`).

They let other threads run, so several can count at the same time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.native.functions import NativeFunction

CHUNK = 4096  # values; a chunk and its indices stay in the L1 cache between the loops over it
TABLES = 2  # equal values in a row go to them in turn, and need not wait for each other's increment
ROWS = 3
MOST = 1 << 30  # values that the tables may hold, since they count in uint32
INFINITY_KEY = 0x7F800000  # order key of +inf; keys >= this, or <= -INFINITY_KEY - 1, are not finite
MIN_EXPONENT = -120  # smallest bin width 2^-120, so that 1 / width fits a float32
UNSET = MIN_EXPONENT - 1  # exponent of a row that holds nothing but zeros

# Rows of counts: magnitudes of negative values, of zero and positive values, and of values above a limit.
NEGATIVE, POSITIVE, ABOVE = range(3)
# Slots of the integer state that counts have; the first three are the rows' exponents. STARTED is 0 where there are no
# values yet; in the state of tables it is the number of tables that hold some.
ZEROS, MIN_KEY, MAX_KEY, STARTED = range(3, 7)
STATE_SLOTS = 7

# Fields of a job, all int64: an array of values, and where it is counted. Memory is named by its address.
VALUES, SIZE, LIMIT, COUNTS, COUNTED_ROWS, WIDE, STATE, TASK, FOUND = range(9)
JOB_FIELDS = 9
ACCUMULATE, JOIN = 1, 2  # of the TASK, which may be both
Place = tuple[int, int, int, int, int]  # LIMIT to STATE
Job = tuple[int, int, int, int, int, int, int, int, int]

_count = NativeFunction("calib.loops.counting", "count_jobs", "pipippp", sources=("calib.histograms.kernels",))


def load() -> None:
    """Load the compiled loops; otherwise the first call does."""
    _count.load()


def empty_state() -> NDArray[np.int64]:
    """The state of counts that hold nothing."""
    state = np.zeros(STATE_SLOTS, np.int64)
    state[:ZEROS] = UNSET
    return state


class Tables:
    """Where values are counted first: small enough to stay in the caches.

    Attributes:
        counts: uint32 [TABLES, ROWS, bins]; all zero, except between ACCUMULATE and JOIN.
        state: int64 [STATE_SLOTS].
    """

    def __init__(self, counts: NDArray[np.uint32], state: NDArray[np.int64]) -> None:
        self.counts, self.state = counts, state
        self._index, self._scales = np.empty(CHUNK, np.uint32), np.empty(ROWS, np.float32)
        self._addresses = (
            address(counts),
            counts.shape[2],
            address(state),
            address(self._index),
            address(self._scales),
        )

    @classmethod
    def of(cls, bins: int) -> Tables:
        """Tables with nothing in them."""
        return cls(np.zeros((TABLES, ROWS, bins), np.uint32), empty_state())

    def run(self, jobs: NDArray[np.int64]) -> int:
        """Do jobs in one compiled call; their arrays must stay where they are meanwhile.

        Args:
            jobs: int64 [jobs, JOB_FIELDS]. Of each, FOUND is set: to -1, or to the flat index of the first NaN or
                infinity; counting stops before that value's chunk.

        Returns:
            How many of the jobs met such a value.
        """
        return _count(address(jobs), len(jobs), *self._addresses)

    def run_one(self, job: Job) -> int:
        """Do one job; gives its FOUND."""
        work = jobs([job])
        self.run(work)
        return int(work[0, FOUND])


def address(array: NDArray[Any]) -> int:
    """Where an array's memory begins."""
    found: int = array.__array_interface__["data"][0]  # half the time of `array.ctypes.data`
    return found


def place_of_counts(limit: float, counts: NDArray[Any], state: NDArray[np.int64]) -> Place:
    """The fields of a job that say where values are counted.

    Args:
        limit: Values above it go to the third row; infinity for none.
        counts: uint32 or int64 [rows, bins], which must be able to hold all values; two rows are enough without a
            limit. Changed in place.
        state: int64 [STATE_SLOTS] of the counts. Changed in place.

    Raises:
        ValueError: The arrays are not as described; compiled code would write beside them.
    """
    if not (
        counts.ndim == 2
        and counts.dtype in (np.uint32, np.int64)
        and state.dtype == np.int64
        and state.shape == (STATE_SLOTS,)
        and all(array.flags.carray for array in (counts, state))
    ):
        raise ValueError(f"expected contiguous counts and their state, found {counts.dtype}{counts.shape}")
    bits = struct.unpack("<i", struct.pack("<f", limit))[0]
    return bits, address(counts), len(counts), int(counts.dtype == np.int64), address(state)


def job(values: NDArray[np.float32], place: Place, task: int = ACCUMULATE | JOIN) -> Job:
    """A job.

    Args:
        values: float32, contiguous, at most MOST.
        place: Of the counts. The values may be anything if they are not counted.
        task: ACCUMULATE counts values in the tables, beginning at the exponents of the place's state, which may grow
            in the meantime. JOIN adds what the tables hold to the counts, and clears the tables.
    """
    return address(values), values.size, *place, task, -1


def jobs(each: Sequence[Job]) -> NDArray[np.int64]:
    """Jobs as `Tables.run` takes them."""
    return np.array(each, np.int64).reshape(-1, JOB_FIELDS)
