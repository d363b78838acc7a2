"""Heads whose detections are final: models that need no suppression, or have it inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quant.tasks.detection.boxes import Array, Detections, Form, corners
from quant.tasks.detection.heads import SeparateHead, Size, scaled, three_axes
from quant.tasks.detection.suppression import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class FinalHead:
    """Detections that need no suppression, so many an image: [N, K, 6], or boxes, scores and labels apart.

    Attributes:
        boxes: Place of the boxes; of all three where they are in one output.
        scores: Place of the scores.
        labels: Place of the classes' numbers; None where there is one class.
        count: Place of the output that says how many of the K are detections; None where all are, with low scores.
        form: Of the boxes.
        fraction: Are they fractions of the input?
        first_label: Number of the first class: 1 where 0 is the background.
    """

    boxes: int
    scores: int
    labels: int | None
    count: int | None = None
    form: Form = "xyxy"
    fraction: bool = False
    first_label: int = 0

    @property
    def classes(self) -> int | None:
        """It does not tell."""
        return None

    @property
    def text(self) -> str:
        """What kind it is."""
        unit = "fractions of the input" if self.fraction else "pixels"
        if self.boxes == self.scores:
            return f"one output of final detections [N, K, 6], boxes as {self.form} in {unit}"
        return f"outputs of final detections, boxes as {self.form} in {unit}"

    def decode(
        self, outputs: Sequence[Array], images: int, size: Size, limits: Limits = DEFAULT_LIMITS
    ) -> list[Detections]:
        """See `Head`."""
        if self.boxes == self.scores:
            rows = three_axes(outputs[self.boxes])
            boxes, scores, labels = rows[..., :4], rows[..., 4], rows[..., 5]
        else:
            boxes = self._of_images(outputs[self.boxes], images, 4)
            scores = self._of_images(outputs[self.scores], images, 1)[..., 0]
            labels = np.zeros_like(scores)
            if self.labels is not None:
                labels = self._of_images(outputs[self.labels], images, 1)[..., 0]
        pixels = scaled(corners(boxes, self.form), size, fraction=self.fraction)
        found = []
        places = np.arange(scores.shape[1])
        for i in range(images):
            count = len(places) if self.count is None else int(outputs[self.count].reshape(images, -1)[i, 0])
            keep = (places < count) & (scores[i] > limits.score) & np.isfinite(pixels[i]).all(axis=1)
            classes = np.rint(labels[i]).astype(np.int64) - self.first_label
            each = Detections(pixels[i], scores[i].astype(np.float64), classes).kept(keep & (classes >= 0))
            found.append(each.kept(np.argsort(-each.scores, kind="stable")[: limits.detections]))
        return found

    @staticmethod
    def _of_images(output: Array, images: int, width: int) -> Array:
        """An output as [N, K, width]; that of a single image may lack the axis of the images."""
        return output.reshape(images, -1, width)


@dataclass(frozen=True)
class RowsHead:
    """Detections of all images in rows, as a model with suppression inside gives them: image, box, class, score.

    Attributes:
        output: Its place.
        with_image: Does the first column say which image it is of? Otherwise there is a single image.
        score_first: Does the score stand before the class?
    """

    output: int
    with_image: bool = True
    score_first: bool = False

    @property
    def classes(self) -> int | None:
        """It does not tell."""
        return None

    @property
    def text(self) -> str:
        """What kind it is."""
        last = "score, class" if self.score_first else "class, score"
        return f"detections of all images in rows: {'image, ' if self.with_image else ''}box as xyxy in pixels, {last}"

    def decode(
        self, outputs: Sequence[Array], images: int, size: Size, limits: Limits = DEFAULT_LIMITS
    ) -> list[Detections]:
        """See `Head`."""
        rows = outputs[self.output].astype(np.float64)
        image = rows[:, 0] if self.with_image else np.zeros(len(rows))
        values = rows[:, 1:] if self.with_image else rows
        scores, classes = (values[:, 4], values[:, 5]) if self.score_first else (values[:, 5], values[:, 4])
        every = Detections(values[:, :4], scores, np.rint(classes).astype(np.int64))
        keep = (scores > limits.score) & np.isfinite(values).all(axis=1)
        return list(_by_image(every, image, keep, images, limits))


def _by_image(every: Detections, image: Array, keep: Array, images: int, limits: Limits) -> Iterator[Detections]:
    for i in range(images):
        mine = every.kept(np.flatnonzero(keep & (image == i)))
        yield mine.kept(np.argsort(-mine.scores, kind="stable")[: limits.detections])


@dataclass(frozen=True)
class SelectedHead:
    """Boxes and scores of all candidates, and which of them NonMaxSuppression selected: [M, 3] image, class, box.

    Attributes:
        selected: Place of the selection.
        candidates: How boxes and scores are read.
    """

    selected: int
    candidates: SeparateHead

    @property
    def classes(self) -> int | None:
        """How many classes it answers."""
        return self.candidates.class_count

    @property
    def text(self) -> str:
        """What kind it is."""
        return f"{self.candidates.text}, and what NonMaxSuppression selects of them"

    def decode(
        self, outputs: Sequence[Array], images: int, size: Size, limits: Limits = DEFAULT_LIMITS
    ) -> list[Detections]:
        """See `Head`."""
        head = self.candidates
        boxes, scores = three_axes(outputs[head.boxes]), three_axes(outputs[head.scores])
        boxes = corners(boxes if head.boxes_last else boxes.swapaxes(1, 2), head.form)
        scores = scores if head.scores_last else scores.swapaxes(1, 2)
        image, label, place = outputs[self.selected].astype(np.int64).T
        every = Detections(
            scaled(boxes[image, place], size, fraction=head.fraction),
            scores[image, place, label].astype(np.float64),
            label,
        )
        return list(_by_image(every, image, every.scores > limits.score, images, limits))
