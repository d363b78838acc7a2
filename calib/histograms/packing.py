"""Histograms of many tensors in little memory.

A histogram takes 128 KiB, so those of a model of 20,000 tensors would take gigabytes. Most counts are small, and of a
small tensor most are zero: packed, a histogram takes a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping

import numpy as np
from numpy.typing import NDArray

from calib.histograms.histogram import Histogram
from calib.histograms.packed_counts import PackedCounts

MANY = 1000  # histograms that take 128 MiB unpacked


class PackedHistograms(MutableMapping[str, Histogram]):
    """Histograms by name, packed: each look gives a histogram of its own, and a changed one must be put back."""

    def __init__(self) -> None:
        self._packed: dict[str, tuple[PackedCounts, NDArray[np.int64]]] = {}

    def __getitem__(self, name: str) -> Histogram:
        counts, state = self._packed[name]
        return Histogram(counts.unpacked(), state.copy())

    def __setitem__(self, name: str, histogram: Histogram) -> None:
        self._packed[name] = PackedCounts.of(histogram.signed_counts), histogram._state.copy()

    def __delitem__(self, name: str) -> None:
        del self._packed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, name: object) -> bool:
        return name in self._packed


def gathered(histograms: Iterable[tuple[str, Histogram]], expected: int) -> MutableMapping[str, Histogram]:
    """Histograms by name, in order; packed if many are expected.

    Args:
        histograms: Names and histograms, taken one at a time.
        expected: About how many there will be.
    """
    result: MutableMapping[str, Histogram] = PackedHistograms() if expected > MANY else {}
    for name, histogram in histograms:
        result[name] = histogram
    return result
