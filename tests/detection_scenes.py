"""Images of objects and what a detector finds of them, made up with a seed."""

import numpy as np

from datasets.boxes.box_labels import ImageBoxes
from quant.tasks.detection.boxes import Detections


def some_boxes(rng, count, most=250):
    corner, sides = rng.uniform(0, 200, (count, 2)), np.exp(rng.uniform(2.5, np.log(most), (count, 2)))
    return np.concatenate([corner, corner + sides], axis=1)


def scene(rng, classes, crowds=0.0):
    """An image's objects: none to eight, some of them crowds."""
    count = int(rng.integers(0, 9))
    boxes = some_boxes(rng, count)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.uniform(0.6, 1, count)
    return ImageBoxes(boxes, rng.integers(0, classes, count), rng.random(count) < crowds, areas)


def detected(rng, objects, classes, *, missed=0.2, jitter=0.06, false=3, ties=True):
    """What a detector finds: most objects, some twice, moved by a share of their sides, and boxes where nothing is."""
    found, scores, labels = [], [], []
    for box, label in zip(objects.boxes, objects.classes, strict=True):
        for _ in range(1 + (rng.random() < 0.2)):
            if rng.random() >= missed:
                found.append(box + rng.normal(0, jitter, 4) * np.tile(box[2:] - box[:2], 2))
                scores.append(rng.beta(4, 2))
                labels.append(label if rng.random() < 0.9 else rng.integers(0, classes))
    for box in some_boxes(rng, int(rng.poisson(false))):
        found.append(box)
        scores.append(rng.beta(2, 5))
        labels.append(rng.integers(0, classes))
    boxes = np.array(found).reshape(-1, 4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return Detections(boxes, np.round(np.array(scores), 2 if ties else 12), np.array(labels, np.int64))
