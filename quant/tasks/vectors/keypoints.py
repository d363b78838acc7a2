"""The task of keypoints: their distance from the labels' or from FP32's, in shares of the image's longer side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.preprocessing.interface import ImagePreprocessing
from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import Scores
from quant.evaluation.outputs import OutputLayout
from quant.evaluation.recorder import Outputs
from quant.tasks.drawn_recorder import Weights, known
from quant.tasks.scored import Figure, Kept, ScoredRecorder, mean_of_draws

FLOOR_DISTANCE = 5.0  # per cent of the longer side
_NOWHERE = 1e6  # of a point whose coordinates are no numbers
_NEAR = 5.0  # per cent of the longer side: a point nearer than that is found
_FRACTIONS = 1.5  # coordinates that stay below are fractions of the sides
Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PointHead:
    """How points are read, in pixels of the model's input.

    Attributes:
        output: The place of the output.
        name: Its name.
        axis: Its axis of images.
        kind: pairs [N, 2 K] or [N, K, 2], triples [N, K, 3] with a score, or maps [N, K, h, w] whose peaks are points.
        points: K.
        fraction: Are coordinates fractions of the input's sides?
    """

    output: int
    name: str
    axis: int
    kind: Literal["pairs", "triples", "maps"]
    points: int
    fraction: bool = False

    @property
    def text(self) -> str:
        """What it is, for people."""
        how = {"pairs": "", "triples": " with scores", "maps": " as peaks of maps"}[self.kind]
        return f"output '{self.name}', {self.points} points{how}"

    def read(self, outputs: Sequence[Array], size: tuple[int, int]) -> Floats:
        """The points [N, K, 2] as x and y in pixels of the model's input."""
        values = np.moveaxis(outputs[self.output], self.axis, 0).astype(np.float64)
        sides = np.array([size[1], size[0]], np.float64)
        if self.kind == "maps":
            height, width = values.shape[2:]
            peaks = values.reshape(len(values), self.points, -1).argmax(axis=2)
            places = np.stack([peaks % width, peaks // width], axis=2) + 0.5
            found: Floats = places / np.array([width, height]) * sides
            return found
        by_point: Floats = values.reshape(len(values), self.points, -1)[..., :2]
        return by_point * sides if self.fraction else by_point


def point_head_from_outputs(
    layouts: Sequence[OutputLayout], outputs: Sequence[Any], points: int | None = None
) -> PointHead | None:
    """The output that holds points; None where none does.

    Args:
        layouts: Of the outputs.
        outputs: Of some images.
        points: How many there are, as the labels say; None where that is not known.
    """
    for place, layout in enumerate(layouts):
        if layout.axis is None or outputs[place].dtype.kind != "f":
            continue
        by_image = layout.by_image(outputs[place])
        shape = tuple(side for side in by_image.shape[1:] if side != 1) or (1,)
        if len(shape) == 3 and points in (None, shape[0]):
            return PointHead(place, layout.name, layout.axis, "maps", shape[0])
        if len(shape) == 2 and shape[1] in (2, 3) and points in (None, shape[0]):
            kind: Literal["pairs", "triples"] = "pairs" if shape[1] == 2 else "triples"
            coordinates = by_image.reshape(len(by_image), shape[0], -1)[..., :2]
            return PointHead(place, layout.name, layout.axis, kind, shape[0], _in_fractions(coordinates))
        if len(shape) == 1 and shape[0] % 2 == 0 and points in (None, shape[0] // 2):
            return PointHead(place, layout.name, layout.axis, "pairs", shape[0] // 2, _in_fractions(by_image))
    return None


def _in_fractions(values: Array) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and np.abs(finite).max() <= _FRACTIONS)


class KeypointRecorder(ScoredRecorder):
    """Keeps each image's points, in pixels of the image.

    Attributes:
        head: How points are read.
    """

    task, spec, what, decides = "keypoints", "keypoints", "keypoints", "distance"
    floor = f"a mean distance of {FLOOR_DISTANCE:g} % of the longer side"
    worst, lower_is_better, worst_title = ("distance", False), True, "Distance, % of the longer side"

    def __init__(
        self, head: PointHead, labels: Floats | None, preprocessing: ImagePreprocessing | None, size: tuple[int, int]
    ) -> None:
        """Start without points.

        Args:
            head: How points are read.
            labels: Of all evaluated images, float64 [N, 2 K]: x and y of each point, in pixels of the image or in
                fractions of its sides; None where there are none.
            preprocessing: How images became inputs; None where they came as such.
            size: Height and width of the model's input.
        """
        super().__init__()
        self.head, self.text, self.labelled = head, head.text, labels is not None
        self._preprocessing, self._size = preprocessing, size
        self._fractions = labels is not None and _in_fractions(labels)

    @property
    def name(self) -> str:
        """Of the score."""
        return "keypoint distance"

    @property
    def figures_shown(self) -> Sequence[Figure]:
        """The distance, and the points that are found."""
        return (
            Figure("Distance, % of the longer side", "distance", 3),
            Figure(f"Points within {_NEAR:g} %", "near"),
            Figure("Farthest, %", "farthest", 3),
        )

    def take(self, kept: Kept, outputs: Outputs, batch: EvaluationBatch, reference: Outputs) -> None:
        """Keep the distances of a batch's points."""
        mine, first = (self.head.read(each, self._size) for each in (outputs, reference))
        distances = []
        for i, points in enumerate(mine):
            height, width = self._size if batch.sizes is None else (int(side) for side in batch.sizes[i])
            right = self._in_image(first[i], height, width)
            if self.labelled and batch.labels is not None:
                right = np.asarray(batch.labels[i], np.float64).reshape(-1, 2)
                right = right * (width, height) if self._fractions else right
            apart = np.linalg.norm(self._in_image(points, height, width) - right, axis=1)
            distances.append(np.nan_to_num(100 * apart / max(height, width), nan=_NOWHERE, posinf=_NOWHERE))
        kept.answers.append(np.array(distances))
        kept.values.setdefault("distance", []).append(np.array(distances).mean(axis=1))

    def _in_image(self, points: Floats, height: int, width: int) -> Floats:
        if self._preprocessing is None:
            return points
        frame = self._preprocessing.frame(height, width)
        found: Floats = (points - np.array(frame.corner)) / np.array(frame.scale)
        return found

    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """The mean distance of draws, per cent of the longer side."""
        return mean_of_draws(self.values(build, "distance"), weights)

    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """Distances, and the share of points that are near, per cent."""
        distances = self.answers(build)
        return {
            "distance": known(float(distances.mean()), 5),
            "near": known(100 * float((distances <= _NEAR).mean())),
            "farthest": known(float(distances.max()), 5),
        }

    def told(self, row: dict[str, Any]) -> str:
        """A row's distance in words."""
        return (
            f"a mean keypoint distance of {row['score']:.3f} % of the longer side ({row['near']:.2f} % of the points "
            f"within {_NEAR:g} %)"
        )

    def is_fit(self, row: dict[str, Any]) -> bool:
        """Are a build's points near FP32's?"""
        return bool(row["score"] <= FLOOR_DISTANCE)

    def parts(self, baseline: str) -> tuple[str, list[dict[str, Any]]]:
        """The distance of each point."""
        means = {name: self.answers(name).mean(axis=0) for name in self._kept}
        return "Point", [
            {"name": str(i), "values": {build: known(float(each[i]), 5) for build, each in means.items()}}
            for i in range(self.head.points)
        ]
