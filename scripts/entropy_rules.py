"""The entropy search from its definition, with one detail changed at a time; for `compare_entropy.py`."""

import numba
import numpy as np

from calib.entropy import LEVELS, SEARCH_BINS

RULE = {"edges": 0, "bin0": 0, "tail_in_q": False, "own_sum": True, "last": True, "fewest": 2}
VARIANTS = {
    "the rule (--match-tensorrt)": {},
    "level edges by floor(l i / 128)": {"edges": 1},
    "level edges rounded": {"edges": 2},
    "bin 0 kept": {"bin0": 1},
    "bin 0 zeroed": {"bin0": 2},
    "tail in Q too": {"tail_in_q": True},
    "Q not normalised by its own sum": {"own_sum": False},
    "first of equals": {"last": False},
    "candidates of one non-empty bin too": {"fewest": 1},
}


@numba.njit
def search(counts, edges, bin0, tail_in_q, own_sum, last, fewest):
    """The search of calib.entropy, from its definition, with one detail changed at a time."""
    b = counts.astype(np.float64)
    b[0] = b[1] if bin0 == 0 else (b[0] if bin0 == 1 else 0.0)
    total, best, smallest = b.sum(), -1, np.inf
    for i in range(LEVELS, SEARCH_BINS + 1):
        kept = b[:i].sum()
        tail = total - kept
        if (b[:i] > 0).sum() < fewest or (tail > 0 and b[i - 1] <= 0):
            continue
        value = 0.0
        for level in range(LEVELS):
            if edges == 0:
                lo, hi = (level * i + LEVELS - 1) // LEVELS, ((level + 1) * i + LEVELS - 1) // LEVELS
            elif edges == 1:
                lo, hi = level * i // LEVELS, (level + 1) * i // LEVELS
            else:
                lo, hi = int(level * i / LEVELS + 0.5), int((level + 1) * i / LEVELS + 0.5)
            mass = b[lo:hi].sum() + (tail if tail_in_q and hi == i else 0.0)
            filled = (b[lo:hi] > 0).sum()
            for j in range(lo, hi):
                if b[j] > 0:
                    p = (b[j] + (tail if j == i - 1 else 0.0)) / total
                    q_sum = total if tail_in_q or not own_sum else kept
                    value += p * np.log(p / (mass / filled / q_sum))
        if value < smallest - 1e-12 or (last and value <= smallest + 1e-12):
            best, smallest = i, min(value, smallest)
    return best
