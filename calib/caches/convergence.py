"""How many images are enough: the scales that a part of the images would have given, from the same pass.

The statistics of the first k images are those of a pass over these k alone, exactly, because histograms only grow. So
the scales of k images cost one run of the algorithm and no second pass. How far they are from those of all images says
whether more images would still change anything.

A scale may move and change nothing: the entropy search has flat minima. So a scale that moved by more than 1 % is
judged by what it does to the tensor over all images: by how much the ratio of signal to quantization noise changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calib.algorithms import MSE, Algorithm, Entropy, amax_from_statistics
from calib.histograms.noise import sqnr_db
from calib.histograms.statistics import Statistics

SHARES = (0.75, 0.5, 0.25, 0.125)  # of the images, the most telling first
MOVED = 0.01  # of a scale: less is no move
SAME_NOISE_DB = 0.1  # a tensor's noise that changes by less stays the same
COST = 0.05  # of a calibration, which the runs of the algorithm may take together
_FREE_SECONDS = 0.1  # of one processor: below that, they may take any share

# Measured on one processor: a value through the model and into its histogram, and an algorithm on a tensor.
_SECONDS_A_VALUE = 2.2e-9
_SECONDS_A_TENSOR = {Entropy.name: 4e-3, MSE.name: 1.5e-3}
_SECONDS_OF_ANOTHER = 1e-3


@dataclass(frozen=True)
class ScalesOfPart:
    """How far the scales of the first images are from those of all.

    Attributes:
        images: How many images.
        tensors: So many scales were compared: all, or every so many of the graph where all would cost too much.
        moved: Number of scales that all images moved by more than `MOVED`.
        largest: Largest move of a scale, as a share of the final one, 0.05 for 5 %.
        median: Median of the moves.
        tensor: The tensor whose scale moved most.
        noise_db: Largest change of a tensor's SQNR over all images that the scales of these images would mean, dB; 0
            where none moved.
    """

    images: int
    tensors: int
    moved: int
    largest: float
    median: float
    tensor: str
    noise_db: float

    @property
    def suffices(self) -> bool:
        """Would these images have done?"""
        return not self.moved or self.noise_db < SAME_NOISE_DB


class ScalesOverImages:
    """Takes the scales at some numbers of images during a pass.

    How many are taken depends on what they cost against the pass, as counted, not timed, so that a run can be repeated:
    at least the last one, and of a small model's short pass that one for a part of the tensors.
    """

    def __init__(self, algorithm: Algorithm, images: int, batch_size: int = 1) -> None:
        """Prepare for a pass over about so many images; scales are taken at the ends of batches, the nearest ones."""
        self._algorithm, self._images, self._reach = algorithm, images, batch_size // 2
        self._due = [round(share * images) for share in reversed(SHARES)]
        self._taken: dict[int, dict[str, float]] = {}
        self._is_planned = False
        self._every = 1  # so manieth tensor is looked at

    def is_due(self, images: int) -> bool:
        """Are scales to be taken now that so many images are counted?"""
        return bool(self._due) and self._due[0] - self._reach <= images < self._images

    def take(self, statistics: Statistics) -> None:
        """Take the scales of what has been counted so far."""
        if not self._is_planned:
            runs, self._every = self._affordable(statistics)
            self._due = self._due[len(self._due) - runs :]
            self._is_planned = True
        if not self.is_due(statistics.images):
            return
        self._due = [images for images in self._due if images - self._reach > statistics.images]
        self._taken[statistics.images] = amax_from_statistics(self._looked_at(statistics), self._algorithm)

    def _looked_at(self, statistics: Statistics) -> Statistics:
        """The statistics of the tensors that are looked at."""
        if self._every == 1:
            return statistics
        some = dict(list(statistics.histograms.items())[:: self._every])
        first = statistics.first_batch
        return replace(
            statistics,
            histograms=some,
            products=statistics.products & some.keys(),
            first_batch=None if first is None else {name: first[name] for name in some},
        )

    def parts(self, statistics: Statistics, amax: Mapping[str, float]) -> tuple[ScalesOfPart, ...]:
        """How far the scales were from the final ones, the fewest images first.

        Args:
            statistics: Of all images.
            amax: The final scales times 127, activation units.
        """
        return tuple(
            _compared(images, early, amax, statistics)
            for images, early in sorted(self._taken.items())
            if images < statistics.images
        )

    def _affordable(self, statistics: Statistics) -> tuple[int, int]:
        """How many runs of the algorithm, over every so manieth tensor, cost no more than their share of the pass."""
        each = _SECONDS_A_TENSOR.get(self._algorithm.name, _SECONDS_OF_ANOTHER) * len(statistics.histograms)
        values = sum(histogram.count for histogram in statistics.histograms.values())
        whole = _SECONDS_A_VALUE * values * self._images / max(statistics.images, 1)
        share = max(COST * whole, _FREE_SECONDS) / max(each, 1e-9)
        return (min(len(SHARES), int(share)), 1) if share >= 1 else (1, math.ceil(1 / share))


def enough_images(parts: Sequence[ScalesOfPart]) -> int | None:
    """The fewest of the images that, like all larger numbers of them, would have done; None if the last did not."""
    enough = None
    for part in reversed(parts):
        if not part.suffices:
            break
        enough = part.images
    return enough


def _compared(
    images: int, early: Mapping[str, float], amax: Mapping[str, float], statistics: Statistics
) -> ScalesOfPart:
    shared = [name for name in amax if name in early]
    moves = {name: abs(early[name] / amax[name] - 1) for name in shared}
    moved = [name for name in shared if moves[name] > MOVED]
    worst = max(moves, key=moves.__getitem__) if moves else ""
    noise = 0.0
    for name in moved:
        histogram = statistics.histograms[name]
        change = sqnr_db(histogram, early[name]) - sqnr_db(histogram, amax[name])
        noise = max(noise, abs(change) if np.isfinite(change) else 0.0)
    return ScalesOfPart(
        images,
        len(shared),
        len(moved),
        moves.get(worst, 0.0),
        float(np.median(list(moves.values()))) if moves else 0.0,
        worst,
        noise,
    )
