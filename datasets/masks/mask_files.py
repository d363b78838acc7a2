"""Where the masks of images lie: in a folder beside theirs or in one that is given, under the image's name.

The habits are those of PASCAL VOC (`JPEGImages`, `SegmentationClass`), Cityscapes (`leftImg8bit`, `gtFine`), ADE20K
(`images`, `annotations`), and of `images/` beside `masks/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from datasets.masks.reading import SUFFIXES

_MASK_FOLDERS = {
    "JPEGImages": ("SegmentationClass", "SegmentationClassAug", "SegmentationClassRaw"),
    "leftImg8bit": ("gtFine", "gtCoarse"),
    **dict.fromkeys(
        ("images", "imgs", "image", "img"),
        ("masks", "mask", "annotations", "labels", "segmentations", "SegmentationClass", "ground_truth", "gt"),
    ),
}
_OF_MASKS = {folder for folders in _MASK_FOLDERS.values() for folder in folders}
# What follows the image's name in the mask's; Cityscapes puts it instead of `_leftImg8bit`.
_ENDINGS = ("", "_mask", "_labelTrainIds", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelIds", "_seg", "_label")
_BESIDE = "beside"
_CITYSCAPES = "_leftImg8bit"
_TRIED = 50  # images that are looked at to find the habit of a set


def without_masks(names: Sequence[str]) -> tuple[str, ...]:
    """Names of images without those that lie in a folder of masks, or are called as the mask of another."""
    stems = {str(PurePosixPath(name).with_suffix("")) for name in names}
    return tuple(name for name in names if not _is_of_masks(name) and not _is_mask_beside(name, stems))


def _is_of_masks(name: str) -> bool:
    return not _OF_MASKS.isdisjoint(PurePosixPath(name).parts[:-1])


def _is_mask_beside(name: str, stems: set[str]) -> bool:
    stem = str(PurePosixPath(name).with_suffix(""))
    return any(stem.endswith(ending) and stem.removesuffix(ending) in stems for ending in _ENDINGS[1:])


def mask_files(folder: Path, names: Sequence[str], masks: Path | None = None) -> list[Path | None]:
    """The mask of each image; None where it has none.

    All masks of a set follow one habit, which is found with some of the images.

    Args:
        folder: The images' folder.
        names: The images, relative to it.
        masks: The masks' folder: below it they lie as the images do below `folder`, or all in it. By default one beside
            that of the images, or the images' own.
    """
    files, step = _Listings(), max(1, len(names) // _TRIED)
    habits = {habit: None for name in names[::step] for habit in _found(files, folder, name, masks)}
    if not habits:
        return [None] * len(names)
    found: list[Path | None] = []
    for name in names:
        paths = _found(files, folder, name, masks)
        found.append(next((paths[habit] for habit in habits if habit in paths), None))
    return found


class _Listings(dict[Path, frozenset[str]]):
    """The names of the files in each folder that is asked for, read once."""

    def __missing__(self, folder: Path) -> frozenset[str]:
        try:
            with os.scandir(folder) as entries:
                names = frozenset(entry.name for entry in entries if entry.is_file())
        except OSError:
            names = frozenset()
        self[folder] = names
        return names


Habit = tuple[str, str, str]


def _found(files: _Listings, folder: Path, name: str, masks: Path | None) -> dict[Habit, Path]:
    """Masks of an image, each with its habit: folder, what follows the name, ending."""
    image = PurePosixPath(name)
    stems = {ending: image.stem + ending for ending in _ENDINGS}
    if image.stem.endswith(_CITYSCAPES):
        stems |= {ending: image.stem.removesuffix(_CITYSCAPES) + ending for ending in _ENDINGS[1:]}
    return {
        (place, ending, suffix): where / (stem + suffix)
        for place, where in _places(folder, image, masks)
        if files[where]
        for ending, stem in stems.items()
        if place != _BESIDE or ending  # else it is the same picture in another format
        for suffix in SUFFIXES
        if stem + suffix in files[where]
    }


def _places(folder: Path, image: PurePosixPath, masks: Path | None) -> Iterator[tuple[str, Path]]:
    """Folders in which an image's mask may lie, each with the word that stands for it."""
    if masks is not None:
        yield "given", masks / image.parent
        yield "given, flat", masks
        return
    parts = Path(folder.absolute(), image).parts
    for i in range(len(parts) - 2, 0, -1):  # the folder nearest to the image first
        for other in _MASK_FOLDERS.get(parts[i], ()):
            yield other, Path(*parts[:i], other, *parts[i + 1 : -1])
    yield _BESIDE, folder / image.parent
