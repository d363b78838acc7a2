"""Heads of detectors: how each kind writes boxes and scores into its outputs, and how they are read back.

Boxes are read in pixels of the model's input, whose size (height, width) is given to each call. The images come first
in every output, but for those that hold the detections of all images in rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from quant.tasks.detection.boxes import Array, Detections, Floats, Form, corners
from quant.tasks.detection.grids import (
    boxes_from_cells,
    boxes_from_distances,
    boxes_from_offsets,
    default_boxes,
    distances_from_logits,
    points_and_strides,
)
from quant.tasks.detection.suppression import DEFAULT_LIMITS, Limits, best_candidates, suppressed

Size = tuple[int, int]  # height and width of the model's input
Activation = Literal["none", "sigmoid", "softmax"]


class Head(Protocol):
    """How detections are read from outputs.

    Attributes:
        text: What kind it is, for people.
        classes: How many classes it answers; None where it does not tell.
    """

    @property
    def text(self) -> str: ...  # noqa: D102 - see the class
    @property
    def classes(self) -> int | None: ...  # noqa: D102 - see the class

    def decode(
        self, outputs: Sequence[Array], images: int, size: Size, limits: Limits = DEFAULT_LIMITS
    ) -> list[Detections]:
        """The detections of each image, best first, in pixels of the model's input."""


def three_axes(array: Array) -> Array:
    """An output [N, ..., A, C] without axes of length one between the images and the last two."""
    if array.ndim > 3:
        lengths = [side for side in array.shape[1:] if side != 1]
        if len(lengths) <= 2:
            return array.reshape(array.shape[0], *([1] * (2 - len(lengths))), *lengths)
    return array[..., None] if array.ndim == 2 else array


def activated(scores: Array, activation: Activation) -> Floats:
    """Scores from 0 to 1 out of what the model gives, classes on the last axis."""
    values: Floats = scores.astype(np.float64)
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    if activation == "softmax":
        shares = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=-1, keepdims=True))
    return values


def scaled(boxes: Floats, size: Size, *, fraction: bool) -> Floats:
    """Boxes in pixels of the input, out of pixels or of fractions of it."""
    return boxes * np.array([size[1], size[0], size[1], size[0]], np.float64) if fraction else boxes


def _detected(boxes: Floats, scores: Floats, limits: Limits, *, suppress: bool = True) -> list[Detections]:
    """Detections of each image out of boxes [N, A, 4] and scores [N, A, C]."""
    found = [best_candidates(*pair, limits) for pair in zip(boxes, scores, strict=True)]
    if suppress:
        return [suppressed(each, limits) for each in found]
    return [each.kept(np.arange(min(len(each), limits.detections))) for each in found]


@dataclass(frozen=True)
class CombinedHead:
    """Boxes and scores in one output, [N, 4 + C, A] or [N, A, 5 + C]: YOLO v5 to v12, YOLOX, NanoDet-Plus.

    Attributes:
        output: Its place.
        channels_last: Do the channels come last?
        class_count: How many classes it answers.
        objectness: Does the fifth channel say how sure it is that there is any object?
        form: Of the boxes.
        unit: Pixels, fractions of the input, or cells of YOLOX's grid; distances are NanoDet-Plus', behind the scores.
        strides: Of the grid that cells and distances need.
        bins: Of a distance's distribution.
    """

    output: int
    channels_last: bool
    class_count: int
    objectness: bool = False
    form: Form = "cxcywh"
    unit: Literal["pixels", "fractions", "cells", "distances"] = "pixels"
    strides: tuple[int, ...] = ()
    bins: int = 1

    @property
    def classes(self) -> int | None:
        """How many classes it answers."""
        return self.class_count

    @property
    def text(self) -> str:
        """What kind it is."""
        parts = f"{4 * self.bins if self.unit == 'distances' else 4 + self.objectness} + {self.class_count}"
        shape = f"[N, A, {parts}]" if self.channels_last else f"[N, {parts}, A]"
        told = {
            "pixels": f"boxes as {self.form} in pixels",
            "fractions": f"boxes as {self.form} in fractions of the input",
            "cells": f"boxes in cells of strides {', '.join(map(str, self.strides))}",
            "distances": f"scores before distributions of distances, strides {', '.join(map(str, self.strides))}",
        }[self.unit]
        return f"one output {shape}, {told}{', with objectness' if self.objectness else ''}"

    def decode(
        self, outputs: Sequence[Array], images: int, size: Size, limits: Limits = DEFAULT_LIMITS
    ) -> list[Detections]:
        """See `Head`."""
        values = three_axes(outputs[self.output])
        if not self.channels_last:
            values = values.swapaxes(1, 2)
        if self.unit == "distances":
            points, each = points_and_strides(size, self.strides, 0.0)  # this family's points are the cells' corners
            distances = distances_from_logits(values[..., self.class_count :], self.bins) * each[:, None]
            return _detected(
                boxes_from_distances(points, distances), activated(values[..., : self.class_count], "none"), limits
            )
        first = 4 + self.objectness
        scores = activated(values[..., first : first + self.class_count], "none")
        if self.objectness:
            scores = scores * values[..., 4:5]
        if self.unit == "cells":
            return _detected(boxes_from_cells(values[..., :4], size, self.strides), scores, limits)
        boxes = scaled(corners(values[..., :4], self.form), size, fraction=self.unit == "fractions")
        return _detected(boxes, scores, limits)


