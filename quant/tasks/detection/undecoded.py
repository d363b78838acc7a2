"""Outputs of detectors that are known and not decoded: what a user should be told of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from quant.tasks.detection.finding import Evidence

_ANCHORS = 3  # a level, in the YOLO families that have anchors
_LEAST_VALUES = 6  # box, objectness and one class


def undecoded(found: Evidence) -> str:
    """Why outputs are not decoded though they are a detector's, for people; empty where they look like none."""
    if found.metadata.task == "obb" or any(found.named(i, "obb", "rbox", "angle") for i in range(len(found.names))):
        return "rotated boxes are not decoded"
    if _need_anchors(found):
        return (
            "these are raw levels of the kind of YOLO v3 to v7, whose boxes need anchors that the file does not hold; "
            "export the model with its boxes decoded"
        )
    return ""


def _need_anchors(found: Evidence) -> bool:
    """Two or more levels that halve each other's sides, with as many values for each of three anchors."""
    levels = [level for output in found.outputs if (level := _level(output, found)) is not None]
    values = Counter(count for _, count in levels)
    steps = sorted({step for step, _ in levels})
    doubling = len(steps) > 1 and all(b == 2 * a for a, b in pairwise(steps))
    return len(levels) > 1 and len(values) == 1 and doubling and steps[0] >= 8


def _level(output: Any, found: Evidence) -> tuple[int, int] | None:  # noqa: ANN401 - outputs of any kind
    """A level's step in pixels and its values an anchor; None where the output is none."""
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or output.ndim not in (4, 5):
        return None
    if len(output) != found.images:
        return None
    shape: Sequence[int] = output.shape[1:]
    if output.ndim == 5:
        forms = [(shape[1:3], shape[3])] if shape[0] == _ANCHORS else []
    else:
        forms = [(shape[1:], shape[0]), (shape[:2], shape[2])]
        forms = [(sides, channels // _ANCHORS) for sides, channels in forms if channels % _ANCHORS == 0]
    for (height, width), count in forms:
        steps = found.size[0] / height, found.size[1] / width
        if count >= _LEAST_VALUES and steps[0] == steps[1] and steps[0].is_integer():
            return int(steps[0]), count
    return None
