"""The effect of INT8 on a single tensor, from its histogram: the signal-to-noise ratio and the share clipped.

Values are assumed to be spread evenly within each bin. Under this assumption the sums are exact, however the bins and
the INT8 grid are aligned. The grid is that of symmetric INT8: steps of amax / 127, from -128 to 127 steps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from calib.histograms import kernels
from calib.histograms.histogram import Histogram
from calib.histograms.tables import BINS

_LEVELS = {kernels.NEGATIVE: 128.0, kernels.POSITIVE: 127.0}  # steps of the grid on either side of zero


def sqnr_db(histogram: Histogram, amax: float) -> float:
    """Signal-to-quantization-noise ratio of a tensor on its INT8 grid.

    Args:
        histogram: The tensor's values.
        amax: Largest magnitude kept, activation units, above 0.

    Returns:
        10 log10(sum of squares / sum of squared errors), dB; infinity for a tensor whose values are all zero.
    """
    signal = noise = 0.0
    for sign, levels in _LEVELS.items():
        width = histogram.widths[sign]
        counts = histogram.signed_counts[sign].astype(np.float64)
        if sign == kernels.POSITIVE:
            counts[0] -= histogram.zeros  # zero lies on the grid
        used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
        edges: NDArray[np.float64] = np.arange(used + 1, dtype=np.float64) * width
        signal += float(counts[:used] @ np.diff(edges**3)) / (3 * width)
        noise += float(counts[:used] @ np.diff(_integrated_error(edges, amax / 127, levels))) / width
    return 10 * math.log10(signal / noise) if signal and noise else math.inf


def _integrated_error(x: NDArray[np.float64], step: float, levels: float) -> NDArray[np.float64]:
    """Integral of (t - quantized t)^2 for t from 0 to x; a whole step around a level contributes step^3 / 12."""
    u = x / step
    level = np.minimum(np.rint(u), levels)
    return np.asarray(step**3 * (level / 12 + (u - level) ** 3 / 3))


def clipped_share(histogram: Histogram, amax: float) -> float:
    """Share of the values, 0..1, with a magnitude above amax; interpolated within the bin that holds amax."""
    if amax >= histogram.abs_max or not histogram.count:
        return 0.0
    counts, at = histogram.counts, amax / histogram.width
    bin_of = min(int(at), BINS - 1)
    above = float(counts[bin_of + 1 :].sum())
    inside = float(counts[bin_of]) - (histogram.zeros if bin_of == 0 else 0)
    return (above + inside * (1 - (at - bin_of))) / histogram.count


def coarse_counts(histogram: Histogram, most: int = 128) -> tuple[NDArray[np.int64], float]:
    """Counts of |x| in at most `most` bins, for a plot, and the bins' width; empty bins at the end are left out."""
    counts = histogram.counts
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 1
    joined = 1
    while used > most * joined:
        joined *= 2
    coarse = counts.reshape(-1, joined).sum(axis=1)
    return coarse[: -(-used // joined)], histogram.width * joined
