"""Finds the output that says which class each pixel is of, from shapes and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.outputs import OutputLayout, are_probabilities
from quant.tasks.segmentation.map_head import MOST_CLASSES, Kind, MapHead

Array = NDArray[Any]
_COARSEST = 8  # of a map's steps, pixels of the input, unless masks or the user say that it segments
_COARSEST_SURE = 64
_MOST_CHANNELS = 256  # of what nobody calls a segmentation: more are features
_UNDECIDED = 0.5  # share of one channel's probabilities that may lie between 0.1 and 0.9


@dataclass(frozen=True)
class MapEvidence:
    """What is known of a model.

    Attributes:
        layouts: Of its outputs.
        outputs: Of some images.
        size: Height and width of its input.
        certain: Do masks, or the user, say that it segments?
        classes: How many classes there are, where names tell.
        after_sigmoid: Names of outputs that a Sigmoid gives.
    """

    layouts: Sequence[OutputLayout]
    outputs: Sequence[Any]
    size: tuple[int, int]
    certain: bool = False
    classes: int | None = None
    after_sigmoid: frozenset[str] = frozenset()


def map_head_from_outputs(found: MapEvidence) -> MapHead | None:
    """The map of classes among the outputs; None where there is none.

    Of several, numbers of classes come first, then what is called `out` as the main one of two often is, then the
    finest.
    """
    heads = list(_heads(found))
    if not heads or (not found.certain and len(heads) > 2):  # the levels of a backbone have such shapes too
        return None
    return min(heads, key=lambda head: (head.kind != "numbers", head.name != "out", -_pixels(head, found)))


def _pixels(head: MapHead, found: MapEvidence) -> int:
    planes = head.planes(found.outputs[head.output])
    return int(planes.shape[2] * planes.shape[3])


def _heads(found: MapEvidence) -> Iterator[MapHead]:
    for place, layout in enumerate(found.layouts):
        if layout.axis is None:
            continue
        by_image = layout.by_image(found.outputs[place])
        for planes, last in _as_planes(by_image):
            head = _head(found, place, planes, channels_last=last)
            if head is not None:
                yield head
                break


def _as_planes(by_image: Array) -> Iterator[tuple[Array, bool]]:
    """An output as [images, channels, h, w] in the ways that it may be meant, and whether its channels come last."""
    if by_image.ndim == 3:
        yield by_image[:, None], False
    elif by_image.ndim == 4:
        yield by_image, False
        yield np.moveaxis(by_image, 3, 1), True


def _head(found: MapEvidence, place: int, planes: Array, *, channels_last: bool) -> MapHead | None:
    layout, channels = found.layouts[place], planes.shape[1]
    kind: Kind | None = None
    classes: int | None = channels
    if not planes.size or not _fits(planes.shape[2:], found):
        return None
    if channels == 1 and _are_numbers(planes):
        kind, classes = "numbers", found.classes
    elif planes.dtype.kind == "f" and channels == 1:
        kind, classes = _of_one_channel(planes, layout, found), 2
    elif planes.dtype.kind == "f" and channels <= MOST_CLASSES and _are_scores(planes, layout, found):
        kind = "scores"
    return None if kind is None else MapHead(place, layout.name, layout.axis or 0, kind, classes, channels_last)


def _fits(sides: Sequence[int], found: MapEvidence) -> bool:
    """Are these an input's sides, or those of a coarser grid over it?"""
    coarsest = _COARSEST_SURE if found.certain else _COARSEST
    steps = [given / side for given, side in zip(found.size, sides, strict=True)]
    return (
        min(sides) > 1
        and 0.99 < max(steps) <= coarsest
        and all(abs(side - given / max(steps)) <= 1 for given, side in zip(found.size, sides, strict=True))
    )


def _are_numbers(planes: Array) -> bool:
    """Are these whole numbers as classes have?"""
    if planes.dtype.kind not in "iubf":
        return False
    low, high = planes.min(), planes.max()
    return bool(-1 <= low <= high < MOST_CLASSES and (planes == np.rint(planes)).all())


def _of_one_channel(planes: Array, layout: OutputLayout, found: MapEvidence) -> Kind | None:
    """One channel for two classes. A depth or a picture is one too, but hardly ever that close to 0 and 1."""
    within = bool(((planes >= -1e-6) & (planes <= 1 + 1e-6)).all())
    if not found.certain:
        undecided = float(((planes > 0.1) & (planes < 0.9)).mean())
        if not (within and layout.name in found.after_sigmoid and undecided < _UNDECIDED):
            return None
    return "probability" if within else "logit"


def _are_scores(planes: Array, layout: OutputLayout, found: MapEvidence) -> bool:
    """Probabilities, or logits, which have both signs; features behind a Relu have one."""
    channels = planes.shape[1]
    if found.certain or channels == found.classes or layout.name in found.after_sigmoid or are_probabilities(planes, 1):
        return True
    return bool(channels <= _MOST_CHANNELS and planes.min() < 0 < planes.max())
