"""Judging candidates by images that had no part in making them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.backend import Runnable
from quant.evaluation.fidelity import channel_axis
from quant.evaluation.magnitudes import groups_by_magnitude
from quant.evaluation.outputs import OutputReader

Array = NDArray[Any]
Inputs = Mapping[str, Array]

_STANDARD_ERRORS = 2.0  # a gain's mean must exceed this many


@dataclass(frozen=True)
class _Part:
    """Channels of one output that are judged together.

    Attributes:
        output: The output's place.
        axis: The axis of its channels, with the images first; 0 where it has none.
        channels: Which channels; None for all.
        signal: Mean square sum of an image.
    """

    output: int
    axis: int
    channels: NDArray[np.int64] | None
    signal: float

    def of(self, by_image: Array) -> Array:
        """The part of an output, [images, values]."""
        taken = by_image if self.channels is None else by_image.take(self.channels, axis=self.axis)
        return taken.astype(np.float64).reshape(len(by_image), -1)


@dataclass(frozen=True)
class Judgement:
    """What the outputs of a candidate tell.

    Attributes:
        noise: Relative noise of each image; see `Judge.noise`.
        changed: Images whose answer differs from FP32's, and of how many; None where no output answers classes.
        lost: Points of top-1 lost; None without labels.
    """

    noise: NDArray[np.float64]
    changed: tuple[int, int] | None
    lost: float | None


class Judge:
    """Holds the outputs of candidates against FP32's, image by image.

    The noise of an image is the sum over all outputs, and within them over the channels of one magnitude, of the
    squared error relative to the signal: what is worst leads, however small its values are. Of class numbers it is the
    share that differs.
    """

    def __init__(
        self,
        baseline: Runnable,
        batches: Sequence[Inputs],
        reader: OutputReader,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        """Run the baseline.

        Args:
            baseline: FP32.
            batches: Inputs of the images.
            reader: How the outputs are read.
            labels: int64 [N], of all images; None where they have none, or where no output answers classes.
        """
        self.batches, self._reader, self._labels = batches, reader, labels
        self._expected = [self._by_image(baseline.run(batch)) for batch in batches]
        self._parts = [part for place in reader.compared for part in self._split(place)]
        self._numbers = [place for place in reader.readable if place not in reader.compared]

    @property
    def images(self) -> int:
        """How many images judge."""
        return sum(len(next(iter(outputs.values()))) for outputs in self._expected)

    def halves(self) -> tuple[Judge, Judge]:
        """Two judges by half of the batches each, with the same measure of noise; both by all where there is one."""
        middle = (len(self.batches) + 1) // 2
        return self._of(slice(0, middle)), self._of(slice(middle if len(self.batches) > 1 else 0, None))

    def _of(self, part: slice) -> Judge:
        made = copy(self)
        made.batches, made._expected, made._labels = self.batches[part], self._expected[part], None
        return made

    def noise(self, runnable: Runnable) -> NDArray[np.float64]:
        """Relative noise of each image; infinite where an output is not finite and FP32's is.

        Raises:
            ModelError: The candidate does not run.
        """
        return self.judgement(runnable).noise

    def judgement(self, runnable: Runnable) -> Judgement:
        """Noise, and what becomes of the answers.

        Raises:
            ModelError: The candidate does not run.
        """
        noise, answers = [], []
        for batch, expected in zip(self.batches, self._expected, strict=True):
            outputs = self._by_image(runnable.run(batch))
            noise.append(self._noise(outputs, expected))
            answers.append((self._answers(outputs), self._answers(expected)))
        if self._reader.scores is None or not answers:
            return Judgement(np.concatenate(noise) if noise else np.zeros(0), None, None)
        mine, right = (np.concatenate(arrays) for arrays in zip(*answers, strict=True))
        changed = int((mine != right).sum()), len(mine)
        lost = None
        if self._labels is not None:
            lost = 100 * float((right == self._labels).mean() - (mine == self._labels).mean())
        return Judgement(np.concatenate(noise), changed, lost)

    def _noise(self, outputs: Mapping[int, Array], expected: Mapping[int, Array]) -> NDArray[np.float64]:
        total = np.zeros(len(next(iter(expected.values()))))
        for part in self._parts:
            mine, right = part.of(outputs[part.output]), part.of(expected[part.output])
            with np.errstate(invalid="ignore"):
                error = np.where(mine == right, 0, np.square(mine - right))
            total += np.nan_to_num(error, nan=np.inf).sum(axis=1) / part.signal
        for place in self._numbers:
            total += (outputs[place] != expected[place]).reshape(len(total), -1).mean(axis=1)
        return total

    def _answers(self, outputs: Mapping[int, Array]) -> NDArray[np.int64]:
        scores = self._reader.scores
        return scores.answers(outputs[scores.output]) if scores is not None else np.zeros(0, np.int64)

    def _by_image(self, outputs: Sequence[Any]) -> dict[int, Array]:
        return {place: self._reader.layouts[place].by_image(outputs[place]) for place in self._reader.readable}

    def _split(self, place: int) -> list[_Part]:
        arrays = [outputs[place] for outputs in self._expected]
        axis = channel_axis(arrays[0])
        scores = self._reader.scores is not None and self._reader.scores.output == place
        whole = np.concatenate([np.where(np.isfinite(array), array, 0).astype(np.float64) for array in arrays])
        channels: list[NDArray[np.int64] | None] = [None]
        if axis and not scores:
            others = tuple(i for i in range(whole.ndim) if i != axis)
            rms = np.sqrt(np.square(whole).mean(axis=others))
            channels = [*groups_by_magnitude(rms, np.flatnonzero(rms))] or [None]
        parts = [_Part(place, axis, chosen, 1.0) for chosen in channels]
        signals = [float(np.square(part.of(whole)).sum(axis=1).mean()) for part in parts]
        return [_Part(place, axis, p.channels, s) for p, s in zip(parts, signals, strict=True) if s]


def level_db(noise: NDArray[np.float64]) -> float:
    """The mean noise of some images as a signal to noise ratio, dB."""
    mean = float(noise.mean()) if len(noise) else 0.0
    return float(-10 * np.log10(mean)) if mean else float("inf")


def is_beyond_chance(gain: NDArray[np.float64]) -> bool:
    """Whether the mean of a gain, image by image, exceeds 0 by more than its own uncertainty."""
    if len(gain) < 2 or not np.isfinite(gain).all():
        return bool(len(gain) > 1 and np.isposinf(gain).any() and not np.isneginf(gain).any())
    return bool(gain.mean() > _STANDARD_ERRORS * gain.std(ddof=1) / np.sqrt(len(gain)))
