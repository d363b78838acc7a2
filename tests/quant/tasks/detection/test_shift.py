import numpy as np
import pytest

from quant.tasks.detection.matching import ClassMatches
from quant.tasks.detection.shift import confidence_of


def found(scores, right, objects):
    order = np.argsort(-np.array(scores), kind="stable")
    status = np.repeat(np.array(right, np.int8)[order][None], 10, axis=0)
    return ClassMatches(np.zeros(len(scores), np.int64), status, np.array([objects]), np.array(scores, float)[order])


def test_thresholds_and_what_they_cost():
    """Two classes, five objects: by hand."""
    fp32 = [found([0.9, 0.6, 0.3, 0.1], [1, 1, 0, 1], 3), found([0.8, 0.2], [1, 1], 2)]
    at = confidence_of(fp32)
    assert (at.usual.threshold, at.usual.precision, at.usual.recall) == (0.25, 75, 60)  # 3 of 4 right, 3 of 5 found
    assert at.usual.f1 == pytest.approx(2 * 75 * 60 / 135)
    assert at.best.threshold == 0.1 and at.best.recall == 100
    assert at.keeping.threshold == 0.6 and at.keeping.precision == 100
    assert [place for place, count in enumerate(at.histogram) if count] == [1, 3, 5, 11, 15, 17]  # of 0.0475 each
    assert at.f1[19] == 0


def test_a_build_with_lower_scores_needs_a_lower_threshold():
    int8 = [found([0.45, 0.3, 0.15, 0.05], [1, 1, 0, 1], 3), found([0.4, 0.1], [1, 1], 2)]
    at = confidence_of(int8, recall=80)
    assert at.usual.recall == 60
    assert (at.keeping.threshold, at.keeping.recall, at.keeping.precision) == (0.1, 80, 80)
    assert confidence_of([*int8[:1], found([0.4], [1], 2)], recall=100).keeping is None


def test_crowds_and_builds_that_detect_nothing():
    crowd = [found([0.9, 0.5], [-1, 1], 1)]
    assert confidence_of(crowd).usual.precision == 100
    none = confidence_of([found([], [], 4)], recall=50)
    assert (none.usual.precision, none.usual.recall, none.usual.f1, none.keeping) == (0, 0, 0, None)
