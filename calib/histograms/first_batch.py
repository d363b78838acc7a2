"""A histogram of |x| as TensorRT's entropy calibrator builds it: its range comes from the first batch.

There are 2048 bins over [0, R], where R is max |x| of the first batch in float32. Before a later batch that exceeds R,
neighbouring bins are added in pairs and R is doubled until the batch fits. The first batch's maximum is counted in the
last bin. The result depends on which images come first, and on the batch size. The rule was recovered from caches of
TensorRT 8.6.0, and reproduces them to float32 rounding on all 224 tensors of three models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.entropy import SEARCH_BINS, entropy_amax_from_counts
from calib.errors import CalibrationError
from calib.native.functions import NativeFunction

_count = NativeFunction("calib.loops.first_batch", "count_magnitudes", "pidipi")


@dataclass
class FirstBatchHistogram:
    """Counts of one tensor on TensorRT's grid.

    Batches may come in parts: pass the largest magnitude of the whole first batch to `open` before adding its parts.

    Attributes:
        counts: int64 [SEARCH_BINS], counts by magnitude; bin 0 has no meaning, since it is never read.
        limit: Upper edge of the last bin, activation units, a float32; 0 until a non-zero value is known.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SEARCH_BINS, np.int64))
    limit: float = 0.0
    _at_edge: int = 0  # values of this batch that were exactly at the edge, and were clamped into the last bin

    def open(self, largest: float) -> None:
        """Set the range to the largest magnitude of the first batch that is not all zero."""
        if not self.limit:
            self.limit = float(np.float32(largest))

    def start_batch(self) -> None:
        """Start a new batch: the parts added from now on belong to it."""
        self._at_edge = 0

    def add(self, values: ArrayLike, largest: float) -> None:
        """Count the values of a batch, or of a part of one.

        Args:
            values: Finite values of any shape.
            largest: Their largest magnitude.
        """
        self.open(largest)
        if not self.limit:
            return
        while largest > self.limit:
            self._double()
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        per_unit = self._bins_per_unit()
        single = isinstance(per_unit, np.float32)
        self._at_edge += _count(
            flat.ctypes.data, flat.size, float(per_unit), int(single), self.counts.ctypes.data, self.counts.size
        )

    def _bins_per_unit(self) -> np.floating[Any]:
        """The number of bins per activation unit: a float32, as in TensorRT, if that is finite."""
        fits = SEARCH_BINS / self.limit <= float(np.finfo(np.float32).max)
        kind: type[np.floating[Any]] = np.float32 if fits else np.float64
        found: np.floating[Any] = kind(SEARCH_BINS) / kind(self.limit)
        return found

    def _double(self) -> None:
        # TensorRT doubles before it counts a batch. Here, values at the old edge in an earlier part of the same batch
        # were clamped into the last bin; on the doubled grid they belong one bin higher.
        self.counts[SEARCH_BINS - 1] -= self._at_edge
        joined = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.concatenate([joined, np.zeros(SEARCH_BINS // 2, np.int64)])
        self.counts[SEARCH_BINS // 2] += self._at_edge
        self._at_edge = 0
        self.limit = float(np.float32(self.limit * 2))

    def amax(self) -> float:
        """TensorRT's entropy amax, activation units; 0 when only zeros were seen."""
        return entropy_amax_from_counts(self.counts, self.limit / SEARCH_BINS) if self.limit else 0.0

    @classmethod
    def from_parts(cls, counts: NDArray[np.int64], limit: float) -> FirstBatchHistogram:
        """Rebuild from `counts` and `limit`.

        Raises:
            CalibrationError: The parts do not belong to such a histogram.
        """
        if (
            counts.shape != (SEARCH_BINS,)
            or (counts < 0).any()
            or counts.sum(dtype=np.float64) > 1 << 53
            or not (np.isfinite(limit) and limit >= 0)
        ):
            raise CalibrationError(f"expected {SEARCH_BINS} counts and a finite range, found {counts.shape}, {limit}")
        return cls(np.ascontiguousarray(counts, np.int64), limit)


def largest_magnitude(values: ArrayLike) -> float:
    """Max |x| as float32; 0 for an empty array."""
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return float(max(flat.max(), -flat.min())) if flat.size else 0.0
