"""The compiled search of `calib.entropy`."""

from __future__ import annotations

import math

import numpy as np

from calib.native.compiler import Pointer, float64s, inlined, int64s

_STRIDE = 16  # of the first pass over the candidates
_TIE = 1e-12  # nats: above the rounding of the sums (1e-14), below any gap seen between candidates (1e-8)


def best_candidate(counts: int, bins: int, levels: int, min_kept: float, work: int) -> int:
    """The i in levels..bins with the smallest KL(P || Q); the last i if none qualifies, -1 if there is no mass.

    Let A be the kept mass, T the tail, N = A + T, b the mass of bin i - 1, S and C the mass and the number of non-empty
    bins of a level, and c the mass of a bin. Then:

        N KL = N log(A / N) + [(b + T) log(b + T) - b log b - T log(S / C of the last level)]
               + sum over levels of [sum of c log c - S log(S / C)]

    All sums are differences of prefix sums. Every level's bracket is at least 0, so a candidate is dropped as soon as
    its partial sum exceeds the best one.

    Args:
        counts: Address of int64 [bins].
        bins: See there.
        levels: Of Q.
        min_kept: Candidates that keep less than this share of the mass are left out.
        work: Address of float64 [5, bins + 1], to work in.
    """
    row = 8 * (bins + 1)
    mass, entropy = float64s(work), float64s(work + row)
    logs, divergences = float64s(work + 2 * row), float64s(work + 3 * row)
    filled, count = int64s(work + 4 * row), int64s(counts)
    mass[0] = entropy[0] = logs[0] = 0.0
    filled[0] = 0
    for j in range(bins):
        c = float(count[max(j, 1)])
        mass[j + 1] = mass[j] + c
        filled[j + 1] = filled[j] + (1 if c > 0 else 0)
        entropy[j + 1] = entropy[j] + (c * math.log(c) if c > 0 else 0.0)
        logs[j + 1] = math.log(j + 1.0)
    for i in range(bins + 1):
        divergences[i] = np.inf
    total = mass[bins]
    smallest = np.inf
    for step in (_STRIDE, 1):  # a good candidate found early lets most others be dropped early
        for i in range(bins, levels - 1, -step):
            if step == _STRIDE or (bins - i) % _STRIDE:
                bound = smallest + 2 * _TIE
                divergences[i] = _divergence(i, levels, total, mass, entropy, filled, logs, min_kept, bound)
                smallest = min(smallest, divergences[i])
    for i in range(bins, levels - 1, -1):
        if divergences[i] <= smallest + _TIE and divergences[i] < np.inf:
            return i
    return bins if total > 0 else -1


@inlined
def _divergence(
    i: int,
    levels: int,
    total: float,
    mass: Pointer,
    entropy: Pointer,
    filled: Pointer,
    logs: Pointer,
    min_kept: float,
    bound: float,
) -> float:
    """KL(P || Q) of candidate i, nats; infinite if the candidate is left out or is sure to exceed the bound."""
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
