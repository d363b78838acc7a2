"""Counts in little memory: small integers, and only those that are not zero where that takes less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PackedCounts:
    """An array of counts, packed without loss.

    Attributes:
        shape: Of the array.
        places: Flat indices of the counts that are not zero, uint16 or uint32; None where all counts are kept.
        values: Those counts, or all of them, as the smallest unsigned integers that hold them.
    """

    shape: tuple[int, ...]
    places: NDArray[np.unsignedinteger[Any]] | None
    values: NDArray[np.unsignedinteger[Any]]

    @staticmethod
    def of(counts: NDArray[np.int64]) -> PackedCounts:
        """Pack counts, none of which is negative."""
        flat = counts.reshape(-1)
        kind = np.min_scalar_type(int(flat.max(initial=0)))
        where = np.min_scalar_type(max(flat.size - 1, 0))
        places = np.flatnonzero(flat)
        if places.size * (where.itemsize + kind.itemsize) < flat.size * kind.itemsize:
            return PackedCounts(counts.shape, places.astype(where), flat[places].astype(kind))
        return PackedCounts(counts.shape, None, flat.astype(kind))

    def unpacked(self) -> NDArray[np.int64]:
        """The counts, in an array of their own."""
        if self.places is None:
            return self.values.astype(np.int64).reshape(self.shape)
        flat = np.zeros(int(np.prod(self.shape)), np.int64)
        flat[self.places] = self.values
        return flat.reshape(self.shape)
