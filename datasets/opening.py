"""Opening a source of data: a folder of images, an image pack or a tensor pack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from datasets.arrays.array_folder import open_arrays
from datasets.arrays.forms import ModelInput
from datasets.arrays.npy_files import NPY_SUFFIXES
from datasets.boxes.opening import has_split, is_data_yaml, open_boxed, open_split
from datasets.errors import DatasetError
from datasets.image_folder import IMAGE_EXTENSIONS, ImageFolder
from datasets.images.layout import layout_from_names, may_have_splits
from datasets.images.listing import listing_from_folder, refuse_video, suffix_of
from datasets.labels import read_class_names
from datasets.masks.masked_images import open_masked
from datasets.packs.pack import SUFFIXES, ImagePack, TensorPack
from datasets.packs.structure import damage_told, dataset_at, holds_images, listing_of, open_hdf5
from datasets.packs.trial import check_that_reading_ends
from datasets.source import ImageSource, TensorSource
from datasets.values.valued_images import open_valued


def open_source(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    task: str = "auto",
    split: str = "train",
    forms: Sequence[ModelInput] = (),
) -> ImageSource | TensorSource:
    """Open a folder of images or arrays, an image pack or a tensor pack, whichever `path` is.

    Args:
        path: A folder, a file ending in .h5, .hdf5, .npy or .npz, or a data.yaml that names folders.
        labels: The labels of a folder: a CSV of classes, a COCO JSON file, a folder of text files of boxes or of masks.
        classes: The class names in the desired order, or a file with one name per line.
        inputs: The model's input names, for a tensor pack.
        task: What the labels are for: `classify` takes folders and CSVs as classes, as `embed` does for identities and
            `multilabel`, `regress` and `keypoints` for values; `detect` looks for boxes, `segment` for masks, `auto`
            for all of them, boxes first. With any other task there are no labels.
        split: Which images of a data.yaml, or of a folder with train/ and val/, are opened: train, val or test.
        forms: The model's inputs that data must provide, to tell arrays that are inputs from images.

    Raises:
        DatasetError: The path is none of these, or its contents are not as they should be.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; expected a folder of images or a .h5 pack")
    if is_data_yaml(path):
        named = _split(path, split, classes)
        return named if task in ("auto", "detect") else ImageFolder(named.path, names=named.names, unlabelled=True)
    if _holds_arrays(path):
        unlabelled = task not in ("auto", "classify")
        return open_arrays(path, forms, labels=labels, classes=classes, unlabelled=unlabelled, split=split)
    if path.is_dir():
        return _folder(path, None if labels is None else Path(labels), classes, task, split)
    refuse_video(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(
            f"{path}: expected a folder of images, a data.yaml, a pack ending in {' or '.join(SUFFIXES)}, or an array "
            "ending in .npy or .npz"
        )
    if labels is not None:
        raise DatasetError(f"{path}: a pack holds its labels itself; leave out the labels CSV")
    check_that_reading_ends(path)
    with damage_told(path), open_hdf5(path) as file:
        images, listing = dataset_at(file, "images", path), listing_of(file)
        # A model's input may be called `images` too, and then the pack may hold that input ready-made.
        image_pack = images is not None and (holds_images(images) or "images" not in (inputs or ()))
    found: ImagePack | TensorPack
    if image_pack:
        found = ImagePack(path, classes=classes)
        return found if task in _LABELLED else _without_labels(found)
    if inputs is None:
        raise DatasetError(f"{path}: no dataset 'images'; the file holds {listing}; name the model's inputs among them")
    found = TensorPack(path, inputs, classes=classes)
    return found if task in _LABELLED else _without_labels(found)


def _holds_arrays(path: Path) -> bool:
    """Is this a file of NumPy's, or a folder with such files and no images?"""
    if not path.is_dir():
        return path.suffix.lower() in NPY_SUFFIXES
    for _, _, files in os.walk(path):  # one image is enough to tell, and folders may have a million
        if any(suffix_of(name) in IMAGE_EXTENSIONS for name in files):
            return False
    listing = listing_from_folder(path, IMAGE_EXTENSIONS)
    return not listing.names and bool(NPY_SUFFIXES & set(listing.others or {}))


def has_validation(path: Path) -> bool:
    """Does a data.yaml, or a folder with a sub-folder for each split, bring images for evaluation?"""
    if is_data_yaml(path):
        return path.is_file() and has_split(path, "val")
    if not path.is_dir() or not may_have_splits(path):
        return False
    present = layout_from_names(listing_from_folder(path, IMAGE_EXTENSIONS | NPY_SUFFIXES).names).present
    return "train" in present and len(present) > 1


_LABELLED = ("auto", "classify", "detect", "embed", "multilabel", "regress", "keypoints")
_Pack = TypeVar("_Pack", ImagePack, TensorPack)


def _without_labels(pack: _Pack) -> _Pack:
    pack.labels = None
    return pack


def _split(path: Path, split: str, classes: str | Path | Sequence[str] | None) -> ImageFolder:
    given = None if classes is None else read_class_names(classes)
    for wanted in dict.fromkeys((split, "train", "val", "test")):
        found = open_split(path, wanted, given)
        if found is not None:
            return found
    raise DatasetError(f"{path}: expected images under 'train' or 'val', found none")


def _folder(
    path: Path, labels: Path | None, classes: str | Path | Sequence[str] | None, task: str, split: str
) -> ImageFolder:
    """A folder's images with the labels that the task is about; where it is to be found, in a fixed order."""
    given = None if classes is None else read_class_names(classes)
    if task == "segment" or (task == "auto" and labels is not None and labels.is_dir()):
        masked = open_masked(path, labels, given, asked=task == "segment", split=split)
        if masked is not None:
            return masked
    if task in ("auto", "detect"):
        boxed = open_boxed(path, labels, given, asked=task == "detect", split=split)
        if boxed is not None:
            return boxed
        if task == "detect" and labels is not None:
            raise DatasetError(f"{labels}: expected boxes in a COCO JSON file or in a folder of text files")
    if task == "detect" or task not in _LABELLED:
        return ImageFolder(path, unlabelled=True, split=split)
    found = open_masked(path, labels, given, split=split) if task == "auto" else None
    valued = found or open_valued(path, labels, given)
    return valued or ImageFolder(path, labels=labels, classes=classes, split=split)
