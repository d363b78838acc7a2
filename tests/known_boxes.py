"""Outputs of detectors that are written point by point from boxes that are known, and must be read back as those."""

import math

import numpy as np

from quant.onnx_graph.metadata import ModelMetadata
from quant.tasks.detection.finding import Evidence, head_from_outputs
from quant.tasks.detection.suppression import Limits

SIZE = (64, 96)  # height and width
CLASSES = 3
# Of two images: class, score, left, top, right, bottom. Each is alone in its class or far from the others.
TRUTH = [
    [(0, 0.9, 10.0, 12.0, 30.0, 40.0), (1, 0.8, 50.0, 20.0, 80.0, 60.0), (0, 0.7, 60.0, 8.0, 90.0, 30.0)],
    [(2, 0.95, 8.0, 8.0, 40.0, 56.0)],
]
FAINT = 2e-4  # scores where there is nothing, below the limit
NAMED = ModelMetadata(names=("a", "b", "c"))


def points(strides, offset):
    """(x, y, stride) of every point, in the order of exporters: level by level, row by row."""
    found = []
    for stride in strides:
        for row in range(math.ceil(SIZE[0] / stride)):
            found += [
                ((c + offset) * stride, (row + offset) * stride, stride) for c in range(math.ceil(SIZE[1] / stride))
            ]
    return found


def at_points(grid, width, write, background):
    """An array [2, points, width]: `write` gives the row of a box at the point that is nearest to its centre."""
    rng = np.random.default_rng(0)
    rows = np.stack([[background(rng, point) for point in grid] for _ in TRUTH]).astype(np.float32)
    assert rows.shape == (len(TRUTH), len(grid), width)
    for image, boxes in enumerate(TRUTH):
        for label, score, *box in boxes:
            centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            at = min(range(len(grid)), key=lambda i: (grid[i][0] - centre[0]) ** 2 + (grid[i][1] - centre[1]) ** 2)
            rows[image, at] = write(grid[at], label, score, box)
    return rows


def scores_of(label, score, classes=CLASSES):
    return [score if i == label else FAINT for i in range(classes)]


def centred(box):
    return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]


def logit(p):
    return math.log(p / (1 - p))


def distribution(distance, bins):
    """Logits of a distribution over 0..bins-1 with this mean, of two neighbouring values."""
    low = min(int(distance), bins - 2)
    share = distance - low
    weights = [1e-12] * bins
    weights[low] += 1 - share
    weights[low + 1] += share
    return [math.log(weight) for weight in weights]


def assert_read(outputs, *, names=None, certain=False, metadata=NAMED, size=SIZE, tolerance=0.02, text=None):
    found = Evidence(
        names or [f"out{i}" for i in range(len(outputs))], outputs, len(TRUTH), size, metadata, certain=certain
    )
    head = head_from_outputs(found)
    assert head is not None
    for image, detections in enumerate(head.decode(outputs, len(TRUTH), size, Limits(score=0.01))):
        expected = sorted(TRUTH[image], key=lambda row: -row[1])
        assert [
            (c, round(s, 3)) for c, s in zip(detections.classes.tolist(), detections.scores.tolist(), strict=True)
        ] == [(row[0], row[1]) for row in expected]
        np.testing.assert_allclose(detections.boxes, [row[2:] for row in expected], atol=tolerance)
    if text is not None:
        assert text in head.text
    return head
