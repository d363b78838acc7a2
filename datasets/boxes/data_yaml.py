"""Ultralytics' data.yaml: where the images of each split are, and the names of the classes."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import DatasetError
from datasets.image_folder import image_names
from datasets.text_file import text_from_file

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Split:
    """Images of one split.

    Attributes:
        folder: The folder that the names are relative to.
        names: The images, in name order.
        class_names: Class names by index; None if the file has none.
    """

    folder: Path
    names: tuple[str, ...]
    class_names: tuple[str, ...] | None


def split_from_yaml(path: Path, split: str) -> Split | None:
    """The images of a split; None where the file does not have it.

    Args:
        path: The file.
        split: train, val or test.

    Raises:
        DatasetError: The file is not of this form, or what it names is not there.
    """
    document = _document(path)
    entry = document.get(split)
    if entry is None or entry == "":
        return None
    entries = entry if isinstance(entry, list) else [entry]
    if not all(isinstance(each, str) for each in entries):
        raise DatasetError(
            f"{path}: {split}: expected a folder, a list of images in a .txt, or several, found {_short(entry)}"
        )
    root = _root(path, document)
    places = [_existing(path, split, root, each) for each in entries]
    files = sorted({file for place in places for file in _files(place)})
    folder = (
        places[0]
        if len(places) == 1 and places[0].is_dir()
        else Path(os.path.commonpath([Path(f).parent for f in files]))
    )
    names = tuple(Path(os.path.relpath(file, folder)).as_posix() for file in files)
    return Split(folder, names, _class_names(path, document))


def _document(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(text_from_file(path, "data.yaml"))
    except yaml.YAMLError as error:
        raise DatasetError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:  # dates that are none, numbers of thousands of digits, deep nesting
        raise DatasetError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(document, dict) or not {"train", "val", "test"} & document.keys():
        raise DatasetError(
            f"{path}: expected the keys 'train' or 'val', and 'names', as Ultralytics' data.yaml has them"
        )
    return document


def _root(path: Path, document: Mapping[str, Any]) -> Path:
    """The folder that splits are relative to: `path`, itself relative to the file or to the working folder."""
    stated = document.get("path")
    if stated is None or stated == "":
        return path.parent
    if not isinstance(stated, str):
        raise DatasetError(f"{path}: path: expected a folder, found {_short(stated)}")
    found = next((root for root in (path.parent / stated, Path(stated)) if os.path.isdir(root)), None)  # noqa: PTH112 - any text
    return found if found is not None else path.parent  # a path of the machine where it was written


def _existing(path: Path, split: str, root: Path, entry: str) -> Path:
    tried = [root / entry, path.parent / entry, root / entry.removeprefix("../")]
    found = next((place for place in tried if os.path.exists(place)), None)  # noqa: PTH110 - any text
    if found is None:
        raise DatasetError(f"{path}: {split}: expected a folder or a .txt of images, found nothing at {tried[0]}")
    return found


def _files(place: Path) -> list[str]:
    """The images in a folder, or in a text file with one a line, whose paths are relative to that file."""
    if place.is_dir():
        return [os.path.join(place, name) for name in image_names(place)]  # noqa: PTH118 - many
    lines = [line.strip() for line in text_from_file(place, "list of images").splitlines()]
    files = [os.path.normpath(place.parent / line) for line in lines if line]
    missing = [file for file in files if not os.path.isfile(file)]  # noqa: PTH113 - many
    if missing or not files:
        found = f"no image at {missing[0]}" if missing else "no lines"
        raise DatasetError(f"{place}: expected the path of an image on each line, found {found}")
    return files


def _class_names(path: Path, document: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = document.get("names")
    if names is None:
        return None
    if isinstance(names, dict) and names.keys() == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int | float) for name in names):
        raise DatasetError(
            f"{path}: names: expected a list of class names, or names by number from 0, found {_short(names)}"
        )
    return tuple(str(name) for name in names)


def _short(value: object) -> str:
    """A value for an error; aliases make what would be endless as text of a few bytes."""
    return f"{reprlib.repr(value):.80}"
