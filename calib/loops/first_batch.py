"""The compiled loop of `calib.histograms.first_batch`."""

from __future__ import annotations

import numpy as np

from calib.native.compiler import float32s, int64s


def count_magnitudes(values: int, size: int, bins_per_unit: float, single: int, counts: int, bins: int) -> int:
    """Count magnitudes, and return how many were clamped into the last bin.

    Args:
        values: Address of float32 [size].
        size: See there.
        bins_per_unit: Places are magnitudes times this.
        single: Not zero where that product is a float32.
        counts: Address of int64 [bins], changed in place.
        bins: See there.
    """
    value, count = float32s(values), int64s(counts)
    clamped = 0
    for i in range(size):
        magnitude = abs(value[i])
        product = magnitude * np.float32(bins_per_unit)
        place = np.float64(product) if single else np.float64(magnitude) * bins_per_unit
        if place < bins:  # compared as a float, since not every float fits into an integer
            count[np.int64(place)] += 1
        else:
            count[bins - 1] += 1
            clamped += 1
    return clamped
