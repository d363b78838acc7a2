"""Where the masks of images lie: in a folder beside theirs or in one that is given, under the image's name.

The habits are those of PASCAL VOC (`JPEGImages`, `SegmentationClass`), Cityscapes (`leftImg8bit`, `gtFine`), ADE20K
(`images`, `annotations`), and of `images/` beside `masks/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from posixpath import splitext

from datasets.images.listing import FileNames
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
    stems = {splitext(name)[0] for name in names}
    return tuple(name for name in names if not _is_of_masks(name) and not _is_mask_beside(name, stems))


def _is_of_masks(name: str) -> bool:
    return not _OF_MASKS.isdisjoint(name.split("/")[:-1])


def _is_mask_beside(name: str, stems: set[str]) -> bool:
    stem = splitext(name)[0]
    return stem.endswith(_ENDINGS[1:]) and any(
        stem.endswith(ending) and stem.removesuffix(ending) in stems for ending in _ENDINGS[1:]
    )


def mask_files(folder: Path, names: Sequence[str], masks: Path | None = None) -> list[Path | None]:
    """The mask of each image; None where it has none.

    All masks of a set follow one habit, which is found with some of the images.

    Args:
        folder: The images' folder.
        names: The images, relative to it.
        masks: The masks' folder: below it they lie as the images do below `folder`, or all in it. By default one beside
            that of the images, or the images' own.
    """
    files, step = FileNames(), max(1, len(names) // _TRIED)

    @cache
    def places(of: PurePosixPath) -> list[tuple[str, Path]]:
        return [(place, where) for place, where in _places(folder, of, masks) if files[where]]

    def masks_of(name: str) -> dict[Habit, Path]:
        image = PurePosixPath(name)
        return _found(files, places(image.parent), image)

    habits = {habit: None for name in names[::step] for habit in masks_of(name)}
    if not habits:
        return [None] * len(names)
    found: list[Path | None] = []
    for name in names:
        paths = masks_of(name)
        found.append(next((paths[habit] for habit in habits if habit in paths), None))
    return found


Habit = tuple[str, str, str]


def _found(files: FileNames, places: Sequence[tuple[str, Path]], image: PurePosixPath) -> dict[Habit, Path]:
    """Masks of an image, each with its habit: folder, what follows the name, ending."""
    stems = {ending: image.stem + ending for ending in _ENDINGS}
    if image.stem.endswith(_CITYSCAPES):
        stems |= {ending: image.stem.removesuffix(_CITYSCAPES) + ending for ending in _ENDINGS[1:]}
    return {
        (place, ending, suffix): where / (stem + suffix)
        for place, where in places
        for ending, stem in stems.items()
        if place != _BESIDE or ending  # else it is the same picture in another format
        for suffix in SUFFIXES
        if stem + suffix in files[where]
    }


def _places(folder: Path, of: PurePosixPath, masks: Path | None) -> Iterator[tuple[str, Path]]:
    """Folders in which the masks of the images in the folder `of` may lie, each with the word that stands for it."""
    if masks is not None:
        yield "given", masks / of
        yield "given, flat", masks
        return
    parts = Path(folder.absolute(), of).parts
    for i in range(len(parts) - 1, 0, -1):  # the folder nearest to the image first
        for other in _MASK_FOLDERS.get(parts[i], ()):
            yield other, Path(*parts[:i], other, *parts[i + 1 :])
    yield _BESIDE, folder / of
