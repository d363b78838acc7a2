"""COCO's JSON: one file with `images`, `annotations` and `categories`.

Source: T.-Y. Lin et al., 2014, "Microsoft COCO: Common Objects in Context"; the format is that of object detection.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from datasets.boxes.box_labels import NO_BOXES, BoxLabels, StoredBoxes
from datasets.errors import DatasetError
from datasets.field_checks import shown
from datasets.text_file import text_from_file


def labels_from_coco(path: Path, folder: Path, names: Sequence[str]) -> BoxLabels:
    """The boxes of the images of a folder that a file lists; images that it does not list are left out.

    Categories are numbered in the order of their ids, as evaluations do, so that ids with gaps give indices without.

    Args:
        path: The JSON file.
        folder: The folder, for messages.
        names: Its images, relative to it. `file_name` is looked for as it is, then by its last part alone.

    Raises:
        DatasetError: The file is not of this form, or lists none of the images.
    """
    document = _document(path)
    numbers = sorted(
        {_number(path, f"categories[{i}].id", each.get("id")) for i, each in enumerate(document["categories"])}
    )
    index_of = {number: i for i, number in enumerate(numbers)}
    names_of = {each["id"]: str(each.get("name", each["id"])) for each in document["categories"]}
    images = _images(path, document["images"], names)
    if not images:
        first = document["images"][0].get("file_name") if document["images"] else None
        raise DatasetError(
            f"{path}: lists {len(document['images'])} images, none of them in {folder} (first {first!r}); give the "
            "folder that its file names start in"
        )
    annotations: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in document["annotations"]:
        number = annotation.get("image_id")
        if isinstance(number, int | float | str):
            annotations[number].append(annotation)
    stored = [_stored(path, annotations[number], index_of) for number in images.values()]
    count = sum(len(each.classes) for each in stored)
    left = len(names) - len(images)
    text = f"boxes: COCO JSON {path}, {count:,} boxes of {len(index_of)} classes in {len(images):,} images"
    if left:
        text += f"; {left:,} images of {folder} that it does not list are left out"
    return BoxLabels(
        tuple(images), stored.__getitem__, tuple(names_of[number] for number in numbers), text, tuple(numbers)
    )


def _document(path: Path) -> dict[str, list[Any]]:
    text = text_from_file(path, "COCO JSON file of labels")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits
        raise DatasetError(f"{path}: expected COCO JSON, found text that is no JSON ({error})") from None
    parts = ("images", "annotations", "categories")
    found = document if isinstance(document, dict) else {}
    for part in parts:
        if not isinstance(found.get(part), list) or not all(isinstance(each, dict) for each in found[part]):
            keys = ", ".join(list(found)[:6]) or type(document).__name__
            raise DatasetError(
                f"{path}: expected COCO JSON with lists {', '.join(parts)}, found {keys}; no list '{part}'"
            )
    return found


def _number(path: Path, where: str, value: Any) -> int:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or not isinstance(value, int):
        raise DatasetError(f"{path}: {where}: expected a whole number, found {shown(value)}")
    return value


def _images(path: Path, listed: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Ids of the images by their names in the folder, in the folder's order."""
    by_last: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_last[PurePosixPath(name).name].append(name)
    known, found = set(names), {}
    for i, image in enumerate(listed):
        file = image.get("file_name")
        if not isinstance(file, str):
            raise DatasetError(f"{path}: images[{i}].file_name: expected text, found {shown(file)}")
        file = file.replace("\\", "/").removeprefix("./")
        same = by_last[PurePosixPath(file).name]
        name = file if file in known else same[0] if len(same) == 1 else ""
        if name:
            if name in found:
                raise DatasetError(f"{path}: images[{i}]: '{name}' is listed twice")
            if not isinstance(image.get("id"), int | float | str):
                raise DatasetError(f"{path}: images[{i}].id: expected a number, found {shown(image.get('id'))}")
            found[name] = image["id"]
    return {name: found[name] for name in names if name in found}


def _stored(path: Path, annotations: Sequence[Mapping[str, Any]], index_of: Mapping[int, int]) -> StoredBoxes:
    rows, classes, crowd, areas = [], [], [], []
    for annotation in annotations:
        where = f"{path}: annotation {shown(annotation.get('id'))}"
        box = annotation.get("bbox")
        if not (isinstance(box, list) and len(box) == 4 and all(_is_finite(value) for value in box)):
            raise DatasetError(f"{where}: expected a bbox of 4 numbers (x, y, width, height), found {shown(box)}")
        category = annotation.get("category_id")
        if not isinstance(category, int | float) or category not in index_of:
            raise DatasetError(f"{where}: expected a category_id of 'categories', found {shown(category)}")
        x, y, width, height = map(float, box)
        rows.append([x, y, x + width, y + height])
        classes.append(index_of[int(category)])
        crowd.append(bool(annotation.get("iscrowd", 0)))
        area = annotation.get("area")
        areas.append(float(area) if area is not None and _is_finite(area) else np.nan)
    if not rows:
        return NO_BOXES
    return StoredBoxes(
        np.array(rows), np.array(classes, np.int64), False, np.array(crowd, bool), np.array(areas, np.float64)
    )


def _is_finite(value: Any) -> bool:  # noqa: ANN401 - JSON
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # whole numbers have any size
        return False
