"""Masks as the model's input shows them, in the model's own class numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.masks.masked_images import numbers_text
from datasets.preprocessing.interface import ImagePreprocessing
from datasets.source import MaskSource
from quant.errors import QuantError
from quant.tasks.segmentation.map_head import MOST_CLASSES

IGNORED = 255  # by default: PASCAL VOC's border, and what Cityscapes' training numbers leave out
_WRONG = -2  # of a number that a mask must not hold
_ASPECT = 0.02  # by how much a mask's shape may differ from its image's
# Cityscapes' `labelIds` that are evaluated, in the order of their `trainIds` (M. Cordts et al., 2016, "The Cityscapes
# Dataset for Semantic Urban Scene Understanding").
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
Map = NDArray[np.int32]


class MaskReader:
    """Reads masks in the model's geometry; -1 stands where no class counts.

    Attributes:
        text: What the masks' numbers mean, where that is not plain; else empty.
    """

    def __init__(
        self,
        source: MaskSource,
        preprocessing: ImagePreprocessing,
        size: tuple[int, int],
        classes: int | None,
        ignore_index: int | None,
    ) -> None:
        """Settle what the masks' numbers mean.

        Args:
            source: Where the masks are.
            preprocessing: How images become inputs.
            size: Height and width of an input.
            classes: How many the model has; None where that is not known.
            ignore_index: The number that is left out; None for 255, if that is not the foreground.
        """
        self._source, self._preprocessing, self._size, self._classes = source, preprocessing, size, classes
        asked = IGNORED if ignore_index is None else ignore_index
        # 255 is no class of a model that has fewer, whatever else is left out.
        self._ignored = {asked, IGNORED} if classes is not None and classes <= IGNORED else {asked}
        self._table: NDArray[np.int32] | None = None
        self.text = ""
        values = source.values
        if ignore_index is None and set(values) <= {0, 255} and 255 in values:
            self._table = np.full(256, _WRONG, np.int32)
            self._table[[0, 255]] = 0, 1
            self._ignored = set()
            self.text = (
                "masks: 0 is the background and 255 the foreground, as there is no other number; --ignore-index 255 "
                "leaves it out"
            )
        elif asked == 0 and classes is not None and max((v for v in values if v != IGNORED), default=-1) == classes:
            self._table = np.arange(-1, classes, dtype=np.int32)
            self.text = f"masks: 0 is left out, so 1 to {classes} are the model's classes 0 to {classes - 1}"
        elif classes == len(_CITYSCAPES) and source.mask_path(0).stem.endswith("_labelIds"):
            self._table = np.full(256, -1, np.int32)
            self._table[list(_CITYSCAPES)] = np.arange(len(_CITYSCAPES))
            self._ignored = set()
            self.text = "masks: Cityscapes' labelIds as the 19 trainIds of its evaluation"

    def truth(self, index: int, name: str, height: int, width: int) -> Map:
        """The class of each pixel of the input, int32 [H, W].

        Args:
            index: Of the image in the source.
            name: Its name, for errors.
            height: Of the image, pixels.
            width: Of the image, pixels.

        Raises:
            QuantError: The mask is not of this image, or holds numbers that are none of the model's classes.
        """
        mask = self._source.mask(index)
        if abs(mask.shape[1] * height / (mask.shape[0] * width) - 1) > _ASPECT:
            raise QuantError(
                f"{self._source.mask_path(index)}: expected a mask of the shape of '{name}', {height} x {width} pixels "
                f"(height x width, upright), found {mask.shape[0]} x {mask.shape[1]}"
            )
        numbers = self._in_model_numbers(mask, index)
        return self._preprocessing.frame(mask.shape[0], mask.shape[1]).nearest(numbers, self._size, -1)

    def _in_model_numbers(self, mask: Map, index: int) -> Map:
        counted = ~np.isin(mask, list(self._ignored))
        found = np.where(counted, mask, -1).astype(np.int32)
        if self._table is not None:
            inside = (mask >= 0) & (mask < len(self._table))
            found = np.where(inside, self._table[np.where(inside, mask, 0)], found).astype(np.int32)
            counted = counted & (~inside | (found == _WRONG))
        limit = self._classes or MOST_CLASSES
        wrong = counted & ((found >= limit) | (found < 0))
        if wrong.any():
            known = f"0 to {limit - 1}"
            left = f" or {numbers_text(sorted(self._ignored))}, which is left out" if self._ignored else ""
            raise QuantError(
                f"{self._source.mask_path(index)}: expected the numbers of the model's classes, {known}{left}, found "
                f"{numbers_text(sorted({int(v) for v in mask[wrong]})[:5])}; give masks of this model's classes, or "
                "--ignore-index"
            )
        return found
