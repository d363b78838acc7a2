"""From a histogram to amax: minmax, percentile, entropy, mse.

Each algorithm is a pure function of a histogram and a frozen dataclass that holds its parameters. amax is the largest
magnitude kept, in activation units; the INT8 scale is amax / 127.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calib.entropy import entropy_amax_from_fine_counts
from calib.errors import CalibrationError
from calib.histograms.first_batch import FirstBatchHistogram
from calib.histograms.histogram import Histogram
from calib.histograms.statistics import Statistics
from calib.names import ALGORITHMS
from calib.native.functions import NativeFunction
from calib.processors import usable_processors

_PRODUCT_PERCENTILE = 99.99
_MSE_JOINED = 4  # histogram bins in one bin of the MSE search
_mse_search = NativeFunction("calib.loops.mse", "best_amax", "pi")
ZERO_AMAX = 1.0  # amax of an all-zero tensor: any positive scale represents it, and TensorRT refuses 0


def minmax_amax(histogram: Histogram) -> float:
    """Amax = max |x|: nothing is clipped. Equals TensorRT's IInt8MinMaxCalibrator."""
    return histogram.abs_max


def percentile_amax(histogram: Histogram, percentile: float = 99.99) -> float:
    """Amax = the percentile of |x|, interpolated within its bin.

    Equals TensorRT's IInt8LegacyCalibrator with quantile = percentile / 100 and regression cutoff 1.0. If that
    percentile is zero because almost all values are, amax is max |x|, since a scale must be positive.
    """
    counts = histogram.counts
    cumulative = np.cumsum(counts)
    target = percentile / 100 * float(cumulative[-1])
    i = int(np.searchsorted(cumulative, target, side="left"))
    i = min(i, len(counts) - 1)
    before = float(cumulative[i] - counts[i])
    inside = (target - before) / float(counts[i]) if counts[i] else 1.0
    if i == 0 and target <= histogram.zeros:
        return histogram.abs_max
    return min((i + inside) * histogram.width, histogram.abs_max)


def entropy_amax(histogram: Histogram) -> float:
    """Amax with the smallest KL divergence between the activation and its INT8 version, see `calib.entropy`."""
    return entropy_amax_from_fine_counts(histogram.counts, histogram.width)


def mse_amax(histogram: Histogram) -> float:
    """Amax that minimises the squared error of rounding to the INT8 grid and clipping, estimated from the histogram.

    Four bins of the histogram are joined into one, and each value counts as the centre of its joined bin. Zeros cost
    nothing, since zero is on every grid.
    """
    counts = histogram.counts
    counts[0] -= histogram.zeros
    coarse = counts.reshape(-1, _MSE_JOINED).sum(axis=1)
    used = int(np.flatnonzero(coarse)[-1]) + 1 if coarse.any() else 0
    best = _mse_search(coarse.ctypes.data, used) * _MSE_JOINED * histogram.width
    return min(best, histogram.abs_max)


@dataclass(frozen=True)
class MinMax:
    """The whole range of the data."""

    name: ClassVar[str] = "minmax"

    def amax(self, histogram: Histogram) -> float:
        """Largest magnitude kept, activation units."""
        return minmax_amax(histogram) or ZERO_AMAX


@dataclass(frozen=True)
class Percentile:
    """A percentile of |x|.

    Attributes:
        percentile: Per cent of the values kept, above 0 and up to 100.
    """

    percentile: float = 99.99
    name: ClassVar[str] = "percentile"

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise CalibrationError(f"percentile: expected a number above 0 and up to 100, found {self.percentile}")

    def amax(self, histogram: Histogram) -> float:
        """Largest magnitude kept, activation units."""
        return percentile_amax(histogram, self.percentile) or ZERO_AMAX


@dataclass(frozen=True)
class Entropy:
    """The smallest KL divergence, as in TensorRT's Entropy2.

    Attributes:
        match_tensorrt: Give TensorRT's own answer from a `FirstBatchHistogram`; it depends on the first batch.
    """

    match_tensorrt: bool = False
    name: ClassVar[str] = "entropy"

    def amax(self, histogram: Histogram | FirstBatchHistogram) -> float:
        """Largest magnitude kept, activation units."""
        if isinstance(histogram, FirstBatchHistogram):
            return histogram.amax() or ZERO_AMAX
        return entropy_amax(histogram) or ZERO_AMAX

    def product_floor(self, histogram: Histogram) -> float:
        """The smallest amax allowed for an input of a matrix product, activation units.

        Entropy calibration was made for convolutions. In a transformer, most values of a softmax or a GELU are close
        to zero, and the few large ones carry the information. The divergence weights them by their number and would
        clip them to a third of the range. So at most 0.01 % of such a tensor's values may be clipped.
        """
        return percentile_amax(histogram, _PRODUCT_PERCENTILE)


@dataclass(frozen=True)
class MSE:
    """The smallest mean squared error."""

    name: ClassVar[str] = "mse"

    def amax(self, histogram: Histogram) -> float:
        """Largest magnitude kept, activation units."""
        return mse_amax(histogram) or ZERO_AMAX


Algorithm = MinMax | Percentile | Entropy | MSE


def algorithm_from_name(name: str, percentile: float = 99.99, *, match_tensorrt: bool = False) -> Algorithm:
    """The algorithm of that name; only `Percentile` uses `percentile`, only `Entropy` uses `match_tensorrt`.

    Raises:
        CalibrationError: No algorithm has that name.
    """
    if name == Percentile.name:
        return Percentile(percentile)
    if name == Entropy.name:
        return Entropy(match_tensorrt)
    for kind in (MinMax, MSE):
        if name == kind.name:
            return kind()
    raise CalibrationError(f"algorithm: expected one of {', '.join(ALGORITHMS)}, found '{name}'")


def amax_from_statistics(statistics: Statistics, algorithm: Algorithm) -> dict[str, float]:
    """Largest magnitude kept of each tensor, activation units.

    Raises:
        CalibrationError: The algorithm is `Entropy(match_tensorrt=True)`, but the statistics were collected without it.
    """
    if isinstance(algorithm, Entropy) and algorithm.match_tensorrt:
        if statistics.first_batch is None:
            raise CalibrationError(
                "entropy to match TensorRT: expected histograms that start from the first batch, found none; "
                "recalibrate with match_tensorrt"
            )
        return {name: algorithm.amax(histogram) for name, histogram in statistics.first_batch.items()}
    digests = {name: histogram.digest() for name, histogram in statistics.histograms.items()}
    # Tensors that only move another's data have the same histogram: it is searched once.
    different = {digest: name for name, digest in digests.items()}
    with ThreadPoolExecutor(usable_processors()) as pool:  # the compiled searches release the GIL
        searched = pool.map(lambda name: algorithm.amax(statistics.histograms[name]), different.values())
        found = dict(zip(different, searched, strict=True))
    amax = {name: found[key] for name, key in digests.items()}
    if isinstance(algorithm, Entropy):
        for name in statistics.products:
            amax[name] = max(amax[name], algorithm.product_floor(statistics.histograms[name]))
    return amax
