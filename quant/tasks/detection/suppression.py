"""From candidates to detections: a score for each class, the best ones, non-maximum suppression within a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.histograms.compiled import compiled
from quant.tasks.detection.boxes import Detections, Floats


@dataclass(frozen=True)
class Limits:
    """Which detections are kept; the defaults are those of a COCO evaluation, not of a deployment.

    Attributes:
        score: Candidates below this are dropped: an average precision needs the whole curve.
        overlap: Of two boxes of a class that overlap by more than this, the one with the lower score goes.
        candidates: The best so many candidates of an image enter the suppression.
        detections: The best so many of an image are kept.
    """

    score: float = 0.001
    overlap: float = 0.7
    candidates: int = 3000
    detections: int = 300


DEFAULT_LIMITS = Limits()


def best_candidates(boxes: Floats, scores: Floats, limits: Limits = DEFAULT_LIMITS) -> Detections:
    """The candidates of an image, best first; a box with a score in several classes counts once in each.

    Args:
        boxes: float64 [A, 4].
        scores: float64 [A, C].
        limits: What to keep.
    """
    finite = np.asarray(np.isfinite(boxes).all(axis=1))[:, None] & np.isfinite(scores)
    places, classes = np.nonzero(np.asarray((scores > limits.score) & finite))
    values = scores[places, classes]
    order = np.argsort(-values, kind="stable")[: limits.candidates]
    return Detections(boxes[places[order]], values[order], classes[order].astype(np.int64))


def suppressed(found: Detections, limits: Limits = DEFAULT_LIMITS) -> Detections:
    """Detections without those that overlap a better one of their class too much, best first."""
    ordered = found.kept(np.argsort(-found.scores, kind="stable"))
    keep = _kept(ordered.boxes, ordered.classes, limits.overlap, limits.detections)
    return ordered.kept(np.flatnonzero(keep))


@compiled
def _kept(boxes: Floats, classes: NDArray[np.int64], overlap: float, most: int) -> NDArray[np.bool_]:
    """Which boxes stay, going from the best to the worst: a box goes if one that stays overlaps it by more."""
    total = len(boxes)
    keep = np.zeros(total, np.bool_)
    stay = np.empty(total, np.int64)
    count = 0
    for i in range(total):
        if count == most:
            break
        width, height = boxes[i, 2] - boxes[i, 0], boxes[i, 3] - boxes[i, 1]
        area = max(width, 0.0) * max(height, 0.0)
        alone = True
        for place in range(count):
            j = stay[place]
            if classes[j] != classes[i]:
                continue
            across = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            down = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            if across <= 0 or down <= 0:
                continue
            other = max(boxes[j, 2] - boxes[j, 0], 0.0) * max(boxes[j, 3] - boxes[j, 1], 0.0)
            if across * down > overlap * (area + other - across * down):
                alone = False
                break
        if alone:
            keep[i] = True
            stay[count] = i
            count += 1
    return keep
