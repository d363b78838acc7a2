"""Entropy calibration: the amax whose INT8 distribution diverges least from the activation's.

The search is that of TensorRT's IInt8EntropyCalibrator2 (S. Migacz, "8-bit Inference with TensorRT", GTC 2017), with
the details recovered from caches that TensorRT 8.6.0 wrote: 2048 bins of |x|; the first bin is replaced by the second;
for each i in 128..2048 the kept distribution P is bins [0, i) with everything beyond added to its last bin, and Q
spreads the same bins over 128 equal levels, each level's mass evenly over its non-empty bins; amax is
(i + 0.5) * width at the smallest KL(P || Q).

All candidates of a tensor follow from prefix sums: with p_j the bins of P and L_l, n_l the mass and the number of
non-empty bins of level l, the sum of p_j log q_j is a sum over the 128 levels of P_l log(L_l / n_l).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

BINS = 2048
LEVELS = 128
_TIE = 1e-12  # nats: divergences closer than this differ by rounding only


def rebinned(counts: NDArray[np.int64], width: float, limit: float, bins: int = BINS) -> NDArray[np.float64]:
    """Counts on another grid: `bins` equal bins over [0, limit]; a count is spread evenly over its bin.

    Args:
        counts: Counts by magnitude, bin i holding [i * width, (i + 1) * width).
        width: Width of a bin, activation units.
        limit: Upper edge of the new grid, activation units; nothing may lie above it.
        bins: Number of bins of the new grid.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    last = int(np.flatnonzero(counts)[-1]) if counts.any() else 0
    edges = np.arange(len(counts) + 1) * width
    edges[last + 1 :] = np.maximum(limit, edges[last]) + np.arange(len(counts) - last) * width
    return np.diff(np.interp(np.linspace(0.0, limit, bins + 1), edges, cumulative))


@numba.njit(nogil=True, cache=True)
def _best_candidate(counts: NDArray[np.float64], levels: int) -> int:
    """The i in levels..len(counts) with the smallest KL(P || Q), the last one where several are equal.

    Equal ones occur where values are few: with a single non-empty bin kept, P and Q are the same whatever is clipped.
    """
    bins = counts.size
    mass = np.zeros(bins + 1)  # prefix sums: of counts, of non-empty bins, of c log c
    filled = np.zeros(bins + 1)
    entropy = np.zeros(bins + 1)
    for j in range(bins):
        c = counts[j]
        mass[j + 1] = mass[j] + c
        filled[j + 1] = filled[j] + (1.0 if c > 0 else 0.0)
        entropy[j + 1] = entropy[j] + (c * np.log(c) if c > 0 else 0.0)
    total = mass[bins]
    best, smallest = bins, np.inf
    for i in range(levels, bins + 1):
        tail = total - mass[i]
        last = counts[i - 1] + tail
        if mass[i] <= 0 or (last > 0 and counts[i - 1] <= 0):
            continue  # Q has no mass where P has some: the divergence is infinite
        p_log_p = entropy[i - 1] + (last * np.log(last) if last > 0 else 0.0)
        p_log_q = 0.0
        start = 0
        for level in range(levels):
            stop = (level + 1) * i // levels
            kept = mass[stop] - mass[start]
            if kept > 0:
                q = np.log(kept / (filled[stop] - filled[start]))
                p_log_q += (kept + (tail if level == levels - 1 else 0.0)) * q
            start = stop
        divergence = (p_log_p - p_log_q) / total + np.log(mass[i] / total)
        if divergence <= smallest + _TIE:
            best, smallest = i, min(divergence, smallest)
    return best


def entropy_amax_from_counts(counts: NDArray[np.float64], width: float) -> float:
    """The search over one grid of BINS bins of |x| from zero; returns amax in activation units."""
    searched = counts.copy()
    searched[0] = searched[1]
    return float((_best_candidate(searched, LEVELS) + 0.5) * width)
