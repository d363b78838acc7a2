"""Opening a source of data: a folder of images, an image pack or a tensor pack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.errors import DatasetError
from datasets.image_folder import ImageFolder
from datasets.packs.pack import SUFFIXES, ImagePack, TensorPack
from datasets.packs.structure import damage_told, dataset_at, holds_images, listing_of, open_hdf5
from datasets.packs.trial import check_that_reading_ends
from datasets.source import ImageSource, TensorSource


def open_source(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
) -> ImageSource | TensorSource:
    """Open a folder of images, an image pack or a tensor pack, whichever `path` is.

    Args:
        path: A folder, or a file ending in .h5 or .hdf5.
        labels: The labels CSV of a folder.
        classes: The class names in the desired order, or a file with one name per line.
        inputs: The model's input names, for a tensor pack.

    Raises:
        DatasetError: The path is none of these, or its contents are not as they should be.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; expected a folder of images or a .h5 pack")
    if path.is_dir():
        return ImageFolder(path, labels=labels, classes=classes)
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(f"{path}: expected a folder of images, or a pack ending in {' or '.join(SUFFIXES)}")
    if labels is not None:
        raise DatasetError(f"{path}: a pack holds its labels itself; leave out the labels CSV")
    check_that_reading_ends(path)
    with damage_told(path), open_hdf5(path) as file:
        images, listing = dataset_at(file, "images", path), listing_of(file)
        # A model's input may be called `images` too, and then the pack may hold that input ready-made.
        image_pack = images is not None and (holds_images(images) or "images" not in (inputs or ()))
    if image_pack:
        return ImagePack(path, classes=classes)
    if inputs is None:
        raise DatasetError(f"{path}: no dataset 'images'; the file holds {listing}; name the model's inputs among them")
    return TensorPack(path, inputs, classes=classes)