@dataclass(frozen=True)
class SeparateHead:
    """Boxes [N, A, 4] and scores [N, A, C] in two outputs.

    Attributes:
        boxes: Place of the boxes.
        scores: Place of the scores.
        class_count: How many classes it answers, without the background.
        boxes_last: Do the four coordinates come last?
        scores_last: Do the classes come last?
        form: Of the boxes.
        fraction: Are they fractions of the input?
        activation: What makes scores out of the numbers.
        background: Place of the background among the classes, 0 or -1; None without one.
        priors: Place of the output that holds SSD's prior boxes; None where the boxes are boxes already.
        suppress: Must overlapping boxes go? Those of a DETR may stay.
    """

    boxes: int
    scores: int
    class_count: int
    boxes_last: bool = True
    scores_last: bool = True
    form: Form = "xyxy"
    fraction: bool = False
    activation: Activation = "none"
    background: int | None = None
    priors: int | None = None
    suppress: bool = True

    @property
    def classes(self) -> int | None:
        """How many classes it answers."""
        return self.class_count

    @property
    def text(self) -> str:
        """What kind it is."""
        unit = "offsets from priors" if self.priors is not None else self.form
        scores = "scores" if self.activation == "none" else f"scores before a {self.activation}"
        background = {None: "", 0: ", the first class is the background", -1: ", the last class is the background"}
        return (
            f"outputs for boxes ({unit} in {'fractions of the input' if self.fraction else 'pixels'}) and {scores} of "
            f"{self.class_count} classes{background[self.background]}"
        )

    def decode(
        self, outputs: Sequence[Array], images: int, size: Size, limits: Limits = DEFAULT_LIMITS
    ) -> list[Detections]:
        """See `Head`."""
        boxes, scores = three_axes(outputs[self.boxes]), three_axes(outputs[self.scores])
        boxes = boxes if self.boxes_last else boxes.swapaxes(1, 2)
        scores = activated(scores if self.scores_last else scores.swapaxes(1, 2), self.activation)
        scores = without_background(scores, self.background)
        if self.priors is not None:
            priors = np.asarray(outputs[self.priors], np.float64).reshape(-1, 4)[: boxes.shape[1]]
            pixels = boxes_from_offsets(boxes, priors)
        else:
            pixels = corners(boxes, self.form)
        return _detected(scaled(pixels, size, fraction=self.fraction), scores, limits, suppress=self.suppress)


def without_background(scores: Floats, background: int | None) -> Floats:
    """Scores without the class that stands for no object."""
    if background is None:
        return scores
    return scores[..., 1:] if background == 0 else scores[..., :-1]


@dataclass(frozen=True)
class Level:
    """One level of a raw head; outputs [N, C, h, w] or [N, h * w, C].

    Attributes:
        boxes: Place of the output with the boxes.
        scores: Place of the output with the scores; the same where both are in one, boxes first.
        grid: Rows and columns.
        stride: Pixels between two points; 0 where it is no power of two, which only default boxes may have.
        objectness: Place of the output that says whether there is an object; None without one.
    """

    boxes: int
    scores: int
    grid: tuple[int, int]
    stride: int
    objectness: int | None = None


