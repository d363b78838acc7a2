"""Images that an evaluation can say nothing about: NaN in what the model is given, or in the answer that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.outputs import OutputReader

Array = NDArray[Any]


def images_with_nan(
    inputs: Mapping[str, Array], outputs: Sequence[Any], reader: OutputReader, names: Sequence[str]
) -> list[str]:
    """Names of a batch's images with NaN in an input or in the answer; infinities may be meant, as in masks.

    Args:
        inputs: Of the batch, images first.
        outputs: The FP32 model's.
        reader: How these are read; other outputs than the answer are compared value by value, NaN too.
        names: Of the images.
    """
    found = np.zeros(len(names), bool)
    for array in inputs.values():
        found |= _rows_with_nan(array, len(names))
    place = reader.scores.output if reader.scores is not None else reader.answer
    if place is not None:
        found |= _rows_with_nan(reader.layouts[place].by_image(outputs[place]), len(names))
    return [name for name, bad in zip(names, found.tolist(), strict=True) if bad]


def _rows_with_nan(array: Array, size: int) -> NDArray[np.bool_]:
    if array.dtype.kind != "f" or not array.size or array.ndim < 1 or len(array) != size:
        return np.zeros(size, bool)
    if not np.isnan(array.min()):  # NaN comes through, and a minimum takes no memory
        return np.zeros(size, bool)
    return np.asarray(np.isnan(array).reshape(size, -1).any(axis=1))


def nan_in_words(images: Sequence[str]) -> str:
    """What to say of such images; empty where there are none."""
    if not images:
        return ""
    which = f"image '{images[0]}' holds" if len(images) == 1 else f"{len(images)} images, '{images[0]}' first, hold"
    return f"{which} NaN, or FP32 answers with NaN: nothing is shown with them; mend them or leave them out"
