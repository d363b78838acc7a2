"""Class labels of an image folder, from its sub-folders or a CSV, with or without a file of class names."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.text_file import text_from_file

_MOST_DIGITS = 9
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of images.

    Attributes:
        indices: Class index of every image, int64 [N]; or numbers that are no classes (ages, say), float64 [N].
        class_names: Class names by index; None if unknown.
    """

    indices: NDArray[Any]
    class_names: tuple[str, ...] | None


def read_class_names(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Class names in index order, from a sequence or from a file with one name per line.

    Raises:
        DatasetError: The file does not exist or is not UTF-8 text, there are no names, or a name is repeated.
    """
    if isinstance(classes, (str, Path)):
        where, text = str(classes), text_from_file(Path(classes), "classes file")
        names = [line.strip() for line in text.splitlines()]
        while names and not names[-1]:
            names.pop()
    else:
        where, names = "classes", list(classes)
    if not names:
        raise DatasetError(f"{where}: no class names; expected one name per line, in the order of the model's outputs")
    seen: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            raise DatasetError(f"{where}:{line}: empty line; expected a class name")
        if name in seen:
            raise DatasetError(f"{where}:{line}: class {name!r} is already on line {seen[name]}")
        seen[name] = line
    return tuple(names)


def labels_from_folders(folder: Path, names: Sequence[str], classes: tuple[str, ...] | None) -> Labels | None:
    """Labels from the first folder in every name; None for a flat folder.

    Raises:
        DatasetError: Some images are in the folder itself and others in sub-folders, or a folder is not a class.
    """
    flat = [name for name in names if "/" not in name]
    nested = [name for name in names if "/" in name]
    if not nested:
        return None
    if flat:
        raise DatasetError(
            f"{folder}: {len(flat)} images are in the folder itself (first {flat[0]!r}) and {len(nested)} in "
            f"sub-folders (first {nested[0]!r}); use one sub-folder per class for all images, put all images in the "
            "folder itself, or give the labels in a CSV"
        )
    found = [name.split("/", 1)[0] for name in names]
    class_names = classes or tuple(sorted(set(found)))
    index = {name: i for i, name in enumerate(class_names)}
    for name, label in zip(names, found, strict=True):
        if label not in index:
            raise DatasetError(f"{folder}: folder {label!r} (of {name!r}) is not one of the {len(index)} classes given")
    return Labels(np.array([index[label] for label in found], np.int64), class_names)


def labels_in_order(path: Path, labels: Labels, classes: tuple[str, ...]) -> Labels:
    """The same labels with `classes` as the class names. If names are known, they decide, not the indices.

    Args:
        path: Where the labels come from, for the error.
        labels: The labels as they are there.
        classes: The class names in the desired order.

    Raises:
        DatasetError: A label is not among the classes.
    """
    used = np.unique(labels.indices)
    if labels.class_names is None:
        if len(used) and used[-1] >= len(classes):
            raise DatasetError(f"{path}: label {used[-1]} is not one of the {len(classes)} classes given")
        return Labels(labels.indices, classes)
    index = {name: i for i, name in enumerate(classes)}
    unknown = [labels.class_names[label] for label in used if labels.class_names[label] not in index]
    if unknown:
        raise DatasetError(f"{path}: class {unknown[0]!r} is not one of the {len(classes)} classes given")
    places = np.array([index.get(name, -1) for name in labels.class_names], np.int64)
    return Labels(places[labels.indices], classes)


def labels_from_csv(path: Path, folder: Path, names: Sequence[str], classes: tuple[str, ...] | None) -> Labels:
    """Labels from a CSV with the columns `file` and `label`; a label is a class name, an index or a number.

    Without `classes`, labels must be all numbers or all names; names are then numbered in alphabetical order. Numbers
    are indices if all are whole and none is negative; else they are no classes, and stay what they are.

    Raises:
        DatasetError: `file.csv:LINE: ...` for a wrong row, `file.csv: ...` if images have no row.
    """
    rows = _rows(path, folder, set(names))
    missing = [name for name in names if name not in rows]
    if missing:
        raise DatasetError(
            f"{path}: {len(missing)} of {len(names)} images of {folder} have no label; the first is {missing[0]!r}"
        )
    if classes is not None:
        index = {name: i for i, name in enumerate(classes)}
        return Labels(np.array([_known_class(path, rows[name], index) for name in names], np.int64), classes)
    numbered = {name: label.isdecimal() for name, (_, label) in rows.items()}
    if all(numbered.values()):
        return Labels(np.array([_index(path, rows[name]) for name in names], np.int64), None)
    if all(_NUMBER.fullmatch(label) for _, label in rows.values()):
        return Labels(np.array([_number(path, rows[name]) for name in names]), None)
    if any(numbered.values()):
        line, label = next(rows[name] for name, is_index in numbered.items() if is_index)
        raise DatasetError(
            f"{path}:{line}: label {label!r} is an index, but other labels are class names; "
            "use one kind, or give the class names in a file"
        )
    class_names = tuple(sorted({label for _, label in rows.values()}))
    index = {name: i for i, name in enumerate(class_names)}
    return Labels(np.array([index[rows[name][1]] for name in names], np.int64), class_names)


def _rows(path: Path, folder: Path, known: set[str]) -> dict[str, tuple[int, str]]:
    """Image name -> (line, label)."""
    reader: _Reader = csv.reader(io.StringIO(text_from_file(path, "labels CSV"), newline=""))
    header = [cell.strip().lower() for cell in next(_lines(reader, path), [])]
    if "file" not in header or "label" not in header:
        raise DatasetError(f"{path}:1: expected a header with the columns 'file,label', found {','.join(header)!r}")
    file_column, label_column = header.index("file"), header.index("label")
    rows: dict[str, tuple[int, str]] = {}
    for row in _lines(reader, path):
        line = reader.line_num
        if not row:
            continue
        if len(row) != len(header):
            raise DatasetError(f"{path}:{line}: expected {len(header)} columns, found {len(row)}")
        name, label = _posix(row[file_column], known), row[label_column].strip()
        if name not in known:
            raise DatasetError(f"{path}:{line}: no image {name!r} in {folder}")
        if name in rows:
            raise DatasetError(f"{path}:{line}: {name!r} already has a label on line {rows[name][0]}")
        if not label:
            raise DatasetError(f"{path}:{line}: {name!r} has an empty label")
        rows[name] = line, label
    return rows


class _Reader(Protocol):
    line_num: int

    def __next__(self) -> list[str]: ...


def _lines(reader: _Reader, path: Path) -> Iterator[list[str]]:
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a field of over 128 KiB, or a zero byte
            raise DatasetError(f"{path}:{reader.line_num}: cannot be read as CSV: {error}") from None


def _posix(cell: str, known: set[str]) -> str:
    """A relative path from a CSV, which may have backslashes, blanks or a leading ./, in the form of image names."""
    if cell in known:
        return cell
    return cell.strip().replace("\\", "/").removeprefix("./")


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


def _known_class(path: Path, row: tuple[int, str], index: dict[str, int]) -> int:
    line, label = row
    if label in index:
        return index[label]
    if label.isdecimal() and len(label) <= _MOST_DIGITS and int(label) < len(index):
        return int(label)
    raise DatasetError(f"{path}:{line}: {label!r} is not one of the {len(index)} classes given")
