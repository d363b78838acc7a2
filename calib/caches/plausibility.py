"""Checking whether a cache's scales suit the data: format and names do not reveal crushed, inflated or swapped ones.

TensorRT accepts any positive scale. A cache without provenance is therefore compared with the activations of a few
images: each amax with the one that the cache's own algorithm gives on them. The limits come from TensorRT's own caches
of three nets (512 images) and caches of two nets by all algorithms, against 64 other images, three times each:

- the median ratio over a net's tensors is 0.99 to 1.18, and up to 1.66 on 8 images, where minmax sees fewer extremes;
- the median distance from it, in logarithms, is 0.01 to 0.14, and no tensor is further away than 9 times that and 1.6.
"""

from __future__ import annotations

import math
import statistics as figures
from collections.abc import Mapping
from dataclasses import dataclass

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.caches.cache import CalibrationCache
from calib.histograms.histogram import Histogram
from calib.histograms.statistics import Statistics

ENOUGH_IMAGES = 64  # more tell little more
# In all of TensorRT's own entropy caches examined, at most 1.004 % of a tensor's values are clipped.
MOST_CLIPPED = 0.05
LEAST_LEVELS = 2  # of 127: with fewer, an activation is little more than zero and its largest value
_ROUNDING = 1 + 1e-6  # a cache keeps scales as float32
_WHOLE = math.log(1.5)
_FEWER_IMAGES = 0.15  # the limit for the whole grows with this power of 64 / images: 2.0 for 8
_SPREADS = 9
_NEAREST, _FURTHEST = math.log(1.6), math.log(2.5)
_FEW_TENSORS = 8  # with fewer, their spread says nothing


@dataclass(frozen=True)
class ImplausibleScale:
    """A tensor whose scale does not suit the data.

    Attributes:
        tensor: Its name.
        amax: Largest magnitude that the cache keeps, activation units.
        expected: What the cache's algorithm keeps on the images, activation units.
        seen: Largest magnitude in the data, activation units.
        clipped: Share of the data's values above amax in magnitude, 0..1.
    """

    tensor: str
    amax: float
    expected: float
    seen: float
    clipped: float

    def __str__(self) -> str:
        if self.clipped > MOST_CLIPPED:
            return (
                f"'{self.tensor}' keeps values up to {self.amax:.3g}, but the images reach {self.seen:.3g} "
                f"({self.clipped:.0%} are clipped)"
            )
        return (
            f"'{self.tensor}' keeps values up to {self.amax:.3g}, {self.amax / self.expected:.2g} times the "
            f"{self.expected:.3g} that the images give"
        )


@dataclass(frozen=True)
class Plausibility:
    """What some images tell about a cache.

    Attributes:
        algo: The cache's algorithm.
        images: How many images they are.
        compared: How many tensors could be compared.
        ratio: Median of the cache's amax over those that the images give; 1 if none could be compared.
        odd: Tensors whose scale does not suit the images, the furthest first.
    """

    algo: str
    images: int
    compared: int
    ratio: float
    odd: tuple[ImplausibleScale, ...]

    @property
    def as_a_whole(self) -> bool:
        """Whether the scales as a whole have the magnitude of the images."""
        return abs(math.log(self.ratio)) <= _whole_limit(self.images)

    @property
    def text(self) -> str:
        """What is wrong, in a sentence without its end; empty if nothing is."""
        parts = []
        if not self.as_a_whole:
            parts.append(
                f"the scales as a whole do not suit the images: they are {self.ratio:.2g} times what {self.algo} gives "
                f"on {self.images} images (median of {self.compared} tensors)"
            )
        if self.odd:
            shown = ", ".join(map(str, self.odd[:3])) + (", ..." if len(self.odd) > 3 else "")
            parts.append(f"{len(self.odd)} of {self.compared} scales do not suit the images: {shown}")
        return "; ".join(parts)


def plausibility(
    cache: CalibrationCache, statistics: Statistics, expected: Mapping[str, float] | None = None
) -> Plausibility:
    """Compare a cache with some images.

    Args:
        cache: The cache.
        statistics: Statistics of the images, by the model's tensor names; tensors that are zero in them tell nothing.
        expected: What `expected_amax` gives for them, where several caches of an algorithm are compared.
    """
    if expected is None:
        expected = expected_amax(cache, statistics)
    kept = {
        tensor: (amax, expected[tensor])
        for tensor, amax in cache.amax.items()
        if tensor in expected and statistics.histograms[tensor].abs_max
    }
    if not kept:
        return Plausibility(_algo(cache), statistics.images, 0, 1.0, ())
    away = {tensor: math.log(amax / given) for tensor, (amax, given) in kept.items()}
    middle = figures.median(away.values())
    spread = figures.median(abs(distance - middle) for distance in away.values())
    most = min(max(_NEAREST, _SPREADS * spread), _FURTHEST) if len(away) >= _FEW_TENSORS else _FURTHEST
    # Tensors are judged beside the others as long as these have the right magnitude as a whole.
    limit = _whole_limit(statistics.images)
    usual = min(max(middle, -limit), limit)
    odd = []
    for tensor in sorted(away, key=lambda name: -abs(away[name] - usual)):
        amax, given = kept[tensor]
        histogram = statistics.histograms[tensor]
        clipped = _share_above(amax, histogram)
        seen = histogram.abs_max
        if clipped > MOST_CLIPPED or seen * 127 < LEAST_LEVELS * amax or abs(away[tensor] - usual) > most:
            odd.append(ImplausibleScale(tensor, amax, given, seen, clipped))
    return Plausibility(_algo(cache), statistics.images, len(kept), math.exp(middle), tuple(odd))


def expected_amax(cache: CalibrationCache, statistics: Statistics) -> dict[str, float]:
    """What the cache's own algorithm keeps of each tensor of the images, activation units."""
    return amax_from_statistics(statistics, algorithm_from_name(_algo(cache), cache.percentile or 99.99))


def _algo(cache: CalibrationCache) -> str:
    return "entropy" if cache.algo == "entropy1" else cache.algo


def implausible_scales(cache: CalibrationCache, statistics: Statistics) -> list[ImplausibleScale]:
    """Tensors whose scale does not suit the data, see `plausibility`."""
    return list(plausibility(cache, statistics).odd)


def _whole_limit(images: int) -> float:
    return _WHOLE + _FEWER_IMAGES * math.log(max(1.0, ENOUGH_IMAGES / max(images, 1)))


def _share_above(amax: float, histogram: Histogram) -> float:
    """Share of values beyond amax; the bin that holds it does not count, since amax is rounded."""
    counts = histogram.counts
    first = math.floor(min(amax * _ROUNDING / histogram.width, len(counts))) + 1
    return float(counts[first:].sum()) / histogram.count
