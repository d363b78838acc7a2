"""Boxes: their forms, and detections of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Form = Literal["xyxy", "cxcywh", "yxyx"]


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector finds in one image, or could find.

    Attributes:
        boxes: float64 [D, 4]: left, top, right, bottom, in pixels.
        scores: float64 [D], 0..1.
        classes: int64 [D], class indices.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def kept(self, which: Array) -> Detections:
        """Those of a mask or of indices."""
        return Detections(self.boxes[which], self.scores[which], self.classes[which])


def corners(boxes: Array, form: Form) -> Floats:
    """Boxes [..., 4] of any form as left, top, right, bottom."""
    values: Floats = boxes.astype(np.float64)
    if form == "xyxy":
        return values
    if form == "yxyx":
        return values[..., [1, 0, 3, 2]]
    centre, half = values[..., :2], values[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def areas(boxes: Floats) -> Floats:
    """Areas of boxes [..., 4]; 0 for those turned inside out."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    area: Floats = sides[..., 0] * sides[..., 1]
    return area


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union of boxes [D, 4] with boxes [G, 4]: float64 [D, G]; 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=2)
    union = areas(boxes)[:, None] + areas(others)[None, :] - common
    found: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return found
