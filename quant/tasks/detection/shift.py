"""How INT8 moves the confidence of detections, and which threshold keeps FP32's recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.tasks.detection.boxes import Floats
from quant.tasks.detection.matching import ClassMatches

USUAL = 0.25  # the threshold that detectors are usually run with
_BINS = 20
_LOWEST = 0.05  # of the histogram: below that there is mostly background


@dataclass(frozen=True)
class Operating:
    """A build at one threshold.

    Attributes:
        threshold: Detections with a lower score are dropped.
        precision: Share of the detections that find an object, per cent; 0 without any.
        recall: Share of the objects that are found, per cent.
    """

    threshold: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of both, per cent."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class Confidence:
    """A build's detections by their scores, at an overlap of 0.50 and over all classes.

    Attributes:
        usual: At the usual threshold.
        best: Where F1 is largest.
        keeping: At the highest threshold that has the baseline's recall at the usual one; None where none has.
        f1: F1 at thresholds 0.00, 0.05, ..., 0.95, per cent.
        histogram: Detections by score from 0.05 to 1, in 20 bins.
    """

    usual: Operating
    best: Operating
    keeping: Operating | None
    f1: tuple[float, ...]
    histogram: tuple[int, ...]


def confidence_of(found: Sequence[ClassMatches], recall: float | None = None) -> Confidence:
    """How precision and recall follow from the threshold.

    Args:
        found: The build's matches, by class.
        recall: The recall to keep, per cent; None for the build's own at the usual threshold.
    """
    scores, right, objects = _together(found)
    usual = _at(scores, right, objects, USUAL)
    wanted = usual.recall if recall is None else recall
    hits = np.cumsum(right)
    reached = hits / max(objects, 1) * 100
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + objects)
    f1[:-1][scores[:-1] == scores[1:]] = 0  # a threshold takes all detections of a score or none
    best = _at(scores, right, objects, float(scores[int(np.argmax(f1))])) if len(scores) else usual
    enough = np.flatnonzero(reached >= wanted - 1e-9)
    keeping = _at(scores, right, objects, float(scores[enough[0]])) if len(enough) and wanted > 0 else None
    return Confidence(
        usual,
        best,
        keeping,
        tuple(_at(scores, right, objects, t / 20).f1 for t in range(20)),
        tuple(int(n) for n in np.histogram(scores[scores >= _LOWEST], _BINS, (_LOWEST, 1))[0]),
    )


def _together(found: Sequence[ClassMatches]) -> tuple[Floats, NDArray[np.bool_], int]:
    """Scores and whether they find an object, best first, of all classes; how many objects there are."""
    counted = [each.found[0] >= 0 for each in found]
    scores = np.concatenate([np.zeros(0), *(each.scores[keep] for each, keep in zip(found, counted, strict=True))])
    right = np.concatenate(
        [np.zeros(0, bool), *(each.found[0][keep] == 1 for each, keep in zip(found, counted, strict=True))]
    )
    order = np.argsort(-scores, kind="stable")
    return scores[order], right[order], int(sum(each.objects.sum() for each in found))


def _at(scores: Floats, right: NDArray[np.bool_], objects: int, threshold: float) -> Operating:
    count = int(np.searchsorted(-scores, -threshold, side="right"))
    hits = int(right[:count].sum())
    return Operating(threshold, 100 * hits / count if count else 0.0, 100 * hits / objects if objects else 0.0)
