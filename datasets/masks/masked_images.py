"""Images whose labels are masks: the class of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.image_folder import ImageFolder, listed
from datasets.images.layout import layout_from_names
from datasets.labels import read_class_names
from datasets.masks.mask_files import mask_files, without_masks
from datasets.masks.reading import mask_from_file

_LOOKED_AT = 64  # masks that are read to say which numbers there are


class MaskedImages(ImageFolder):
    """Images of a folder with a mask each. `labels` is None: an image has no class as a whole.

    Attributes:
        text: How the masks were found, for people.
        values: The class numbers in some of the masks, in order.
    """

    def __init__(
        self,
        path: str | Path,
        names: Sequence[str],
        masks: Sequence[Path],
        classes: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        *,
        left_out: int = 0,
    ) -> None:
        """Take images that have masks.

        Args:
            path: The images' folder.
            names: The images, relative to it.
            masks: The mask of each.
            classes: Class names by number, where known.
            notes: What is read of the folder, in lines for people.
            left_out: How many images have no mask, for the text.

        Raises:
            DatasetError: A mask of those that are looked at cannot be read.
        """
        super().__init__(path, names=names, unlabelled=True)
        self.class_names = None if classes is None else tuple(classes)
        self._masks = dict(zip(names, masks, strict=True))
        step = max(1, len(masks) // _LOOKED_AT)
        self.values = tuple(sorted({int(v) for file in masks[::step] for v in np.unique(mask_from_file(file))}))
        self.text = f"masks: {len(masks):,} files such as {masks[0]}, with the numbers {numbers_text(self.values)}"
        if left_out:
            self.text += f"; {left_out:,} images of {path} have none and are left out"
        self.notes = (*notes, self.text)

    def mask(self, index: int) -> NDArray[np.int32]:
        """The class number of each pixel of an image, int32 [H, W]; the mask need not have the image's size.

        Raises:
            DatasetError: The mask cannot be read.
        """
        return mask_from_file(self.mask_path(index))

    def mask_path(self, index: int) -> Path:
        """The file of an image's mask."""
        return self._masks[self.names[index]]


def numbers_text(values: Sequence[int]) -> str:
    """Whole numbers in words, with runs as ranges: 0 to 3, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)


def open_masked(
    folder: Path,
    labels: Path | None,
    classes: Path | Sequence[str] | None = None,
    *,
    asked: bool = False,
    split: str | None = None,
) -> MaskedImages | None:
    """A folder's images with their masks; None where there are none.

    Args:
        folder: The images, or the folder above those of the images and of the masks.
        labels: The masks' folder; None to look for masks where they usually are.
        classes: Class names in the order of the model's outputs, or a file with one a line.
        asked: Were masks asked for? Otherwise `labels` may hold something else.
        split: Of a folder with train/ and val/ above all else, the images of which; None for all.

    Raises:
        DatasetError: Masks were asked for and none is there, or one cannot be read.
    """
    if labels is not None and not labels.is_dir():
        if asked:
            raise DatasetError(f"{labels}: expected a folder of masks, one for each image of {folder}, found a file")
        return None
    given, listing = None if classes is None else read_class_names(classes), listed(folder)
    layout = layout_from_names(listing.names)
    if split is not None:
        layout = layout.of_split(split)
    names = without_masks(layout.names) or layout.names
    files = mask_files(folder, names, labels)
    kept = [(name, file) for name, file in zip(names, files, strict=True) if file is not None]
    if not kept:
        if labels is not None and asked:
            raise DatasetError(
                f"{labels}: expected a mask for each image of {folder}, found none such as "
                f"'{Path(names[0]).with_suffix('.png').name}'"
            )
        return None
    left = len(names) - len(kept)
    note = layout.text(folder, listing.others or {})
    try:
        return MaskedImages(
            folder, [name for name, _ in kept], [file for _, file in kept], given, [note], left_out=left
        )
    except DatasetError:
        if asked or labels is not None:
            raise
        return None  # pictures in a folder of that name, such as masks in colours: they are no labels
