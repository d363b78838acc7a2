"""What a folder's sub-folders are: classes, splits (train/, val/), or images beside masks and labels."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.images.listing import in_words

_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "photos", "pictures", "frames"})
_COMPANIONS = frozenset(
    {
        "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "groundtruth", "ground_truth", "gtfine",
        "gtcoarse", "segmentation", "segmentations", "segmentationclass", "segmentationclassaug", "segmentationobject",
        "labelids", "imagesets", "targets", "depth",
    }
)  # fmt: skip
_SPLIT = re.compile(
    r"(?:(train|training)|(val|valid|validation|dev)|(test|testing))(?:[-_ ]?(?:set|data|images|imgs))?[-_]?\d{0,4}"
)
_NAMES_OF_SPLITS = ("train", "val", "test")
_SHOWN = 4  # folders in a line


@dataclass(frozen=True)
class Layout:
    """Images of a folder, after it was found what its sub-folders are.

    Attributes:
        names: The images, POSIX paths relative to the folder, sorted.
        classes: The folder of each that may be its class, below those that are splits or hold all images; None where an
            image is in none.
        splits: The split of each; None where there are none.
        left_out: Number of images that are none of the model's inputs, by folder: masks and the like.
    """

    names: tuple[str, ...]
    classes: tuple[str | None, ...]
    splits: tuple[str | None, ...]
    left_out: Mapping[str, int]

    @property
    def present(self) -> tuple[str, ...]:
        """The splits that there are."""
        return tuple(split for split in _NAMES_OF_SPLITS if split in self.splits)

    def of_split(self, split: str) -> Layout:
        """The images of one split; all images where there are no splits.

        Args:
            split: The split that is wanted: train, val or test. Where it is missing, the first that there is; for `val`
                rather `test` than `train`.
        """
        order = ("val", "test", "train") if split == "val" else (split, *_NAMES_OF_SPLITS)
        wanted = next((each for each in order if each in self.splits), None)
        if wanted is None:
            return self
        kept = [i for i, each in enumerate(self.splits) if each == wanted]
        others = Counter(each for each in self.splits if each != wanted)
        left_out = dict(self.left_out) | {f"the split {each}": count for each, count in others.items()}
        return Layout(*_chosen(self, kept), left_out)

    def text(self, folder: Path, others: Mapping[str, int]) -> str:
        """What is read and what is not, in a line.

        Args:
            folder: The folder.
            others: Number of its files of other kinds, by extension.
        """
        told = f"{folder}: {len(self.names):,} images"
        folders = Counter(name.rpartition("/")[0] for name in self.names)
        if set(folders) != {""}:
            shown = [f"{place or '.'} {count:,}" for place, count in list(folders.items())[:_SHOWN]]
            more = f", and {len(folders) - _SHOWN:,} more" if len(folders) > _SHOWN else ""
            told += f" in {len(folders):,} folder{'s' * (len(folders) > 1)} ({', '.join(shown)}{more})"
        unread = [f"{count:,} images of {place}" for place, count in self.left_out.items()]
        if others:
            unread.append(in_words(others))
        return f"{told}; not read: {', '.join(unread)}" if unread else told


def layout_from_names(names: Sequence[str], classes: Collection[str] = ()) -> Layout:
    """Find out what the sub-folders of a folder of images are, by their names.

    Folders called `images` are taken alone where masks, labels or annotations lie beside them. Folders called `train`,
    `val` or `test` are splits if all are, and never classes, unless `classes` has all of them.

    Args:
        names: The images, POSIX paths relative to the folder.
        classes: Words for classes that are known.
    """
    found: dict[str, tuple[str | None, str | None]] = {}
    left_out: Counter[str] = Counter()
    _settle([(name, name.split("/")[:-1]) for name in names], "", None, frozenset(classes), found, left_out)
    kept = sorted(found)
    return Layout(
        tuple(kept), tuple(found[name][0] for name in kept), tuple(found[name][1] for name in kept), dict(left_out)
    )


def may_have_splits(folder: Path) -> bool:
    """Can a folder have splits, as far as the names in it tell? Looking at all below it takes far longer."""
    with contextlib.suppress(OSError):
        names = [entry.name.lower() for entry in os.scandir(folder)]
        return any(_split_of(name) or name in _IMAGES for name in names)
    return False


def _settle(
    images: list[tuple[str, list[str]]],
    above: str,
    split: str | None,
    classes: frozenset[str],
    found: dict[str, tuple[str | None, str | None]],
    left_out: Counter[str],
) -> None:
    """Give each image its class's folder and its split; `images` have the folders that are left of their paths."""
    tops = {folders[0] if folders else "" for _, folders in images}
    if "" not in tops and not tops <= classes:
        companions = _companions(tops)
        if companions:
            for _, folders in images:
                if folders[0] in companions:
                    left_out[f"{above}{folders[0]}/"] += 1
            images = [(name, folders) for name, folders in images if folders[0] not in companions]
            tops -= companions
        if split is None and all(_split_of(top) for top in tops):
            for top in sorted(tops):
                _settle(_below(images, top), f"{above}{top}/", _split_of(top), classes, found, left_out)
            return
        top = next(iter(tops), "")
        again = split is not None and _split_of(top) == split  # unpacked into a folder of its own name
        if len(tops) == 1 and (companions or again or top.lower() in _IMAGES):
            _settle(_below(images, top), f"{above}{top}/", split, classes, found, left_out)
            return
    for name, folders in images:
        found[name] = (folders[0] if folders else None), split


def _below(images: Iterable[tuple[str, list[str]]], top: str) -> list[tuple[str, list[str]]]:
    return [(name, folders[1:]) for name, folders in images if folders[0] == top]


def _companions(tops: set[str]) -> set[str]:
    """The folders of masks or labels, where the rest are images: one folder, folders called so, or splits."""
    companions = {top for top in tops if top.lower() in _COMPANIONS}
    rest = tops - companions
    if len(rest) == 1 or (rest and all(_split_of(top) or top.lower() in _IMAGES for top in rest)):
        return companions
    return set()


def _split_of(folder: str) -> str | None:
    matched = _SPLIT.fullmatch(folder.lower())
    return (
        None
        if matched is None
        else next(name for name, group in zip(_NAMES_OF_SPLITS, matched.groups(), strict=True) if group)
    )


def _chosen(
    layout: Layout, kept: Sequence[int]
) -> tuple[tuple[str, ...], tuple[str | None, ...], tuple[str | None, ...]]:
    return (
        tuple(layout.names[i] for i in kept),
        tuple(layout.classes[i] for i in kept),
        tuple(layout.splits[i] for i in kept),
    )
