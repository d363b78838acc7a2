"""Mean average precision of detections: COCO's figures from faster-coco-eval, and those of draws of the images."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.boxes.box_labels import ImageBoxes
from quant.evaluation.drop import SET_RESAMPLES, scores_of_draws
from quant.tasks.detection.boxes import Detections
from quant.tasks.detection.matching import ClassMatches, mean_precisions

_SIZES = ("small", "medium", "large")  # below 32 x 32 pixels, below 96 x 96, above


@dataclass(frozen=True)
class ClassPrecision:
    """One class's average precision, per cent.

    Attributes:
        index: The class.
        objects: How many there are.
        ap: Average precision at overlaps of 0.50 to 0.95; NaN without objects.
        ap50: At 0.50.
    """

    index: int
    objects: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class Precision:
    """A build's mean average precision, per cent; NaN where there are no such objects.

    Attributes:
        map: At overlaps of 0.50 to 0.95.
        map50: At 0.50.
        map75: At 0.75.
        sizes: mAP 50-95 of small, medium and large objects.
        classes: By class, those with objects.
        curve: Precision at 101 recalls from 0 to 1 at an overlap of 0.50, mean over the classes, per cent.
    """

    map: float
    map50: float
    map75: float
    sizes: dict[str, float]
    classes: tuple[ClassPrecision, ...]
    curve: tuple[float, ...]


def precision_of(truth: Sequence[ImageBoxes], detections: Sequence[Detections], classes: int) -> Precision:
    """COCO's figures of detections.

    Args:
        truth: The objects of each image.
        detections: What was found in each, in the same order.
        classes: How many classes there are.
    """
    objects = np.zeros(classes, np.int64)
    for each in truth:
        objects += np.bincount(each.classes[~each.crowd & (each.classes < classes)], minlength=classes)
    grid = _grid_of_precisions(truth, detections, classes)  # [overlaps, recalls, classes, sizes]; -1 for none
    by_class = [
        ClassPrecision(i, int(objects[i]), _mean(grid[:, :, i, 0]), _mean(grid[0, :, i, 0]))
        for i in range(classes)
        if objects[i]
    ]
    at_half = grid[0, :, :, 0]
    return Precision(
        map=_mean(grid[..., 0]),
        map50=_mean(grid[0, ..., 0]),
        map75=_mean(grid[5, ..., 0]),
        sizes={name: _mean(grid[..., place]) for place, name in enumerate(_SIZES, start=1)},
        classes=tuple(by_class),
        curve=tuple(_mean(at_half[k]) for k in range(len(at_half))),
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return 100 * float(known.mean()) if known.size else float("nan")


def _grid_of_precisions(
    truth: Sequence[ImageBoxes], detections: Sequence[Detections], classes: int
) -> NDArray[np.float64]:
    from faster_coco_eval import COCO, COCOeval_faster

    known = [{"id": i + 1, "name": str(i)} for i in range(classes)]
    images = [{"id": i + 1, "width": 1, "height": 1} for i in range(len(truth))]
    with _without_collector():
        annotations = _rows(truth, area=[each.areas for each in truth], iscrowd=[each.crowd for each in truth])
        found = _rows(detections, score=[each.scores for each in detections])
        if not found or not annotations:
            return _without_detections(truth, classes)
        expected: Any = COCO({"images": images, "annotations": annotations, "categories": known})
        evaluation = COCOeval_faster(expected, expected.loadRes(found), "bbox", print_function=_silent)
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"], np.float64)[..., -1]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python's collector of cycles from going through a million rows, which are in none, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _rows(images: Sequence[ImageBoxes | Detections], **columns: Sequence[NDArray[Any]]) -> list[dict[str, Any]]:
    """COCO's rows of boxes, numbered from 1, with more columns; Python's numbers, made of whole arrays at once."""
    if not any(len(each.boxes) for each in images):
        return []
    image = np.repeat(np.arange(1, len(images) + 1), [len(each.boxes) for each in images])
    boxes = np.concatenate([each.boxes for each in images])
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    label = np.concatenate([each.classes for each in images]).astype(np.int64) + 1
    more = [np.concatenate(parts) * 1 for parts in columns.values()]
    names = ("id", "image_id", "bbox", "category_id", *columns)
    found = zip(
        range(1, len(image) + 1),
        image.tolist(),
        boxes.tolist(),
        label.tolist(),
        *(c.tolist() for c in more),
        strict=True,
    )
    return [dict(zip(names, row, strict=True)) for row in found]


def _without_detections(truth: Sequence[ImageBoxes], classes: int) -> NDArray[np.float64]:
    """Precisions where nothing was found, or where there is nothing to find: 0 for every class that has objects."""
    grid = np.full((10, 101, classes, 4), -1.0)
    edges = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))
    for each in truth:
        for place, (low, high) in enumerate(edges):
            counted = ~each.crowd & (each.areas >= low) & (each.areas <= high) & (each.classes < classes)
            grid[:, :, each.classes[counted], place] = 0
    return grid


def _silent(*_: object) -> None:
    """Print nothing: the figures are the result."""


def bootstrapped(
    found: Sequence[ClassMatches], images: int, *, seed: int = 0, resamples: int = SET_RESAMPLES
) -> NDArray[np.float64]:
    """MAP 50-95 of all images, then that of each draw of images, per cent; see `scores_of_draws`.

    The matches of an image do not depend on the others, so nothing is matched again.

    Args:
        found: A build's matches, by class.
        images: How many images there are.
        seed: Seed of the draws.
        resamples: How many draws.
    """
    return scores_of_draws(
        lambda weights: 100 * mean_precisions(found, weights), images, seed=seed, resamples=resamples
    )
