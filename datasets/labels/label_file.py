"""Labels out of a table of images, in whatever form it comes: the column that names images is found by the images."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.errors import DatasetError
from datasets.labels.class_labels import NO_LABEL, Labels
from datasets.labels.classes import Classes
from datasets.labels.image_names import Found, ImageNames
from datasets.labels.table import Row, Table, blank_tables, separated_tables
from datasets.text_file import text_from_file

_MOST_DIGITS = 9
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
# What headers call the two columns, the plainest first; compared without case, blanks and underscores.
_FILE_WORDS = (
    "file", "filename", "filepath", "path", "image", "imagename", "imagefile", "imagepath", "imagefilename",
    "imageid", "img", "imgname", "imgpath", "fname", "name", "id",
)  # fmt: skip
_LABEL_WORDS = (
    "label", "labels", "class", "classname", "classid", "classlabel", "target", "category", "categoryid", "labelname",
    "labelid", "wnid", "synset", "groundtruth", "y",
)  # fmt: skip
_HOW = {
    "path": "images are found by the end of their paths",
    "id": "images are found without their extension",
}
_FEW = 0.5  # of the rows or of the images, that a table of these images is about


@dataclass(frozen=True)
class _Reading:
    """A way to read the file: a table, the column that names images, and what each row names."""

    table: Table
    column: int
    found: tuple[Found | None, ...]

    @property
    def places(self) -> list[int | None]:
        """The image of each row, by its place."""
        return [None if found is None else found.index for found in self.found]

    @property
    def images(self) -> int:
        """Number of images named."""
        return len({place for place in self.places if place is not None})

    @property
    def rank(self) -> tuple[int, bool, int, int, bool]:
        """How well it fits: images named, rows of one length, rows that surely or outright name them, the header."""
        rows, found = self.table.rows, [found for found in self.found if found is not None]
        return (
            self.images,
            all(len(row.cells) == self.table.columns for row in rows),
            sum(each.sure for each in found),
            sum(each.how != "id" for each in found),
            _word(rows[0].cells[self.column]) in _FILE_WORDS,
        )


def labels_from_file(
    path: Path, folder: Path, names: Sequence[str], classes: Classes | None, extensions: frozenset[str]
) -> Labels:
    """Labels from a table with a row for each image: its name, and its class's name or index, or a number.

    There may be a header, and more columns if it names that of the labels. Without `classes`, labels must be all
    numbers or all names; names are then numbered in alphabetical order. Numbers are indices if all are whole and none
    is negative; else they are no classes, and stay what they are. Rows of other images are left out, and images without
    a row have no label; both are told.

    Args:
        path: The file.
        folder: The images' folder.
        names: The images, relative to it.
        classes: The classes in the desired order.
        extensions: Extensions of images, in small letters.

    Raises:
        DatasetError: `file.csv:LINE: ...` for a wrong row, `file.csv: ...` if the file fits the images in no way, or in
            several.
    """
    text = text_from_file(path, "labels CSV")
    reading = _reading(path, text, folder, ImageNames(folder, names, extensions))
    header = _is_header(reading, extensions)
    column = _label_column(path, reading, header=header)
    rows, foreign = _labelled_rows(path, reading, column, names, header=header)
    missing = len(names) - len(rows)
    if missing and foreign and len(rows) < _FEW * min(len(names), len(rows) + foreign):
        raise DatasetError(
            f"{path}: names only {len(rows)} of the {len(names)} images of {folder}, and {foreign} rows are of others; "
            f"expected labels of these images, such as {names[0]!r}"
        )
    labels = _labels(path, [rows.get(i) for i in range(len(names))], classes)
    told = _told(path, reading, column, len(rows), names, foreign, header=header)
    return Labels(labels.indices, labels.class_names, told, missing)


def _reading(path: Path, text: str, folder: Path, images: ImageNames) -> _Reading:
    readings = _readings(images, separated_tables(path, text))
    if not readings or not readings[0].images:
        readings = _readings(images, blank_tables(text)) or readings
    if not readings:
        raise DatasetError(
            f"{path}: expected a row for each image with its name and its label, separated by a comma, a tab or a "
            f"blank, found {text[:40].strip()!r}"
        )
    best = readings[0]
    if not best.images:
        row = best.table.rows[min(1, len(best.table.rows) - 1)]
        raise DatasetError(
            f"{path}:{row.line}: no column names an image of {folder}, such as {images.names[0]!r}; found "
            f"{', '.join(repr(cell.strip()[:40]) for cell in row.cells[:4])}"
        )
    # Of two separators that fit alike, the first is meant: who uses tabs may have semicolons in a label.
    others = (other for other in readings[1:] if other.rank == best.rank and other.table is best.table)
    second = next((other for other in others if other.places != best.places), None)
    if second is not None:
        raise DatasetError(
            f"{path}: columns {best.column + 1} and {second.column + 1} both name images; put the header 'file,label' "
            "above them, in their order"
        )
    return best


def _readings(images: ImageNames, tables: Iterable[Table]) -> list[_Reading]:
    """The readings of tables, the one that fits best first."""
    found = [
        _Reading(table, column, tuple(_found(images, row, column) for row in table.rows))
        for table in tables
        for column in range(table.columns)
    ]
    return sorted(found, key=lambda reading: reading.rank, reverse=True)


def _found(images: ImageNames, row: Row, column: int) -> Found | None:
    return images.find(row.cells[column]) if column < len(row.cells) else None


def _word(cell: str) -> str:
    return cell.strip().lower().replace("_", "").replace(" ", "").replace("-", "")


def _is_header(reading: _Reading, extensions: frozenset[str]) -> bool:
    """Is the first row a header? It names no image, and has words that headers have, or no extension as others do."""
    cells, named = reading.table.rows[0].cells, reading.found[0]
    if named is not None and named.how != "id":
        return False
    words = [_word(cell) for cell in cells]
    if words[reading.column] in _FILE_WORDS:
        return True
    if any(word in _LABEL_WORDS for i, word in enumerate(words) if i != reading.column):
        return True
    others_are_ids = any(found is not None and found.how == "id" for found in reading.found)
    has_extension = PurePosixPath(cells[reading.column].strip()).suffix.lower() in extensions
    return named is None and not others_are_ids and not has_extension


def _label_column(path: Path, reading: _Reading, *, header: bool) -> int:
    columns = [column for column in range(reading.table.columns) if column != reading.column]
    if len(columns) == 1:
        return columns[0]
    cells = reading.table.rows[0].cells
    said = {_word(cells[column]): column for column in columns} if header else {}
    if "label" in said:
        return said["label"]
    known = [column for word, column in said.items() if word in _LABEL_WORDS]
    if len(known) == 1:
        return known[0]
    shown = ", ".join(repr(cell.strip()[:30]) for cell in cells[:8])
    raise DatasetError(
        f"{path}:{reading.table.rows[0].line}: expected a header that calls one column 'label', because there are "
        f"{len(cells)} columns, found {shown}"
    )


def _labelled_rows(
    path: Path, reading: _Reading, column: int, names: Sequence[str], *, header: bool
) -> tuple[dict[int, tuple[int, str]], int]:
    """Line and label by image, and the number of rows that name none."""
    rows: dict[int, tuple[int, str]] = {}
    sure: dict[int, bool] = {}
    foreign = 0
    start = int(header)
    for row, found in zip(reading.table.rows[start:], reading.found[start:], strict=True):
        if len(row.cells) != reading.table.columns:
            raise DatasetError(f"{path}:{row.line}: expected {reading.table.columns} columns, found {len(row.cells)}")
        if found is None:
            foreign += 1
            continue
        label, name = row.cells[column].strip(), names[found.index]
        if not label:
            raise DatasetError(f"{path}:{row.line}: {name!r} has an empty label")
        earlier = rows.get(found.index)
        if earlier is None or (found.sure and not sure[found.index]):
            foreign += earlier is not None
            rows[found.index], sure[found.index] = (row.line, label), found.sure
        elif found.sure < sure[found.index]:
            foreign += 1
        elif earlier[1] != label:
            raise DatasetError(f"{path}:{row.line}: {name!r} already has a label on line {earlier[0]}")
    return rows, foreign


def _labels(path: Path, rows: Sequence[tuple[int, str] | None], classes: Classes | None) -> Labels:
    """Labels from line and label of each image; None for an image without a label."""
    known = [row for row in rows if row is not None]
    if classes is not None:
        indices = [NO_LABEL if row is None else _known_class(path, row, classes) for row in rows]
        return Labels(np.array(indices, np.int64), classes.names)
    numbered = [label.isdecimal() for _, label in known]
    if all(numbered):
        return Labels(np.array([NO_LABEL if row is None else _index(path, row) for row in rows], np.int64), None)
    if all(_NUMBER.fullmatch(label) for _, label in known):
        return Labels(np.array([math.nan if row is None else _number(path, row) for row in rows]), None)
    if any(numbered):
        line, label = known[numbered.index(True)]
        raise DatasetError(
            f"{path}:{line}: label {label!r} is an index, but other labels are class names; "
            "use one kind, or give the class names in a file"
        )
    class_names = tuple(sorted({label for _, label in known}))
    index: Mapping[str, int] = {name: i for i, name in enumerate(class_names)}
    return Labels(np.array([NO_LABEL if row is None else index[row[1]] for row in rows], np.int64), class_names)


def _index(path: Path, row: tuple[int, str]) -> int:
    line, label = row
    if len(label) > _MOST_DIGITS:
        raise DatasetError(f"{path}:{line}: expected a class index of at most {_MOST_DIGITS} digits, found {label:.40}")
    return int(label)


def _number(path: Path, row: tuple[int, str]) -> float:
    line, label = row
    if not math.isfinite(float(label)):
        raise DatasetError(f"{path}:{line}: expected a number that a double holds, found {label:.40}")
    return float(label)


def _known_class(path: Path, row: tuple[int, str], classes: Classes) -> int:
    line, label = row
    if label in classes.index:
        return classes.index[label]
    if label.isdecimal() and len(label) <= _MOST_DIGITS and int(label) < len(classes):
        return int(label)
    raise DatasetError(f"{path}:{line}: {label!r} is not one of the {len(classes)} classes given")


def _told(
    path: Path, reading: _Reading, column: int, labelled: int, names: Sequence[str], foreign: int, *, header: bool
) -> str:
    """How the file was read, in a line."""
    cells = reading.table.rows[0].cells
    shown = [repr(cells[i].strip()[:40]) if header else f"column {i + 1}" for i in (reading.column, column)]
    hows = [_HOW[how] for how in _HOW if any(found is not None and found.how == how for found in reading.found)]
    parts = [
        f"labels: {path}, images in {shown[0]}, labels in {shown[1]}, {reading.table.separator} between "
        f"({'line 1 is the header' if header else 'no header'})",
        f"{labelled:,} of {len(names):,} images have one",
        *hows,
        *([f"{foreign:,} rows name none of these images"] if foreign else []),
    ]
    return "; ".join(parts)
