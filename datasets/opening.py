"""Opening a source of data: a folder of images, an image pack or a tensor pack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from datasets.boxes.opening import is_data_yaml, open_boxed, open_split
from datasets.errors import DatasetError
from datasets.image_folder import ImageFolder
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
) -> ImageSource | TensorSource:
    """Open a folder of images, an image pack or a tensor pack, whichever `path` is.

    Args:
        path: A folder, a file ending in .h5 or .hdf5, or a data.yaml that names folders.
        labels: The labels of a folder: a CSV of classes, a COCO JSON file, a folder of text files of boxes or of masks.
        classes: The class names in the desired order, or a file with one name per line.
        inputs: The model's input names, for a tensor pack.
        task: What the labels are for: `classify` takes folders and CSVs as classes, as `embed` does for identities and
            `multilabel`, `regress` and `keypoints` for values; `detect` looks for boxes, `segment` for masks, `auto`
            for all of them, boxes first. With any other task there are no labels.
        split: Which images a data.yaml is opened for: train, val or test.

    Raises:
        DatasetError: The path is none of these, or its contents are not as they should be.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; expected a folder of images or a .h5 pack")
    if is_data_yaml(path):
        return _split(path, split, classes)
    if path.is_dir():
        return _folder(path, None if labels is None else Path(labels), classes, task)
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(
            f"{path}: expected a folder of images, a data.yaml, or a pack ending in {' or '.join(SUFFIXES)}"
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


def _folder(path: Path, labels: Path | None, classes: str | Path | Sequence[str] | None, task: str) -> ImageFolder:
    """A folder's images with the labels that the task is about; where it is to be found, in a fixed order."""
    given = None if classes is None else read_class_names(classes)
    if task == "segment" or (task == "auto" and labels is not None and labels.is_dir()):
        masked = open_masked(path, labels, given, asked=task == "segment")
        if masked is not None:
            return masked
    if task in ("auto", "detect"):
        boxed = open_boxed(path, labels, given, asked=task == "detect")
        if boxed is not None:
            return boxed
        if task == "detect" and labels is not None:
            raise DatasetError(f"{labels}: expected boxes in a COCO JSON file or in a folder of text files")
    if task == "detect" or task not in _LABELLED:
        return ImageFolder(path, unlabelled=True)
    found = open_masked(path, labels, given) if task == "auto" else None
    return found or open_valued(path, labels, given) or ImageFolder(path, labels=labels, classes=classes)
