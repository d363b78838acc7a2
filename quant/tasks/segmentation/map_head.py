"""Maps of classes: how an output says which class each pixel is of, and how that is read.

A map may be coarser than the model's input, as many networks leave it; scores are then interpolated to the input's size
before the class is taken, as evaluations do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from quant.errors import QuantError

Array = NDArray[Any]
Maps = NDArray[np.int32]
Kind = Literal["scores", "logit", "probability", "numbers"]
MOST_CLASSES = 1 << 12
_BAND_VALUES = 1 << 23  # interpolated at a time


@dataclass(frozen=True)
class MapHead:
    """How the class of each pixel is read.

    Attributes:
        output: The place of the output.
        name: Its name.
        axis: Its axis of images.
        kind: scores of all classes; a logit or a probability of the second of two; or the class's number itself.
        classes: How many classes; None where their numbers do not tell.
        channels_last: Is the last axis that of the classes?
    """

    output: int
    name: str
    axis: int
    kind: Kind
    classes: int | None
    channels_last: bool = False

    @property
    def text(self) -> str:
        """What it is, for people."""
        what = {
            "scores": f"scores of {self.classes} classes for each pixel",
            "logit": "a logit for each pixel",
            "probability": "a probability for each pixel",
            "numbers": "the number of each pixel's class",
        }[self.kind]
        return f"output '{self.name}', {what}"

    def planes(self, output: Array) -> Array:
        """The output as [images, channels, h, w]."""
        by_image = np.moveaxis(output, self.axis, 0)
        if by_image.ndim == 3:
            return by_image[:, None]
        return np.moveaxis(by_image, 3, 1) if self.channels_last else by_image

    def class_maps(self, outputs: Sequence[Array], size: tuple[int, int]) -> Maps:
        """The class of each pixel of the model's input, int32 [N, H, W].

        Raises:
            QuantError: What should be numbers of classes is none.
        """
        planes = self.planes(outputs[self.output])
        if self.kind == "numbers":
            return self._numbers(planes[:, 0], size)
        return np.stack([self._classes_of(plane, size) for plane in planes])

    def _numbers(self, planes: Array, size: tuple[int, int]) -> Maps:
        if planes.shape[1:] != size:
            rows, columns = (
                (np.arange(side) * 2 + 1) * given // (2 * side)
                for side, given in zip(size, planes.shape[1:], strict=True)
            )
            planes = planes[:, rows[:, None], columns]
        found = np.rint(planes)
        with np.errstate(invalid="ignore"):
            wrong = ~((found >= -1) & (found < MOST_CLASSES))
        if wrong.any():
            raise QuantError(
                f"output '{self.name}': expected numbers of classes from 0 to {MOST_CLASSES - 1}, found "
                f"{planes[wrong][0]:g}"
            )
        return found.astype(np.int32)

    def _classes_of(self, scores: Array, size: tuple[int, int]) -> Maps:
        """The best class of each pixel, from scores [C, h, w] that are interpolated where they are coarser."""
        if scores.shape[1:] == size:
            return self._best(scores)
        values = np.asarray(scores, np.float32)
        rows, columns = (_between(given, side) for given, side in zip(scores.shape[1:], size, strict=True))
        found = np.empty(size, np.int32)
        step = max(1, _BAND_VALUES // (len(scores) * size[1]))
        for top in range(0, size[0], step):
            first, second, share = (part[top : top + step] for part in rows)
            band = values[:, first] * (1 - share)[:, None] + values[:, second] * share[:, None]
            first, second, share = columns
            found[top : top + step] = self._best(band[..., first] * (1 - share) + band[..., second] * share)
        return found

    def _best(self, scores: Array) -> Maps:
        if self.kind == "scores":
            best: Maps = scores.argmax(axis=0).astype(np.int32)
            return best
        above: Maps = (scores[0] > (0.5 if self.kind == "probability" else 0)).astype(np.int32)
        return above


def _between(given: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Between which of the given places each of `side` lies, and how far: bilinear, corners not aligned."""
    at = np.clip((np.arange(side) + 0.5) * given / side - 0.5, 0, given - 1)
    first = np.floor(at).astype(np.int64)
    return first, np.minimum(first + 1, given - 1), (at - first).astype(np.float32)
