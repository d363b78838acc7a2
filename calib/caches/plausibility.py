"""Checking whether a cache's scales suit the data: the format and the names do not reveal crushed or inflated scales.

TensorRT accepts any positive scale. A cache without provenance is therefore compared with the activations of a few
images that are run anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from calib.caches.cache import CalibrationCache
from calib.histograms.statistics import Statistics

# In all of TensorRT's own entropy caches examined, at most 1.004 % of a tensor's values are clipped.
MOST_CLIPPED = 0.05
_ROUNDING = 1 + 1e-6  # a cache keeps scales as float32
LEAST_LEVELS = 2  # of 127: with fewer, an activation is little more than zero and its largest value


@dataclass(frozen=True)
class ImplausibleScale:
    """A tensor whose scale does not suit the data.

    Attributes:
        tensor: Its name.
        amax: Largest magnitude that the cache keeps, activation units.
        seen: Largest magnitude in the data, activation units.
        clipped: Share of the data's values above amax in magnitude, 0..1.
    """

    tensor: str
    amax: float
    seen: float
    clipped: float

    def __str__(self) -> str:
        return (
            f"'{self.tensor}' keeps values up to {self.amax:.3g}, but the images reach {self.seen:.3g} "
            f"({self.clipped:.0%} are clipped)"
        )


def implausible_scales(cache: CalibrationCache, statistics: Statistics) -> list[ImplausibleScale]:
    """Tensors whose scale clips more than a twentieth of the values, or uses fewer than two of the 127 levels.

    Args:
        cache: The cache.
        statistics: Statistics of some images, by the model's tensor names.
    """
    found = []
    for tensor, amax in cache.amax.items():
        histogram = statistics.histograms.get(tensor)
        if histogram is None or not histogram.abs_max:
            continue
        counts = histogram.counts
        # The bin that holds amax does not count. Rounding may have put amax just below a value that occurs often.
        beyond = counts[math.floor(min(amax * _ROUNDING / histogram.width, len(counts))) + 1 :].sum()
        clipped = float(beyond) / histogram.count
        if clipped > MOST_CLIPPED or histogram.abs_max * 127 < LEAST_LEVELS * amax:
            found.append(ImplausibleScale(tensor, amax, histogram.abs_max, clipped))
    return found
