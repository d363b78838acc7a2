"""The compiled search of `calib.algorithms.mse_amax`."""

from __future__ import annotations

import numpy as np

from calib.native.compiler import Pointer, inlined, int64s

_STEP = 16  # amax in bins, between the first tries


@inlined
def _squared_error(counts: Pointer, bins: int, amax: float) -> float:
    """Sum of squared errors, in squared bin widths, of the bin centres on a grid of 127 steps up to amax bins."""
    step = amax / 127.0
    error = 0.0
    for j in range(bins):
        if counts[j] > 0:
            x = j + 0.5
            difference = x - min(np.rint(x / step), 127.0) * step
            error += counts[j] * (difference * difference + 1.0 / 12.0)
    return error


def best_amax(counts: int, bins: int) -> int:
    """The amax in bins, 1..bins, with the smallest error: tries every 16th, then all around the best one.

    Args:
        counts: Address of int64 [bins].
        bins: See there.
    """
    count = int64s(counts)
    best, smallest = bins, np.inf
    for amax in range(_STEP, bins + 1, _STEP):
        error = _squared_error(count, bins, float(amax))
        if error < smallest:
            best, smallest = amax, error
    for amax in range(max(best - _STEP + 1, 1), min(best + _STEP - 1, bins) + 1):
        error = _squared_error(count, bins, float(amax))
        if error < smallest:
            best, smallest = amax, error
    return best
