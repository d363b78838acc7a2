"""Opening images with boxes, whichever way these are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.boxes.box_labels import BoxedImages
from datasets.boxes.coco_json import labels_from_coco
from datasets.boxes.data_yaml import SUFFIXES, Split, split_from_yaml
from datasets.boxes.yolo_text import are_box_texts, label_files, labels_from_texts
from datasets.errors import DatasetError
from datasets.image_folder import ImageFolder, listed
from datasets.images.layout import layout_from_names
from datasets.labels import read_class_names


def is_data_yaml(path: Path) -> bool:
    """Is this a file that names the images of splits?"""
    return path.suffix.lower() in SUFFIXES


def has_split(path: Path, split: str) -> bool:
    """Does a data.yaml name images of a split?"""
    return split_from_yaml(path, split) is not None


def open_split(path: Path, split: str, classes: Sequence[str] | None = None) -> ImageFolder | None:
    """The images of a split of a data.yaml, with their boxes where they have any; None where there is no such split.

    Raises:
        DatasetError: See `split_from_yaml` and `labels_from_texts`.
    """
    found = split_from_yaml(path, split)
    return None if found is None else _with_texts(found, classes)


def _with_texts(found: Split, classes: Sequence[str] | None) -> ImageFolder:
    files = label_files(found.folder, found.names)
    if all(file is None for file in files):
        return ImageFolder(found.folder, names=found.names, unlabelled=True)
    labels = labels_from_texts(found.folder, found.names, files, found.class_names)
    return BoxedImages(found.folder, labels, classes, (f"{found.folder}: {len(found.names):,} images",))


def open_boxed(
    folder: Path,
    labels: Path | None,
    classes: Path | Sequence[str] | None = None,
    *,
    asked: bool = False,
    split: str | None = None,
) -> BoxedImages | None:
    """A folder's images with their boxes; None where there are none.

    Args:
        folder: The images.
        labels: A COCO JSON file, or a folder of YOLO's text files; None to look for such files where they usually are.
        classes: Class names in the order of the model's outputs, or a file with one a line.
        asked: Was asked for detection? Otherwise text files that are no labels are left alone.
        split: Of a folder with train/ and val/ above all else, the images of which; None for all.

    Raises:
        DatasetError: The labels are not as they should be, or fit none of the images.
    """
    if labels is not None and not labels.is_dir() and labels.suffix.lower() != ".json":
        return None
    given, listing = None if classes is None else read_class_names(classes), listed(folder)
    layout = layout_from_names(listing.names)
    if split is not None:
        layout = layout.of_split(split)
    names, notes = layout.names, (layout.text(folder, listing.others or {}),)
    if labels is not None and not labels.is_dir():
        return BoxedImages(folder, labels_from_coco(labels, folder, names), given, notes)
    files = label_files(folder, names, labels)
    if all(file is None for file in files):
        if labels is None:
            return None
        raise DatasetError(
            f"{labels}: expected a text file for each image of {folder}, found none such as "
            f"'{Path(names[0]).with_suffix('.txt').name}'"
        )
    if labels is None and not asked and not are_box_texts(files):
        return None
    return BoxedImages(folder, labels_from_texts(folder, names, files, given or _names_beside(files)), given, notes)


def _names_beside(files: Sequence[Path | None]) -> tuple[str, ...] | None:
    """Class names out of `classes.txt`, which annotation tools write beside their files."""
    first = next(file for file in files if file is not None)
    beside = first.parent / "classes.txt"
    return read_class_names(beside) if beside.is_file() else None
