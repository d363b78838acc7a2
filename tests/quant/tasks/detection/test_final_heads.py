"""Detections that a model gives ready, by several outputs, rows or NonMaxSuppression."""

import numpy as np
import pytest

from quant.onnx_graph.metadata import ModelMetadata
from tests.known_boxes import CLASSES, TRUTH, assert_read


def final_parts(*, yxyx=False, first_label=0, count=False):
    boxes, scores, labels = np.zeros((2, 9, 4), np.float32), np.zeros((2, 9), np.float32), np.zeros((2, 9), np.int64)
    for image, rows in enumerate(TRUTH):
        for place, (label, score, *box) in enumerate(rows):
            boxes[image, place] = np.array(box)[[1, 0, 3, 2]] / [64, 96, 64, 96] if yxyx else box
            scores[image, place], labels[image, place] = score, label + first_label
    counts = np.array([len(rows) for rows in TRUTH])
    if count:
        scores[1, 1:] = 0.5  # left over from whatever lay there: only the count says so
    return boxes, scores, labels, counts


def test_final_boxes_scores_and_labels():
    boxes, scores, labels, _ = final_parts()
    assert_read([labels, boxes, scores], names=["labels", "boxes", "scores"], text="final detections")


def test_final_detections_with_a_count():
    boxes, scores, labels, counts = final_parts(count=True)
    outputs = [counts[:, None].astype(np.int32), boxes, scores, labels.astype(np.int32)]
    assert_read(outputs, names=["num_dets", "det_boxes", "det_scores", "det_classes"])


def test_tensorflows_detections_are_y_before_x_in_fractions_and_counted_from_one():
    boxes, scores, labels, counts = final_parts(yxyx=True, first_label=1)
    outputs = [boxes, labels.astype(np.float32), scores, counts.astype(np.float32)]
    named = ["detection_boxes", "detection_classes", "detection_scores", "num_detections"]
    assert_read(outputs, names=named, text="yxyx in fractions")


@pytest.mark.parametrize("score_first", [False, True])
def test_rows_of_all_images(score_first):
    rows = [
        [image, *box, *((score, label) if score_first else (label, score))]
        for image, boxes in enumerate(TRUTH)
        for label, score, *box in boxes
    ]
    assert_read([np.array(rows, np.float32)], text="rows")


def test_what_nonmaxsuppression_selects():
    boxes, scores = np.zeros((2, 5, 4), np.float32), np.full((2, CLASSES, 5), 0.3, np.float32)
    selected = []
    boxes[...] = np.arange(5)[None, :, None] * 4 + np.array([0, 0, 9, 9])
    for image, rows in enumerate(TRUTH):
        for place, (label, score, *box) in enumerate(rows):
            boxes[image, place], scores[image, label, place] = box, score
            selected.append([image, label, place])
    outputs = [boxes, scores, np.array(selected, np.int64)]
    assert_read(outputs, names=["boxes", "scores", "selected"], metadata=ModelMetadata(), text="NonMaxSuppression")
