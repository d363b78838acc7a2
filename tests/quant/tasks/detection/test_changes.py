"""Boxes that were lost, gained or moved, in scenes where that is known."""

import numpy as np
import pytest

from quant.tasks.detection.boxes import Detections
from quant.tasks.detection.changes import changed_boxes


def found(*rows):
    """Detections out of (left, top, right, bottom, class, score)."""
    values = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 5], values[:, 4].astype(np.int64))


BOX = (10, 10, 30, 30, 0, 0.9)
FAR = (100, 100, 140, 140, 1, 0.8)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([BOX, FAR], []),
        ([FAR], ["lost"]),
        ([BOX, FAR, (50, 50, 70, 70, 0, 0.5)], ["gained"]),
        ([(10, 10, 30, 30, 1, 0.9), FAR], ["gained", "lost"]),  # of another class
        ([(13, 10, 33, 30, 0, 0.9), FAR], ["moved"]),  # 17 of 23 columns are shared
        ([(11, 10, 31, 30, 0, 0.9), FAR], []),  # 19 of 21
        ([(22, 10, 42, 30, 0, 0.9), FAR], ["gained", "lost"]),
        ([(10, 10, 30, 30, 0, 0.2), FAR], ["lost"]),  # too faint
        ([BOX, BOX, FAR], ["gained"]),  # twice
        ([], ["lost", "lost"]),
        ([(np.nan, 10, 30, 30, 0, 0.9), BOX, FAR], []),
    ],
)
def test_what_changed(after, expected):
    assert sorted(each.kind for each in changed_boxes(found(BOX, FAR), found(*after), 0.25)) == expected


def test_a_box_that_moved_has_both_places():
    (moved,) = changed_boxes(found(BOX), found((13, 10, 33, 30, 0, 0.7)), 0.25)
    assert moved.row("cat") == {
        "kind": "moved", "box": [13, 10, 33, 30], "before": [10, 10, 30, 30], "name": "cat", "score": 0.7,
    }  # fmt: skip


def test_the_surest_box_takes_first():
    """Two of FP32's boxes, one of the build's: the surer one keeps it."""
    (lost,) = changed_boxes(found((10, 10, 30, 30, 0, 0.5), (11, 10, 31, 30, 0, 0.9)), found(BOX), 0.25)
    assert (lost.kind, lost.score) == ("lost", 0.5)


def test_nothing_in_fp32():
    assert [each.kind for each in changed_boxes(found(), found(BOX), 0.25)] == ["gained"]
    assert changed_boxes(found(), found(), 0.25) == []
