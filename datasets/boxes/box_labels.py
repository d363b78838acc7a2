"""Boxes of the objects in images, whichever file they come from, and images that have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.image_folder import ImageFolder


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """The objects in one image.

    Attributes:
        boxes: float64 [G, 4]: left, top, right, bottom, in pixels of the upright image.
        classes: int64 [G], class indices.
        crowd: bool [G], whether a box stands for a crowd of objects, in which any number of them may be found.
        areas: float64 [G], areas of the objects, square pixels; of their outlines where these are known.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, eq=False)
class StoredBoxes:
    """The objects in one image, as a file holds them.

    Attributes:
        values: float64 [G, 4]: left, top, right, bottom.
        classes: int64 [G].
        fractions: Are the values fractions of the image's sides? Otherwise they are pixels.
        crowd: bool [G].
        areas: float64 [G], square pixels; NaN where only the box tells.
    """

    values: NDArray[np.float64]
    classes: NDArray[np.int64]
    fractions: bool
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def in_pixels(self, height: int, width: int) -> ImageBoxes:
        """The boxes in pixels of an image of this size."""
        scale = np.array([width, height] * 2, np.float64) if self.fractions else 1.0
        boxes = self.values * scale
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
        areas = np.where(np.isnan(self.areas), sides[:, 0] * sides[:, 1], self.areas)
        return ImageBoxes(boxes, self.classes, self.crowd, areas)


NO_BOXES = StoredBoxes(np.zeros((0, 4)), np.zeros(0, np.int64), False, np.zeros(0, bool), np.zeros(0))


@dataclass(frozen=True)
class BoxLabels:
    """Boxes of a set of images.

    Attributes:
        images: Names of the images, relative to their folder.
        of_image: Gives the boxes of an image by its place in `images`.
        class_names: Class names by index; None if they are unknown.
        text: How the labels were read, for people.
    """

    images: tuple[str, ...]
    of_image: Callable[[int], StoredBoxes]
    class_names: tuple[str, ...] | None
    text: str


class BoxedImages(ImageFolder):
    """Images of a folder with the boxes of their objects. `labels` is None: an image has no class as a whole.

    Attributes:
        text: How the labels were read, for people.
    """

    def __init__(
        self, path: str | Path, found: BoxLabels, classes: Sequence[str] | None = None, notes: Sequence[str] = ()
    ) -> None:
        """Take the images that the labels are of.

        Args:
            path: Their folder.
            found: The labels.
            classes: Class names in the order of the model's outputs; by default as the labels have them.
            notes: What is read of the folder and what is not.

        Raises:
            DatasetError: A class of the labels is not among `classes`.
        """
        super().__init__(path, names=found.images, unlabelled=True)
        self.class_names = found.class_names if classes is None else tuple(classes)
        self.text = found.text
        self.notes = (*notes, found.text)
        self._of_image = found.of_image
        self._place_of = _places(found, self.class_names)

    def boxes(self, index: int, height: int, width: int) -> ImageBoxes:
        """The objects in an image, whose size is given; classes are those of `class_names`."""
        found = self._of_image(index).in_pixels(height, width)
        return found if self._place_of is None else replace(found, classes=self._place_of[found.classes])


def _places(found: BoxLabels, classes: Sequence[str] | None) -> NDArray[np.int64] | None:
    """Where each of the labels' classes stands among `classes`; None where the labels have no names or these ones."""
    if found.class_names is None or classes is None or tuple(classes) == found.class_names:
        return None
    missing = [name for name in found.class_names if name not in classes]
    if missing:
        raise DatasetError(
            f"{found.text}: class '{missing[0]}' is not one of the {len(classes)} classes given ({classes[0]}, ...)"
        )
    return np.array([list(classes).index(name) for name in found.class_names], np.int64)
