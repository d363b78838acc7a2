"""Labels out of a table of images, in whatever form it comes: the column that names images is found by the images."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.errors import DatasetError
from datasets.labels.class_labels import NO_LABEL, Labels
from datasets.labels.classes import Classes
from datasets.labels.reading import LABEL_WORDS, Reading, described_images, read_table, word_of
from datasets.labels.table import Row
from datasets.text_file import text_from_file

_MOST_DIGITS = 9
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


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
    reading = read_table(path, text_from_file(path, "labels CSV"), folder, names, extensions)
    column = _label_column(reading)
    found = described_images(reading, lambda row, name: _label(path, row, column, name), "a label")
    rows = found.rows
    labels = _labels(path, [rows.get(i) for i in range(len(names))], classes)
    told = reading.told(f"labels in {reading.called(column)}", len(rows), found.foreign)
    return Labels(labels.indices, labels.class_names, told, len(names) - len(rows))


def _label_column(reading: Reading) -> int:
    columns = [column for column in range(reading.table.columns) if column != reading.column]
    if len(columns) == 1:
        return columns[0]
    said = {word_of(reading.first[column]): column for column in columns} if reading.header else {}
    if "label" in said:
        return said["label"]
    known = [column for word, column in said.items() if word in LABEL_WORDS]
    if len(known) == 1:
        return known[0]
    shown = ", ".join(repr(cell.strip()[:30]) for cell in reading.first[:8])
    raise DatasetError(
        f"{reading.path}:{reading.table.rows[0].line}: expected a header that calls one column 'label', because there "
        f"are {len(reading.first)} columns, found {shown}"
    )


def _label(path: Path, row: Row, column: int, name: str) -> str:
    label = row.cells[column].strip()
    if not label:
        raise DatasetError(f"{path}:{row.line}: {name!r} has an empty label")
    return label


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
