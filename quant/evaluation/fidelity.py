"""How close a build's outputs are to the baseline's: signal to quantization noise of each output, and within it.

One figure over everything hides what is small: a detector's boxes in pixels drown its scores. So the SQNR is kept for
each output, and within an output for the channels of one magnitude together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.magnitudes import groups_by_magnitude
from quant.evaluation.outputs import OutputLayout, are_probabilities

Array = NDArray[Any]

LOWEST_DB = -100.0  # of outputs that are infinite or NaN where the baseline's are not
_SILENT = 1e-4  # channels that stay below this share of the output's peak carry nothing
_SILENT_SHARE = 0.1  # of values from 0 to 1 only: below a tenth of the largest, no threshold is crossed


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one output that are of one magnitude.

    Attributes:
        first: The first channel.
        last: The last channel.
        channels: How many they are; they need not be neighbours.
        sqnr_db: Their signal to quantization noise, dB.
    """

    first: int
    last: int
    channels: int
    sqnr_db: float

    @property
    def text(self) -> str:
        """Which channels these are."""
        return channels_text(self.first, self.last, self.channels)


@dataclass(frozen=True)
class OutputFidelity:
    """One output of a build beside the baseline's.

    Attributes:
        name: Its name.
        sqnr_db: Signal to quantization noise over all of it, dB; infinite when both are equal.
        groups: The same by channels of one magnitude, the worst first; empty where all are of one.
        worst_channel: The channel with the lowest SQNR of those that carry something; None where there is one channel.
        worst_channel_db: Its SQNR, dB.
        is_scores: Are these the class scores, which labels judge where there are any?
    """

    name: str
    sqnr_db: float
    groups: tuple[ChannelGroup, ...] = ()
    worst_channel: int | None = None
    worst_channel_db: float = math.inf
    is_scores: bool = False

    @property
    def floor_db(self) -> float:
        """The lowest SQNR of a group, or of the whole output, dB: what a judgement goes by."""
        return min((self.sqnr_db, *(group.sqnr_db for group in self.groups)))


class Noise:
    """Signal and noise of one output, summed over batches and kept by channel."""

    def __init__(self, layout: OutputLayout, *, whole: bool = False) -> None:
        """Start empty.

        Args:
            layout: How the output is read.
            whole: Judge it as a whole, as class scores are: of these only differences count, whatever their magnitude.
        """
        self._layout, self._whole = layout, whole
        self._axis: int | None = None
        self._signal: NDArray[np.float64] = np.zeros(1)
        self._noise: NDArray[np.float64] = np.zeros(1)
        self._peak: NDArray[np.float64] = np.zeros(1)
        self._least: NDArray[np.float64] = np.zeros(1)
        self._values = 0
        self._probabilities = True

    def add(self, mine: Array, baseline: Array) -> None:
        """Add a batch; the images come first in both."""
        if self._axis is None:
            self._axis = channel_axis(baseline)
            channels = baseline.shape[self._axis] if self._axis else 1
            self._signal, self._noise, self._peak, self._least = (np.zeros(channels) for _ in range(4))
        reference, found = baseline.astype(np.float64), mine.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.square(reference - found)
        error[(reference == found) | (np.isnan(reference) & np.isnan(found))] = 0  # equal infinities too
        reference = np.where(np.isfinite(reference), reference, 0)
        others = tuple(i for i in range(reference.ndim) if not self._axis or i != self._axis)
        self._signal += np.square(reference).sum(axis=others)
        self._noise += np.nan_to_num(error.sum(axis=others), nan=np.inf)
        self._peak = np.maximum(self._peak, np.abs(reference).max(axis=others, initial=0))
        self._least = np.minimum(self._least, reference.min(axis=others, initial=0))
        self._values += reference.size
        self._probabilities = self._probabilities and self._axis != 0 and are_probabilities(baseline, self._axis)

    @property
    def totals(self) -> tuple[float, float]:
        """Sum of squares of the baseline, and of the difference."""
        return float(self._signal.sum()), float(self._noise.sum())

    def result(self) -> OutputFidelity:
        """What was summed."""
        whole = sqnr_db(*self.totals)
        heard = self._heard()
        if self._probabilities or len(heard) < 2:  # of probabilities only the large ones count, which lead the sum
            return OutputFidelity(self._layout.name, whole, is_scores=self._whole)
        levels = [sqnr_db(self._signal[i], self._noise[i]) for i in heard]
        worst = int(np.argmin(levels))
        groups = (
            [] if self._whole else [self._group(part) for part in groups_by_magnitude(np.sqrt(self._signal), heard)]
        )
        return OutputFidelity(
            self._layout.name,
            whole,
            tuple(sorted(groups, key=lambda group: group.sqnr_db)) if len(groups) > 1 else (),
            int(heard[worst]),
            levels[worst],
            self._whole,
        )

    def _heard(self) -> NDArray[np.int64]:
        """The channels that carry something."""
        heard = self._peak > _SILENT * self._peak.max(initial=0)
        shares = (self._least >= 0) & (self._peak <= 1)
        heard[shares] &= self._peak[shares] > _SILENT_SHARE * self._peak[shares].max(initial=0)
        return np.flatnonzero(heard)

    def _group(self, channels: NDArray[np.int64]) -> ChannelGroup:
        level = sqnr_db(float(self._signal[channels].sum()), float(self._noise[channels].sum()))
        return ChannelGroup(int(channels.min()), int(channels.max()), len(channels), level)


def channels_text(first: int, last: int, channels: int) -> str:
    """A group's channels in words."""
    if channels == 1:
        return f"channel {first}"
    return (
        f"channels {first} to {last}" if channels == last - first + 1 else f"{channels} channels from {first} to {last}"
    )


def channel_axis(by_image: Array) -> int:
    """The axis of an output's channels: classes, or coordinates and scores; 0 where there is none.

    That is the axis whose values sum to 1 where they are probabilities; else the second one of [images, channels] and
    of maps; of [images, a, b], such as a detector's candidates, the shorter one.
    """
    inner = range(1, by_image.ndim)
    if by_image.dtype.kind != "f" or not inner:
        return 0
    certain = [axis for axis in inner if are_probabilities(by_image, axis)]
    if certain:
        return certain[-1]
    if by_image.ndim == 3:
        return 1 if by_image.shape[1] <= by_image.shape[2] else 2
    if by_image.ndim == 4 and by_image.shape[3] < by_image.shape[1]:
        return 3
    return 1


def sqnr_db(signal: float, noise: float) -> float:
    """Signal to quantization noise, dB, out of two sums of squares; infinite without noise."""
    if not noise:
        return math.inf
    if not signal or not math.isfinite(noise):
        return LOWEST_DB
    return max(10 * math.log10(signal / noise), LOWEST_DB)


def worst_output(fidelities: Sequence[OutputFidelity]) -> OutputFidelity | None:
    """The output whose worst part is the worst; None without any."""
    return min(fidelities, key=lambda fidelity: fidelity.floor_db, default=None)
