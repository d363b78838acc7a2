"""Labels of images, and those that the names of folders are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.labels.classes import Classes

NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of images.

    Attributes:
        indices: Class index of every image, int64 [N], -1 for none; or numbers that are no classes (ages, say),
            float64 [N], NaN for none.
        class_names: Class names by index; None if unknown.
        text: How they were read, for people; empty where folders say them.
        missing: Number of images without a label.
    """

    indices: NDArray[Any]
    class_names: tuple[str, ...] | None
    text: str = ""
    missing: int = 0


def are_labelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which images have a label, bool [N]; of several values, any: NaN, -1 or an empty text is none."""
    kind = labels.dtype.kind
    if kind not in "fiU" or (labels.ndim == 1 and kind == "U"):
        return np.ones(len(labels), bool)
    known = ~np.isnan(labels) if kind == "f" else labels != (NO_LABEL if kind == "i" else "")
    found: NDArray[np.bool_] = known.reshape(len(labels), -1).any(axis=1)
    return found


def unlabelled_warning(folder: Path, names: Sequence[str], labels: NDArray[Any]) -> str:
    """What to say of a folder where some images have no label."""
    known = are_labelled(labels)
    return (
        f"{folder}: {int((~known).sum()):,} of {len(names):,} images have no label, {names[int(np.argmin(known))]!r} "
        "first; they may serve calibration, and are not evaluated"
    )


def labels_from_folders(
    folder: Path, names: Sequence[str], found: Sequence[str | None], classes: Classes | None
) -> Labels | None:
    """Labels from the folders that are classes; None for a flat folder.

    Args:
        folder: The images' folder.
        names: The images, relative to it.
        found: The class's folder of each; None where an image is in none.
        classes: The classes in the desired order; by default the folders in alphabetical order.

    Raises:
        DatasetError: Some images are in no class's folder and others are, or a folder is not a class.
    """
    flat = [name for name, label in zip(names, found, strict=True) if label is None]
    nested = [name for name, label in zip(names, found, strict=True) if label is not None]
    if not nested:
        return None
    if flat:
        raise DatasetError(
            f"{folder}: {len(flat)} images are in the folder itself (first {flat[0]!r}) and {len(nested)} in "
            f"sub-folders (first {nested[0]!r}); use one sub-folder per class for all images, put all images in the "
            "folder itself, or give the labels in a CSV"
        )
    labels = [label for label in found if label is not None]
    class_names = classes.names if classes is not None else tuple(sorted(set(labels)))
    index = classes.index if classes is not None else {name: i for i, name in enumerate(class_names)}
    for name, label in zip(names, labels, strict=True):
        if label not in index:
            raise DatasetError(
                f"{folder}: folder {label!r} (of {name!r}) is not one of the {len(class_names)} classes given"
            )
    return Labels(np.array([index[label] for label in labels], np.int64), class_names)


def labels_in_order(path: Path, labels: Labels, classes: Classes) -> Labels:
    """The same labels with other class names. If names are known, they decide, not the indices.

    Args:
        path: Where the labels come from, for the error.
        labels: The labels as they are there.
        classes: The classes in the desired order.

    Raises:
        DatasetError: A label is not among the classes.
    """
    used = np.unique(labels.indices)
    if labels.class_names is None:
        if len(used) and used[-1] >= len(classes):
            raise DatasetError(f"{path}: label {used[-1]} is not one of the {len(classes)} classes given")
        return Labels(labels.indices, classes.names)
    unknown = [labels.class_names[label] for label in used if labels.class_names[label] not in classes.index]
    if unknown:
        raise DatasetError(f"{path}: class {unknown[0]!r} is not one of the {len(classes)} classes given")
    places = np.array([classes.index.get(name, -1) for name in labels.class_names], np.int64)
    return Labels(places[labels.indices], classes.names)
