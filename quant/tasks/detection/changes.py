"""Where a build's detections differ from FP32's: boxes that were lost, gained, or moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quant.tasks.detection.boxes import Detections, Floats, overlaps

FOUND = 0.5  # overlap from which on a box is the same one
STAYED = 0.8  # overlap from which on it has not moved; INT8 shifts small boxes by a pixel or so
Kind = Literal["lost", "gained", "moved"]


@dataclass(frozen=True, eq=False)
class ChangedBox:
    """One box that changed.

    Attributes:
        kind: lost, gained or moved.
        box: Left, top, right, bottom, in pixels of the image: FP32's of a lost one, else the build's.
        before: FP32's box of one that moved; None of others.
        label: Its class.
        score: With which it was found.
    """

    kind: Kind
    box: Floats
    before: Floats | None
    label: int
    score: float

    def row(self, name: str) -> dict[str, Any]:
        """The same for JSON, with the class's name."""
        return {
            "kind": self.kind,
            "box": [round(float(value), 2) for value in self.box],
            "before": None if self.before is None else [round(float(value), 2) for value in self.before],
            "name": name,
            "score": round(self.score, 4),
        }


def changed_boxes(first: Detections, found: Detections, confidence: float) -> list[ChangedBox]:
    """What changed between the detections of one image, of those with at least this score.

    Each of FP32's boxes takes the best box of its class that no other took, the surest one first.
    """
    before, after = (
        each.kept((each.scores >= confidence) & np.isfinite(each.boxes).all(axis=1)) for each in (first, found)
    )
    shared = overlaps(before.boxes, after.boxes) if len(before) and len(after) else np.zeros((len(before), len(after)))
    shared = np.where(before.classes[:, None] == after.classes[None], shared, 0)
    taken = np.zeros(len(after), bool)
    changed = []
    for i in np.argsort(-before.scores, kind="stable").tolist():
        free = np.where(taken, 0, shared[i]) if len(after) else np.zeros(0)
        best = int(free.argmax()) if len(free) else -1
        label, score = int(before.classes[i]), float(before.scores[i])
        if best < 0 or free[best] < FOUND:
            changed.append(ChangedBox("lost", before.boxes[i], None, label, score))
            continue
        taken[best] = True
        if free[best] < STAYED:
            changed.append(ChangedBox("moved", after.boxes[best], before.boxes[i], label, float(after.scores[best])))
    changed += [
        ChangedBox("gained", after.boxes[j], None, int(after.classes[j]), float(after.scores[j]))
        for j in np.flatnonzero(~taken).tolist()
    ]
    return changed
