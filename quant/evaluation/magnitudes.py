"""Channels of one output in groups of one magnitude: pixels beside scores, metres beside angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAP = 10.0  # channels whose root mean squares differ by this factor, with nothing between, are of another magnitude
_STRAY = 0.02  # quiet channels that are fewer than this share are dead features, not a quantity of their own


def groups_by_magnitude(rms: NDArray[np.float64], channels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Channels in groups of one magnitude, the quietest first: a new one begins where the next channel is far louder.

    Few quiet ones among many, such as the dead features of an embedding, are put to the next louder group.

    Args:
        rms: Root mean square of each channel of the output.
        channels: Those to group.
    """
    ordered = channels[np.argsort(rms[channels], kind="stable")]
    loud = rms[ordered]
    cuts = np.flatnonzero(loud[1:] > _GAP * np.maximum(loud[:-1], np.finfo(np.float64).tiny)) + 1
    groups: list[NDArray[np.int64]] = []
    waiting: list[NDArray[np.int64]] = []
    for part in np.split(ordered, cuts):
        waiting.append(part)
        if sum(map(len, waiting)) >= _STRAY * len(channels):
            groups.append(np.concatenate(waiting))
            waiting = []
    return groups + waiting  # few loud ones stay alone: they would hide the others
