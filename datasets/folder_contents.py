"""What a folder's files are together: which of them count, their labels, and what is said about both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from datasets.images.layout import Layout, layout_from_names
from datasets.labels import Classes, Labels, labels_from_file, labels_from_folders, read_classes
from datasets.labels.class_labels import unlabelled_warning


@dataclass(frozen=True, eq=False)
class FolderContents:
    """Files of a folder and their labels.

    Attributes:
        names: The files, POSIX paths relative to the folder, in order.
        labels: Class index of every file, int64 [N], -1 for none; or numbers, float64 [N], NaN for none; None if there
            are no labels.
        class_names: Class names by index; None if unknown.
        notes: What is read and what is not, and how the labels were read, in lines for people.
        warnings: What a user should know of them, in lines.
    """

    names: tuple[str, ...]
    labels: NDArray[Any] | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def folder_contents(
    folder: Path,
    names: Sequence[str],
    extensions: frozenset[str],
    *,
    others: Mapping[str, int] | None = None,
    labels: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    unlabelled: bool = False,
    split: str | None = None,
) -> FolderContents:
    """Find the files that count, and their labels.

    Args:
        folder: The folder.
        names: Its files of the kind that is read.
        extensions: That kind's, in small letters.
        others: Number of other files by extension; None if `names` were chosen by somebody, who wants all of them.
        labels: A table of files and labels, see `datasets.labels.label_file`; it replaces labels from sub-folders.
        classes: Class names in the order of the model's outputs, or a file with one a line.
        unlabelled: Do sub-folders say nothing about what is in the files?
        split: Of a folder with train/ and val/ above all else, the files of which; None for all of them.

    Raises:
        DatasetError: The labels do not fit.
    """
    given = None if classes is None else read_classes(classes)
    notes: tuple[str, ...] = ()
    if others is None:
        whole = layout = Layout(tuple(names), tuple(_first_folder(name) for name in names), (None,) * len(names), {})
    else:
        whole = layout_from_names(names, () if given is None else given.index)
        layout = whole if split is None else whole.of_split(split)
        notes = (layout.text(folder, others),)
    class_names = None if given is None else given.names
    if unlabelled:
        return FolderContents(layout.names, None, class_names, notes)
    if labels is not None:
        found: Labels | None = labels_from_file(Path(labels), folder, layout.names, given, extensions)
    else:  # the classes of all splits: one of them may lack some
        known = given if given is not None else _classes_of(whole)
        found = labels_from_folders(folder, layout.names, layout.classes, known)
    if found is None:
        return FolderContents(layout.names, None, class_names, notes)
    notes += (found.text,) if found.text else ()
    warnings: tuple[str, ...] = ()
    if found.missing:
        warnings = (unlabelled_warning(folder, layout.names, found.indices),)
    return FolderContents(layout.names, found.indices, found.class_names, notes, warnings)


def _first_folder(name: str) -> str | None:
    return name.split("/", 1)[0] if "/" in name else None


def _classes_of(layout: Layout) -> Classes | None:
    """The classes that folders are, of all splits together; None where no file is in one."""
    names = sorted({each for each in layout.classes if each is not None})
    return read_classes(names) if names else None