@dataclass(frozen=True)
class LevelsHead:
    """Raw outputs level by level: distances with or without DFL (PicoDet, NanoDet, YOLO v8), YOLOX's cells, SSD.

    Attributes:
        levels: The levels, in the order of their strides.
        class_count: How many classes it answers, without the background.
        kind: What the numbers of a box are: distances in strides, distances in pixels, cells, or offsets from SSD's
            default boxes.
        bins: Of a distance's distribution.
        activation: What makes scores out of the numbers.
        background: Place of the background among the classes, 0 or -1; None without one.
    """

    levels: tuple[Level, ...]
    class_count: int
    kind: Literal["distances", "pixels", "cells", "offsets"]
    bins: int = 1
    activation: Activation = "sigmoid"
    background: int | None = None

    @property
    def classes(self) -> int | None:
        """How many classes it answers."""
        return self.class_count

    @property
    def text(self) -> str:
        """What kind it is."""
        strides = ", ".join(str(level.stride) for level in self.levels)
        told = {
            "distances": f"distances as distributions of {self.bins}" if self.bins > 1 else "distances in strides",
            "pixels": "distances in pixels",
            "cells": "cells",
            "offsets": "offsets from SSD's default boxes",
        }[self.kind]
        where = f" of strides {strides}" if self.kind != "offsets" else ""
        return f"raw outputs of {len(self.levels)} levels{where}, boxes as {told}, {self.class_count} classes"

    def decode(
        self, outputs: Sequence[Array], images: int, size: Size, limits: Limits = DEFAULT_LIMITS
    ) -> list[Detections]:
        """See `Head`."""
        scores = np.concatenate(self.scores_of(outputs), axis=1)
        return _detected(self._boxes(self._numbers(outputs), size), scores, limits)

    def scores_of(self, outputs: Sequence[Array]) -> list[Floats]:
        """Scores [N, A, C] of each level."""
        found = []
        for level in self.levels:
            mine = by_point(outputs[level.scores], level.grid)
            if self.kind == "offsets":
                mine = mine.reshape(len(mine), -1, self.class_count + (self.background is not None))
            elif level.boxes == level.scores:
                mine = mine[..., 4 * self.bins :]
            values = without_background(activated(mine, self.activation), self.background)
            if level.objectness is not None:
                values = values * activated(by_point(outputs[level.objectness], level.grid), self.activation)
            found.append(values)
        return found

    def _numbers(self, outputs: Sequence[Array]) -> list[Array]:
        """The numbers of the boxes [N, A, 4 * bins] of each level."""
        found = []
        for level in self.levels:
            boxes = by_point(outputs[level.boxes], level.grid)
            found.append(boxes.reshape(len(boxes), -1, 4) if self.kind == "offsets" else boxes[..., : 4 * self.bins])
        return found

    def _boxes(self, numbers: Sequence[Array], size: Size) -> Floats:
        together = np.concatenate(numbers, axis=1)
        if self.kind == "offsets":
            each = [
                part.shape[1] // (level.grid[0] * level.grid[1])
                for part, level in zip(numbers, self.levels, strict=True)
            ]
            return boxes_from_offsets(together, default_boxes(size, [level.grid for level in self.levels], each))
        strides = [level.stride for level in self.levels]
        if self.kind == "cells":
            return boxes_from_cells(together, size, strides)
        points, each_stride = points_and_strides(size, strides, 0.5)
        distances = distances_from_logits(together, self.bins)
        if self.kind == "distances":
            distances = distances * each_stride[:, None]
        return boxes_from_distances(points, distances)


def by_point(output: Array, grid: tuple[int, int]) -> Array:
    """A level's output as [N, h * w, C], whichever way its axes lie."""
    if output.ndim == 4:
        points = grid[0] * grid[1]
        if output.shape[2:] == grid:
            return np.asarray(output.reshape(*output.shape[:2], points).swapaxes(1, 2))
        return output.reshape(output.shape[0], points, output.shape[3])
    return output if output.shape[1] == grid[0] * grid[1] else output.swapaxes(1, 2)
