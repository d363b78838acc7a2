"""The colours that a model's input takes, and a preprocessing in other colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from datasets.preprocessing.description import Preprocessing

Colour = Literal["rgb", "bgr", "grey"]


def is_grey(shape: Sequence[int | str | None]) -> bool:
    """Does a model's input, with its batch axis, take images of one channel?"""
    return 1 in shape[1:] and 3 not in shape[1:]


def in_colours_of(preprocessing: Preprocessing, shape: Sequence[int | str | None]) -> Preprocessing:
    """The preprocessing as it is, or in grey where the input takes one channel."""
    return in_colour(preprocessing, "grey") if is_grey(shape) and preprocessing.color != "grey" else preprocessing


def in_colour(preprocessing: Preprocessing, color: Colour) -> Preprocessing:
    """A preprocessing of red, green and blue in other colours: mean and std go along; grey takes their average."""
    if color == "rgb":
        return preprocessing
    if color == "grey":
        mean, std = (float(np.mean(values)) for values in (preprocessing.mean, preprocessing.std))
        return replace(preprocessing, color=color, mean=(round(mean, 4),), std=(round(std, 4),))
    return replace(preprocessing, color=color, mean=preprocessing.mean[::-1], std=preprocessing.std[::-1])
