"""Which detections find an object, image by image, and average precision out of that: what a bootstrap draws from.

The rules are those of COCO's evaluation (T.-Y. Lin et al., 2014, "Microsoft COCO: Common Objects in Context", and its
reference implementation): detections go from the best to the worst, each takes the object of its class that it overlaps
most; at most 100 a class and image count; precision is interpolated at 101 recalls. Figures that a report shows come
from faster-coco-eval; here are the same ones for the images of any draw, which it cannot give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.histograms.compiled import compiled
from datasets.boxes.box_labels import ImageBoxes
from quant.tasks.detection.boxes import Detections, Floats

OVERLAPS = np.linspace(0.5, 0.95, 10)  # the ten thresholds of mAP 50-95
MOST = 100  # detections of a class in an image
_RECALLS = np.linspace(0, 1, 101)

Ints = NDArray[np.int64]
Found = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of one class in all images, best first.

    Attributes:
        images: int64 [D], the image of each.
        found: int8 [10, D], by overlap: 1 finds an object, 0 finds none, -1 does not count.
        objects: int64 [N], objects of the class in each image.
        scores: float64 [D].
    """

    images: Ints
    found: Found
    objects: Ints
    scores: Floats


def matches(truth: Sequence[ImageBoxes], detections: Sequence[Detections], classes: int) -> list[ClassMatches]:
    """Match the detections of all images with their objects, for each class.

    Args:
        truth: The objects of each image.
        detections: What was found in each image, in the same order.
        classes: How many classes there are.
    """
    ordered = [found.kept(np.argsort(-found.scores, kind="stable")) for found in detections]
    found = _concatenated([each.boxes for each in ordered], (0, 4), np.float64)
    labels = _concatenated([each.classes for each in ordered], (0,), np.int64)
    scores = _concatenated([each.scores for each in ordered], (0,), np.float64)
    image = np.repeat(np.arange(len(truth)), [len(each) for each in ordered])
    status = _matched(
        found,
        labels,
        _starts([len(each) for each in ordered]),
        _concatenated([each.boxes for each in truth], (0, 4), np.float64),
        _concatenated([each.classes for each in truth], (0,), np.int64),
        _concatenated([each.crowd for each in truth], (0,), np.bool_),
        _starts([len(each) for each in truth]),
        OVERLAPS,
        MOST,
    )
    objects = np.zeros((classes, len(truth)), np.int64)
    for i, each in enumerate(truth):
        known = each.classes[~each.crowd & (each.classes < classes) & (each.classes >= 0)]
        objects[:, i] = np.bincount(known, minlength=classes)
    by_class = []
    for label in range(classes):
        mine = np.flatnonzero(labels == label)
        order = mine[np.argsort(-scores[mine], kind="stable")]
        by_class.append(ClassMatches(image[order], status[:, order], objects[label], scores[order]))
    return by_class


def mean_precisions(found: Sequence[ClassMatches], weights: NDArray[np.int64]) -> Floats:
    """MAP 50-95 of draws of the images, 0..1: float64 [draws]; NaN where no object was drawn.

    Args:
        found: The matches, by class.
        weights: int64 [draws, N], how often each image was drawn.
    """
    sums, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for each in found:
        objects = weights @ each.objects
        values = _precision_sums(each.images, each.found, weights, objects.astype(np.float64), _RECALLS)
        drawn = objects > 0
        sums[drawn] += values[drawn] / len(_RECALLS) / len(OVERLAPS)
        counted += drawn
    means: Floats = np.divide(sums, counted, out=np.full(len(weights), np.nan), where=counted > 0)
    return means


def _concatenated(parts: Sequence[NDArray[Any]], empty: tuple[int, ...], kind: type) -> NDArray[Any]:
    return np.ascontiguousarray(np.concatenate([np.zeros(empty, kind), *parts]), kind)


