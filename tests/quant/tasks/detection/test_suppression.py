import numpy as np

from quant.tasks.detection.boxes import Detections, overlaps
from quant.tasks.detection.suppression import Limits, best_candidates, suppressed


def overlap(a, b):
    """Intersection over union of two boxes, by hand."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def plainly_suppressed(boxes, scores, classes, limit):
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept = []
    for i in order:
        if all(classes[i] != classes[j] or overlap(boxes[i], boxes[j]) <= limit for j in kept):
            kept.append(i)
    return kept


def some(seed, count=200, classes=3):
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(0, 60, (count, 2)), rng.uniform(2, 30, (count, 2))
    return np.concatenate([corner, corner + sides], axis=1), rng.random(count), rng.integers(0, classes, count)


def test_suppression_is_greedy_and_within_a_class():
    for seed in range(20):
        boxes, scores, classes = some(seed)
        found = suppressed(Detections(boxes, scores, classes), Limits(overlap=0.5))
        kept = plainly_suppressed(boxes, scores, classes, 0.5)
        np.testing.assert_array_equal(found.boxes, boxes[kept])
        np.testing.assert_array_equal(found.scores, scores[kept])
        np.testing.assert_array_equal(found.classes, classes[kept])


def test_no_more_are_kept_than_asked_for():
    boxes, scores, classes = some(3)
    found = suppressed(Detections(boxes, scores, classes), Limits(overlap=0.5, detections=7))
    np.testing.assert_array_equal(found.scores, scores[plainly_suppressed(boxes, scores, classes, 0.5)[:7]])


def test_boxes_turned_inside_out_and_nothing_at_all():
    inside_out = np.array([[9.0, 9, 1, 1], [9, 9, 1, 1]])
    assert len(suppressed(Detections(inside_out, np.array([0.9, 0.8]), np.zeros(2, np.int64)))) == 2
    assert len(suppressed(Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)))) == 0


def test_a_candidate_counts_in_every_class_that_it_scores_in():
    boxes = np.array([[0.0, 0, 5, 5], [20, 20, 30, 30]])
    found = best_candidates(boxes, np.array([[0.2, 0.9, 0.0], [0.0, 0.5, 0.6]]), Limits(score=0.1, candidates=3))
    assert found.classes.tolist() == [1, 2, 1]
    assert found.scores.tolist() == [0.9, 0.6, 0.5]
    np.testing.assert_array_equal(found.boxes, boxes[[0, 1, 1]])


def test_overlaps_are_those_worked_out_by_hand():
    boxes, _, _ = some(1, 12)
    expected = [[overlap(a, b) for b in boxes[:5]] for a in boxes]
    np.testing.assert_allclose(overlaps(boxes, boxes[:5]), expected, rtol=1e-12)
    assert overlaps(np.zeros((1, 4)), np.zeros((1, 4))).item() == 0
