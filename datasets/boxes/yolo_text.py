"""YOLO's text files: one beside each image or in `labels/` beside `images/`, a line `class x y width height` an object.

The numbers are fractions of the upright image's sides, x and y those of the box's centre. A line with more numbers is
an outline, whose box is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from datasets.boxes.box_labels import NO_BOXES, BoxLabels, StoredBoxes
from datasets.errors import DatasetError
from datasets.images.listing import FileNames
from datasets.text_file import text_from_file

_SLACK = 1e-3  # of annotation tools that round
_MOST_CLASSES = 1 << 16


def label_files(folder: Path, names: Sequence[str], labels: Path | None = None) -> list[Path | None]:
    """The text file of each image; None where it has none.

    Args:
        folder: The images' folder.
        names: The images, relative to it.
        labels: Where the files are: below it as the images are below `folder`, or all in it. By default in the folder
            `labels` instead of the last `images` of the image's path, or else beside the image.
    """
    files, above = FileNames(), folder.absolute()

    @cache
    def places(of: str) -> list[tuple[Path, frozenset[str]]]:
        """Folders in which the text files of the images in the folder `of` may lie, and what is in them."""
        tried = _places(above / of) if labels is None else [labels / of, labels]
        return [(place, files[place]) for place in tried if files[place]]

    def file_of(name: str) -> Path | None:
        of, _, image = name.rpartition("/")
        text = f"{image[: image.rfind('.')]}.txt"
        return next((place / text for place, there in places(of) if text in there), None)

    return [file_of(name) for name in names]


def _places(images: Path) -> list[Path]:
    """Where the text files of a folder of images may lie: in `labels` instead of the last `images`, or beside them."""
    parts = images.parts
    if "images" not in parts:
        return [images]
    place = len(parts) - 1 - parts[::-1].index("images")
    return [Path(*parts[:place], "labels", *parts[place + 1 :]), images]


def labels_from_texts(
    folder: Path, names: Sequence[str], files: Sequence[Path | None], class_names: tuple[str, ...] | None
) -> BoxLabels:
    """The boxes of images from their text files; an image without one shows nothing.

    Args:
        folder: The images' folder.
        names: The images, relative to it.
        files: The file of each, or None.
        class_names: Class names by index, where they are known.

    Raises:
        DatasetError: A file is not of this form; the message names the line.
    """
    stored = [NO_BOXES if file is None else boxes_from_text(file, class_names) for file in files]
    count, with_file = sum(len(each.classes) for each in stored), sum(file is not None for file in files)
    first = next(file for file in files if file is not None)
    used = len(class_names) if class_names is not None else len({int(c) for each in stored for c in each.classes})
    boxes = f"{count:,} boxes of {used} classes in {len(names):,} images of {folder}"
    text = f"boxes: YOLO text files such as {first}, {boxes}"
    if with_file < len(files):
        text += f"; {len(files) - with_file:,} images have no file and count as empty"
    return BoxLabels(tuple(names), stored.__getitem__, class_names, text)


def are_box_texts(files: Sequence[Path | None]) -> bool:
    """Are these label files, as the first that says anything shows? Texts beside images may be captions."""
    for file in files:
        if file is None:
            continue
        try:
            if len(boxes_from_text(file, None).classes):
                return True
        except DatasetError:
            return False
    return any(file is not None and file.parent.name != "images" and "labels" in file.parts for file in files)


def boxes_from_text(path: Path, class_names: tuple[str, ...] | None) -> StoredBoxes:
    """The boxes in one file.

    Raises:
        DatasetError: `file.txt:LINE: ...` for a line that is not of this form.
    """
    rows, classes = [], []
    for line, text in enumerate(text_from_file(path, "label file").splitlines(), start=1):
        words = text.split()
        if not words:
            continue
        label, values = _parsed(path, line, words)
        if class_names is not None and label >= len(class_names):
            raise DatasetError(
                f"{path}:{line}: expected a class of 0..{len(class_names) - 1}, as there are {len(class_names)} names, "
                f"found {label}"
            )
        rows.append(_box(path, line, values))
        classes.append(label)
    if not rows:
        return NO_BOXES
    total = len(rows)
    return StoredBoxes(np.array(rows), np.array(classes, np.int64), True, np.zeros(total, bool), np.full(total, np.nan))


def _parsed(path: Path, line: int, words: Sequence[str]) -> tuple[int, list[float]]:
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        label, values = math.nan, []
    outline = len(values) >= 6 and len(values) % 2 == 0
    is_class = 0 <= label < _MOST_CLASSES and label == int(label)
    if not is_class or not (len(values) == 4 or outline) or not np.isfinite(values).all():
        raise DatasetError(
            f"{path}:{line}: expected 'class x y width height' in fractions of the image, or the points of an outline, "
            f"found {' '.join(words)[:60]!r}"
        )
    return int(label), values


def _box(path: Path, line: int, values: Sequence[float]) -> list[float]:
    wrong = [value for value in values if not -_SLACK <= value <= 1 + _SLACK]
    if wrong:
        raise DatasetError(
            f"{path}:{line}: expected fractions of the image from 0 to 1, found {wrong[0]:g}; divide pixels by the "
            "image's width and height"
        )
    if len(values) > 4:
        x, y = values[::2], values[1::2]
        return [min(x), min(y), max(x), max(y)]
    x_centre, y_centre, width, height = values
    return [x_centre - width / 2, y_centre - height / 2, x_centre + width / 2, y_centre + height / 2]
