"""Overlap of maps with masks: counts of pixels by image and class, and the figures of any draw of the images.

Intersection over union is that of PASCAL VOC (M. Everingham et al., 2010, "The PASCAL Visual Object Classes (VOC)
Challenge"): pixels of all images together, by class; the mean is that of the classes that occur in masks or maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixels of images, by class: whole numbers [N, C] each.

    Attributes:
        right: Of the class, and answered so.
        answered: Answered so.
        there: Of the class.
    """

    right: NDArray[Any]
    answered: NDArray[Any]
    there: NDArray[Any]

    @property
    def images(self) -> int:
        """How many images."""
        return len(self.there)

    def drawn(self, weights: Ints) -> Counts:
        """The sums of draws, given how often each image was drawn, int64 [D, N]."""
        draws = weights.astype(np.float64)  # exact up to 2**53 pixels, and a product of floats is quick
        return Counts(draws @ self.right, draws @ self.answered, draws @ self.there)

    def overlaps(self) -> Floats:
        """Intersection over union of each class, per cent, float64 [rows, C]; NaN of classes that do not occur."""
        union = self.answered + self.there - self.right
        return 100 * share_of(self.right, union)

    def accuracy(self) -> Floats:
        """Pixels that are right, per cent, float64 [rows]; NaN without pixels."""
        total = self.there.sum(axis=1)
        return 100 * share_of(self.right.sum(axis=1), total)


def counts_of_image(answer: NDArray[Any], truth: NDArray[Any], classes: int) -> tuple[Ints, Ints, Ints]:
    """Pixels that are right, answered and there, by class: int64 [classes] each.

    Args:
        answer: The class of each pixel; -1 for none.
        truth: The same of the mask; -1 where no class counts, and pixels there are left out of all three.
        classes: How many there are; larger numbers must not occur.
    """
    counted = truth >= 0
    answered, there = answer[counted], truth[counted]
    right = there[answered == there]
    return (
        np.bincount(right, minlength=classes),
        np.bincount(answered[answered >= 0], minlength=classes),
        np.bincount(there, minlength=classes),
    )


def gathered(parts: Sequence[tuple[Ints, Ints, Ints]], classes: int) -> Counts:
    """The counts of images one below the other."""
    arrays = [np.zeros((len(parts), classes), np.int64) for _ in range(3)]
    for i, part in enumerate(parts):
        for array, values in zip(arrays, part, strict=True):
            array[i, : len(values)] = values
    return Counts(*arrays)


def mean_overlap(overlaps: Floats) -> Floats:
    """The mean over the classes that occur, float64 [rows]; NaN where none does."""
    occurs = np.isfinite(overlaps)
    total = np.where(occurs, overlaps, 0).sum(axis=1)
    return share_of(total, occurs.sum(axis=1))


def share_of(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Each part of its whole; NaN where that is 0."""
    found: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return found
