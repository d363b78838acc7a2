"""Images whose label is several values: coordinates, attributes, texts, or several classes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.image_folder import IMAGE_EXTENSIONS, ImageFolder, image_names
from datasets.labels import read_class_names
from datasets.labels.class_labels import NO_LABEL, unlabelled_warning
from datasets.labels.reading import FILE_WORDS, LABEL_WORDS, described_images, read_table, word_of
from datasets.labels.table import separated_tables
from datasets.text_file import text_from_file

_SEVERAL = ("labels", "tags", "classes")  # headers of a column that holds several classes an image
_OF_VALUES = ("y", "target", "groundtruth", *_SEVERAL)  # what columns of numbers are called as well
_BETWEEN = re.compile(r"[;|,\s]+")


@dataclass(frozen=True, eq=False)
class ImageValues:
    """Several values an image.

    Attributes:
        values: float64 [N, K] of numbers, int64 [N, K] of 0 and 1 for classes that an image has or has not, or texts.
            An image without any has a row of NaN, of -1 or of empty texts.
        columns: Names of the K values.
        text: How they were read, for people.
    """

    values: NDArray[Any]
    columns: tuple[str, ...]
    text: str


class ValuedImages(ImageFolder):
    """Images of a folder with several values each.

    Attributes:
        labels: [N, K]; see `ImageValues`.
        class_names: The columns, where the values say which classes an image has; else None.
        columns: Names of the values.
        text: How the labels were read, for people.
    """

    def __init__(self, path: str | Path, names: Sequence[str], found: ImageValues, missing: int = 0) -> None:
        """Take images and their values."""
        super().__init__(path, names=names, unlabelled=True)
        self.labels = found.values
        self.columns, self.text = found.columns, found.text
        self.notes = (found.text,)
        self.warnings = (unlabelled_warning(self.path, self.names, found.values),) if missing else ()
        self.class_names = found.columns if found.values.dtype.kind == "i" else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}: {len(self)} images, {len(self.columns)} values each)"


def open_valued(folder: Path, labels: Path | None, classes: Path | Sequence[str] | None = None) -> ValuedImages | None:
    """A folder's images with the values of a CSV that has several columns of them; None for any other file.

    Args:
        folder: The images.
        labels: The table: a header, a column of files, and either several more, or one called labels or tags whose
            cells hold several classes. Images are found in it as in a table of classes.
        classes: Class names in the order of the model's outputs, for several classes an image.

    Raises:
        DatasetError: `file.csv:LINE: ...` for a wrong row, `file.csv: ...` if it fits the images in no way.
    """
    if labels is None or labels.is_dir() or not _may_hold_values(labels):
        return None
    text = text_from_file(labels, "labels CSV")
    names = image_names(folder)
    reading = read_table(labels, text, folder, names, IMAGE_EXTENSIONS)
    others = [i for i in range(reading.table.columns) if i != reading.column]
    if not reading.header or not _are_values([word_of(reading.first[i]) for i in others]):
        return None
    found = described_images(reading, lambda row, _: tuple(row.cells[i].strip() for i in others), "values")
    columns = tuple(reading.first[i].strip() or str(i) for i in others)
    if len(others) == 1:
        values = _several(labels, {i: (line, cells[0]) for i, (line, cells) in found.rows.items()}, len(names), classes)
    else:
        values = _of_columns(labels, {i: cells for i, (_, cells) in found.rows.items()}, len(names), columns, classes)
    if values is None:
        return None
    told = reading.told(values.text, len(found.rows), found.foreign)
    return ValuedImages(folder, names, replace(values, text=told), missing=len(names) - len(found.rows))


def _may_hold_values(path: Path) -> bool:
    """Does the first line look like the header of such a table? It is looked at alone: most tables hold classes."""
    first = text_from_file(path, "labels CSV").split("\n", 1)[0]
    try:
        tables = list(separated_tables(path, first))
    except DatasetError:
        return False
    for table in tables:
        words = [word_of(cell) for cell in table.rows[0].cells]
        if any(word in FILE_WORDS and _are_values([*words[:i], *words[i + 1 :]]) for i, word in enumerate(words)):
            return True
    return False


def _are_values(words: Sequence[str]) -> bool:
    """Do a header's words, but for that of the images, name values, and no column of classes?"""
    if len(words) == 1:
        return words[0] in _SEVERAL
    return bool(words) and not any(word in LABEL_WORDS and word not in _OF_VALUES for word in words)


def _of_columns(
    path: Path,
    rows: Mapping[int, Sequence[str]],
    images: int,
    columns: tuple[str, ...],
    classes: Path | Sequence[str] | None,
) -> ImageValues:
    """Values of the images that have any: the others' are texts of nothing, NaN, or no label."""
    numbers = {place: [_number(cell) for cell in cells] for place, cells in rows.items()}
    if any(value is None for row in numbers.values() for value in row):
        texts = np.array([rows.get(i, [""] * len(columns)) for i in range(images)])
        return ImageValues(texts, columns, f"{len(columns)} columns of texts")
    values = np.array([numbers.get(i, [math.nan] * len(columns)) for i in range(images)], np.float64)
    known = values[sorted(rows)]
    if not ((known == 0) | (known == 1)).all():
        return ImageValues(values, columns, f"{len(columns)} columns of numbers")
    ordered = _in_order(path, columns, classes)
    chosen = values[:, [columns.index(name) for name in ordered]]
    classes_of = np.where(np.isnan(chosen), NO_LABEL, chosen).astype(np.int64)
    return ImageValues(classes_of, ordered, f"{len(columns)} columns of classes, of which an image has any number")


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _in_order(path: Path, columns: tuple[str, ...], classes: Path | Sequence[str] | None) -> tuple[str, ...]:
    if classes is None:
        return columns
    given = read_class_names(classes)
    if set(given) != set(columns):
        odd = next(name for name in (*columns, *given) if name not in given or name not in columns)
        raise DatasetError(
            f"{path}: expected the {len(given)} classes given as columns, found '{odd}' in one of them only"
        )
    return given


def _several(
    path: Path, rows: Mapping[int, tuple[int, str]], images: int, classes: Path | Sequence[str] | None
) -> ImageValues | None:
    """Several classes in one cell; None where no cell has more than one, which are ordinary labels."""
    found = {place: [word for word in _BETWEEN.split(cell) if word] for place, (_, cell) in rows.items()}
    if all(len(words) <= 1 for words in found.values()):
        return None
    names = sorted({word for words in found.values() for word in words})
    ordered = tuple(names) if classes is None else read_class_names(classes)
    place_of = {name: i for i, name in enumerate(ordered)}
    values = np.full((images, len(ordered)), NO_LABEL, np.int64)
    for place, words in found.items():
        values[place] = 0
        for word in words:
            if word not in place_of:
                raise DatasetError(f"{path}:{rows[place][0]}: {word!r} is not one of the {len(ordered)} classes given")
            values[place, place_of[word]] = 1
    return ImageValues(values, ordered, f"{len(ordered)} classes, of which an image has any number")