def _starts(lengths: Sequence[int]) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@compiled
def _overlap(box: Floats, other: Floats, crowd: bool) -> float:
    """Intersection over union; of a crowd, over the detection's own area."""
    across = min(box[2], other[2]) - max(box[0], other[0])
    down = min(box[3], other[3]) - max(box[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    area = (box[2] - box[0]) * (box[3] - box[1])
    whole = area if crowd else area + (other[2] - other[0]) * (other[3] - other[1]) - across * down
    return float(across * down / whole)


@compiled
def _matched(
    boxes: Floats,
    labels: Ints,
    starts: Ints,
    objects: Floats,
    kinds: Ints,
    crowd: NDArray[np.bool_],
    object_starts: Ints,
    thresholds: Floats,
    most: int,
) -> Found:
    """Status of every detection at every threshold, see `ClassMatches.found`; best first within each image."""
    status = np.zeros((len(thresholds), len(boxes)), np.int8)
    for image in range(len(starts) - 1):
        first, last = object_starts[image], object_starts[image + 1]
        taken = np.zeros((len(thresholds), last - first), np.bool_)
        for d in range(starts[image], starts[image + 1]):
            rank = 0
            for other in range(starts[image], d):
                rank += labels[other] == labels[d]
            if rank >= most:
                status[:, d] = -1
                continue
            for t in range(len(thresholds)):
                best, chosen = min(thresholds[t], 1 - 1e-10), -1
                for of_crowd in (False, True):  # a crowd is taken only where no object is
                    if of_crowd and chosen >= 0:
                        break
                    for g in range(first, last):
                        if kinds[g] != labels[d] or crowd[g] != of_crowd or (taken[t, g - first] and not of_crowd):
                            continue
                        overlap = _overlap(boxes[d], objects[g], of_crowd)
                        if overlap >= best:
                            best, chosen = overlap, g
                if chosen >= 0:
                    taken[t, chosen - first] = True
                    status[t, d] = -1 if crowd[chosen] else 1
    return status


@compiled
def _sum_up(images: Ints, status: NDArray[np.int8], weights: Ints, detected: Floats) -> None:
    """How much was detected in a draw up to each detection, those that are ignored left out."""
    so_far = 0.0
    for d in range(len(images)):
        if status[d] >= 0:
            so_far += weights[images[d]]
        detected[d] = so_far


@compiled
def _interpolated(recall: Floats, precision: Floats, recalls: Floats) -> float:
    """The sum, over some recalls, of the highest precision that is reached at each or a higher one."""
    total, best, k = 0.0, 0.0, len(recalls) - 1
    for place in range(len(recall) - 1, -1, -1):
        while k >= 0 and recalls[k] > recall[place]:
            total += best
            k -= 1
        best = max(best, precision[place])
    return total + best * (k + 1)


@compiled
def _precision_sums(images: Ints, found: Found, weights: Ints, objects: Floats, recalls: Floats) -> Floats:
    """Interpolated precisions, summed over recalls and thresholds: float64 [draws].

    A wrong detection never has a higher precision than the right one before it, and has the same recall. So only right
    ones are looked at, of which there are few; how much was detected up to each is summed up once for all thresholds.
    """
    thresholds, total = found.shape
    sums = np.zeros(len(weights))
    recall, precision, detected = np.empty(total), np.empty(total), np.empty(total)
    right_places, rights = np.empty((thresholds, total), np.int64), np.zeros(thresholds, np.int64)
    some_ignored = np.zeros(thresholds, np.bool_)
    for t in range(thresholds):
        for d in range(total):
            if found[t, d] == 1:
                right_places[t, rights[t]] = d
                rights[t] += 1
            elif found[t, d] < 0:
                some_ignored[t] = True
    for draw in range(len(weights)):
        if objects[draw] == 0:
            continue
        summed = False
        for t in range(thresholds):
            if some_ignored[t] or not summed:
                _sum_up(images, found[t], weights[draw], detected)
                summed = not some_ignored[t]
            right, count = 0.0, 0
            for place in range(rights[t]):
                d = right_places[t, place]
                weight = weights[draw, images[d]]
                if weight == 0:
                    continue
                right += weight
                recall[count] = right / objects[draw]
                precision[count] = right / (detected[d] + 2.220446049250313e-16)
                count += 1
            sums[draw] += _interpolated(recall[:count], precision[:count], recalls)
    return sums
