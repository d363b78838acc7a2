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

import math

import numpy as np
from numpy.typing import NDArray

from calib.histograms.compiled import compiled, inlined

SEARCH_BINS = 2048
LEVELS = 128
MIN_KEPT = 0.5  # plain entropy keeps at least this share of the mass; on real networks TensorRT clipped at most 2 %
_STRIDE = 16  # of the first pass over the candidates
_TIE = 1e-12  # nats: above the rounding of the sums (1e-14), below any gap seen between candidates (1e-8)


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


@compiled
def _best_candidate(counts: NDArray[np.int64], levels: int, min_kept: float) -> int:
    """The i in levels..len(counts) with the smallest KL(P || Q); the last i if none qualifies, -1 if there is no mass.

    Let A be the kept mass, T the tail, N = A + T, b the mass of bin i - 1, S and C the mass and the number of non-empty
    bins of a level, and c the mass of a bin. Then:

        N KL = N log(A / N) + [(b + T) log(b + T) - b log b - T log(S / C of the last level)]
               + sum over levels of [sum of c log c - S log(S / C)]

    All sums are differences of prefix sums. Every level's bracket is at least 0, so a candidate is dropped as soon as
    its partial sum exceeds the best one.
    """
    bins = counts.size
    mass, entropy = np.zeros(bins + 1), np.zeros(bins + 1)
    filled = np.zeros(bins + 1, np.int64)
    logs = np.zeros(bins + 1)
    for j in range(bins):
        c = float(counts[max(j, 1)])
        mass[j + 1] = mass[j] + c
        filled[j + 1] = filled[j] + (1 if c > 0 else 0)
        entropy[j + 1] = entropy[j] + (c * math.log(c) if c > 0 else 0.0)
        logs[j + 1] = math.log(j + 1.0)
    total = mass[bins]
    divergences = np.full(bins + 1, np.inf)
    smallest = np.inf
    for step in (_STRIDE, 1):  # a good candidate found early lets most others be dropped early
        for i in range(bins, levels - 1, -step):
            if step == _STRIDE or (bins - i) % _STRIDE:
                divergences[i] = _divergence(i, levels, mass, entropy, filled, logs, min_kept, smallest + 2 * _TIE)
                smallest = min(smallest, divergences[i])
    for i in range(bins, levels - 1, -1):
        if divergences[i] <= smallest + _TIE and divergences[i] < np.inf:
            return i
    return bins if total > 0 else -1


@compiled
def _divergence(
    i: int,
    levels: int,
    mass: NDArray[np.float64],
    entropy: NDArray[np.float64],
    filled: NDArray[np.int64],
    logs: NDArray[np.float64],
    min_kept: float,
    bound: float,
) -> float:
    """KL(P || Q) of candidate i, nats; infinite if the candidate is left out or is sure to exceed the bound."""
    total = mass[-1]
    kept, tail, last = mass[i], total - mass[i], mass[i] - mass[i - 1]
    if filled[i] < 2 or (last <= 0 < tail) or kept < min_kept * total:
        return np.inf
    divergence = math.log(kept / total)
    if tail > 0:
        start = _level_start(levels - 1, i, levels)
        level_log = math.log(kept - mass[start]) - logs[filled[i] - filled[start]]
        joint = last + tail
        divergence += (joint * math.log(joint) - last * math.log(last) - tail * level_log) / total
    start = 0
    for level in range(levels):
        stop = _level_start(level + 1, i, levels)
        count = filled[stop] - filled[start]
        if count > 1:  # a level with one bin is exact
            level_mass = mass[stop] - mass[start]
            spread = level_mass * (math.log(level_mass) - logs[count])
            divergence += (entropy[stop] - entropy[start] - spread) / total
            if divergence > bound:
                return np.inf
        start = stop
    return divergence


@inlined
def _level_start(level: int, bins: int, levels: int) -> int:
    """The first bin j with floor(levels * j / bins) >= level."""
    return (level * bins + levels - 1) // levels
