"""Images whose label is several values: coordinates, attributes, texts, or several classes."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.image_folder import ImageFolder, image_names
from datasets.labels import read_class_names
from datasets.text_file import text_from_file

_FILE = ("file", "filename", "file_name", "image", "image_id", "image_name", "path", "id", "name")
_SEVERAL = ("labels", "tags", "classes")  # headers of a column that holds several classes an image
_BETWEEN = re.compile(r"[;|,\s]+")


@dataclass(frozen=True, eq=False)
class ImageValues:
    """Several values an image.

    Attributes:
        values: float64 [N, K] of numbers, int64 [N, K] of 0 and 1 for classes that an image has or has not, or texts.
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

    def __init__(self, path: str | Path, names: Sequence[str], found: ImageValues) -> None:
        """Take images and their values."""
        super().__init__(path, names=names, unlabelled=True)
        self.labels = found.values
        self.columns, self.text = found.columns, found.text
        self.notes = (found.text,)
        self.class_names = found.columns if found.values.dtype.kind == "i" else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}: {len(self)} images, {len(self.columns)} values each)"


def open_valued(folder: Path, labels: Path | None, classes: Path | Sequence[str] | None = None) -> ValuedImages | None:
    """A folder's images with the values of a CSV that has several columns of them; None for any other file.

    Args:
        folder: The images.
        labels: The CSV: a header, a column of files, and either several more, or one called labels or tags whose cells
            hold several classes.
        classes: Class names in the order of the model's outputs, for several classes an image.

    Raises:
        DatasetError: `file.csv:LINE: ...` for a wrong row, `file.csv: ...` if images have no row.
    """
    if labels is None or labels.is_dir():
        return None
    header = _header(labels)
    place = next((i for i, cell in enumerate(header) if cell.strip().lower() in _FILE), None)
    others = [i for i in range(len(header)) if i != place]
    words = [header[i].strip().lower() for i in others]
    several = len(words) == 1 and words[0] in _SEVERAL
    if place is None or "label" in words or (len(others) < 2 and not several):
        return None
    names = image_names(folder)
    rows = _rows(labels, folder, names, place, len(header))
    cells = [[rows[name][1][i].strip() for i in others] for name in names]
    if several:
        found = _several(labels, [(rows[name][0], row[0]) for name, row in zip(names, cells, strict=True)], classes)
        return ValuedImages(folder, names, found) if found is not None else None
    columns = tuple(header[i].strip() or str(i) for i in others)
    return ValuedImages(folder, names, _of_columns(labels, cells, columns, classes))


def _header(path: Path) -> list[str]:
    text = text_from_file(path, "labels CSV")
    try:
        return next(csv.reader(io.StringIO(text.split("\n", 1)[0])), [])
    except csv.Error:
        return []


def _rows(path: Path, folder: Path, names: Sequence[str], place: int, columns: int) -> dict[str, tuple[int, list[str]]]:
    """Lines and cells by image."""
    known: set[str] = set(names)
    found: dict[str, tuple[int, list[str]]] = {}
    reader = csv.reader(io.StringIO(text_from_file(path, "labels CSV"), newline=""))
    try:
        next(reader)
        for row in reader:
            if not row:
                continue
            if len(row) != columns:
                raise DatasetError(f"{path}:{reader.line_num}: expected {columns} columns, found {len(row)}")
            name = row[place].strip().replace("\\", "/").removeprefix("./")
            if name not in known:
                raise DatasetError(f"{path}:{reader.line_num}: no image {name!r} in {folder}")
            if name in found:
                raise DatasetError(f"{path}:{reader.line_num}: {name!r} already has values on line {found[name][0]}")
            found[name] = reader.line_num, row
    except csv.Error as error:
        raise DatasetError(f"{path}:{reader.line_num}: cannot be read as CSV: {error}") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise DatasetError(
            f"{path}: {len(missing)} of {len(names)} images of {folder} have no row; the first is {missing[0]!r}"
        )
    return found


def _of_columns(
    path: Path,
    cells: Sequence[Sequence[str]],
    columns: tuple[str, ...],
    classes: Path | Sequence[str] | None,
) -> ImageValues:
    numbers = [[_number(cell) for cell in row] for row in cells]
    if any(value is None for row in numbers for value in row):
        return ImageValues(np.array(cells), columns, f"labels: {len(columns)} columns of texts in {path}")
    values = np.array(numbers, np.float64)
    if not ((values == 0) | (values == 1)).all():
        return ImageValues(values, columns, f"labels: {len(columns)} numbers an image in {path}")
    ordered = _in_order(path, columns, classes)
    places = [columns.index(name) for name in ordered]
    text = f"labels: {len(columns)} classes, of which an image has any number, in {path}"
    return ImageValues(values[:, places].astype(np.int64), ordered, text)


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


def _several(path: Path, rows: Sequence[tuple[int, str]], classes: Path | Sequence[str] | None) -> ImageValues | None:
    """Several classes in one cell; None where no cell has more than one, which are ordinary labels."""
    found = [[word for word in _BETWEEN.split(cell) if word] for _, cell in rows]
    if all(len(words) <= 1 for words in found):
        return None
    names = sorted({word for words in found for word in words})
    ordered = tuple(names) if classes is None else read_class_names(classes)
    place_of = {name: i for i, name in enumerate(ordered)}
    values = np.zeros((len(rows), len(ordered)), np.int64)
    for i, ((line, _), words) in enumerate(zip(rows, found, strict=True)):
        for word in words:
            if word not in place_of:
                raise DatasetError(f"{path}:{line}: {word!r} is not one of the {len(ordered)} classes given")
            values[i, place_of[word]] = 1
    return ImageValues(values, ordered, f"labels: {len(ordered)} classes, of which an image has any number, in {path}")
