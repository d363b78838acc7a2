"""Entropy calibration: the amax whose INT8 version diverges least from the activation.

The search is that of TensorRT's IInt8EntropyCalibrator2 (S. Migacz, "8-bit Inference with TensorRT", GTC 2017). Its
details were recovered from caches that TensorRT 8.6.0 wrote; docs/entropy.md shows how well each detail fits.

There are 2048 bins of |x|; bin 0 takes the count of bin 1. For each i in 128..2048, the kept distribution P is bins
[0, i), with the mass beyond them added to bin i - 1. Q spreads the same bins, without that mass, over 128 levels: bin j
belongs to level floor(128 j / i), and a level's mass is spread evenly over its non-empty bins. A candidate whose bin
i - 1 is empty while there is mass beyond it diverges infinitely. A candidate with a single non-empty bin is left out.
The smallest KL(P || Q) wins, with the largest i among equals, and amax is (i + 0.5) bin widths. If no candidate is
left, i = 2048.

The range of the bins decides which of several shallow minima wins. TensorRT's own range is max |x| of its first batch,
doubled whenever a later batch needs it: `calib.histograms.first_batch` keeps such a histogram. `entropy_amax` does not
depend on the order: it searches several grids whose ranges lie where TensorRT's may lie, and takes the median.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calib.native.functions import NativeFunction

SEARCH_BINS = 2048
LEVELS = 128
MIN_KEPT = 0.5  # plain entropy keeps at least this share of the mass; on real networks TensorRT clipped at most 2 %

_search = NativeFunction("calib.loops.entropy", "best_candidate", "piidp")


def entropy_amax_from_counts(counts: NDArray[np.int64], width: float, min_kept: float = 0.0) -> float:
    """The search on one grid.

    Args:
        counts: int64 [SEARCH_BINS], counts by magnitude from zero.
        width: Width of a bin, activation units.
        min_kept: Candidates that keep less than this share of the mass are left out. TensorRT has no such bound: if
            nearly all values of a tensor are equal and the others are a little smaller, it clips to the smallest.

    Returns:
        Amax in activation units; 0 if bin 0 holds everything.
    """
    best = _best_candidate(np.ascontiguousarray(counts, np.int64), LEVELS, min_kept)
    return (best + 0.5) * width if best > 0 else 0.0


def entropy_amax_from_fine_counts(counts: NDArray[np.int64], width: float) -> float:
    """The search on several grids made of whole bins of a finer histogram; the median of their answers.

    The grids' ranges run from the largest magnitude to twice that, because max |x| of a first batch, doubled until it
    holds all data, lies there. Joining whole bins keeps the counts exact. Splitting a bin's count between two bins
    would fill bins that are empty, and so change the number of non-empty bins in a level.

    Args:
        counts: int64 [n], counts by magnitude from zero. For full resolution the largest magnitude must lie in the
            upper half.
        width: Width of a bin, activation units.

    Returns:
        Amax in activation units; 0 if only zeros were counted.
    """
    occupied = np.flatnonzero(counts)
    if not len(occupied):
        return 0.0
    used = int(occupied[-1]) + 1
    smallest = -(-used // SEARCH_BINS)
    factors = np.arange(smallest, max(round(2 * used / SEARCH_BINS), smallest) + 1)
    if len(factors) % 2 == 0:
        factors = factors[1:]  # an odd number of answers has a middle one
    answers = [entropy_amax_from_counts(_joined(counts, int(f)), float(f * width), MIN_KEPT) for f in factors]
    return float(np.median(answers))


def _joined(counts: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """Counts on SEARCH_BINS bins, each made of `factor` old ones."""
    whole = np.zeros(SEARCH_BINS * factor, np.int64)
    kept = min(len(whole), len(counts))
    whole[:kept] = counts[:kept]
    return np.asarray(whole.reshape(SEARCH_BINS, factor).sum(axis=1), np.int64)


def _best_candidate(counts: NDArray[np.int64], levels: int, min_kept: float) -> int:
    """The candidate i with the smallest divergence, see `calib.loops.entropy`; -1 if there is no mass."""
    bins = counts.size
    work = np.empty((5, bins + 1), np.float64)
    return _search(counts.ctypes.data, bins, levels, min_kept, work.ctypes.data)
