"""Whether an array is a model's input, some of them, or an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

_IMAGE_CHANNELS = (1, 3, 4)


class ModelInput(Protocol):
    """An input of a model."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def shape(self) -> tuple[int | str | None, ...]:
        """Sizes of its axes, the batch first; a name or None for a free axis."""

    @property
    def dtype(self) -> str:
        """NumPy's name for its type."""


def fit_of(shape: Sequence[int], dtype: np.dtype[np.generic], to: ModelInput) -> Literal["sample", "batch"] | None:
    """Is an array one sample of an input, a batch of them, or neither?

    Numbers are only taken as others of their kind: whole numbers do not become an input of floats, because they are
    more likely pixels that were never normalised.
    """
    if not _kind_fits(dtype, to.dtype):
        return None
    sides = to.shape[1:]
    if len(shape) == len(sides) and _sides_fit(shape, sides):
        return "sample"
    return "batch" if len(shape) == len(sides) + 1 and _sides_fit(shape[1:], sides) else None


def _kind_fits(found: np.dtype[np.generic], wanted: str) -> bool:
    try:
        kind = np.dtype(wanted).kind
    except TypeError:  # a type that NumPy does not have
        return False
    return found.kind in {"f": "f", "i": "iu", "u": "iu", "b": "b"}.get(kind, "")


def _sides_fit(shape: Sequence[int], sides: Sequence[int | str | None]) -> bool:
    return all(not isinstance(side, int) or side < 1 or side == found for found, side in zip(shape, sides, strict=True))


def is_image(shape: Sequence[int], dtype: np.dtype[np.generic]) -> bool:
    """Is this an image, [H, W], [H, W, C] or [C, H, W] of 1, 3 or 4 channels?"""
    if dtype.kind not in "iuf" or not all(shape):
        return False
    return len(shape) == 2 or (len(shape) == 3 and (shape[2] in _IMAGE_CHANNELS or shape[0] in _IMAGE_CHANNELS))


def as_image(array: NDArray[Any]) -> NDArray[Any]:
    """An image with its channels last, [H, W, C]."""
    if array.ndim == 2:
        return array[:, :, np.newaxis]
    return array if array.shape[2] in _IMAGE_CHANNELS else np.ascontiguousarray(array.transpose(1, 2, 0))


def in_words(inputs: Sequence[ModelInput]) -> str:
    """A model's inputs for a message: 'input' [N, 3, 224, 224] float32."""
    told = []
    for each in inputs:
        sides = [str(side) if isinstance(side, int) else "?" for side in each.shape[1:]]
        told.append(f"'{each.name}' [{', '.join(['N', *sides])}] {each.dtype}")
    return ", ".join(told)
