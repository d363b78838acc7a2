"""Finds out which kind of head a detector has: from its outputs' shapes, values and names, and the file's metadata.

Only what the values bear out is taken for a head: boxes must lie about the input and scores between 0 and 1. If the
user or the file says that the model detects, less evidence is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from quant.onnx_graph.metadata import ModelMetadata
from quant.tasks.detection.boxes import Array, Form
from quant.tasks.detection.final_heads import FinalHead, RowsHead, SelectedHead
from quant.tasks.detection.grids import strides_from_points
from quant.tasks.detection.heads import Activation, CombinedHead, Head, SeparateHead, three_axes
from quant.tasks.detection.levels import levels_head

_MOST = 0.99  # of the candidates of an untrained or odd model, some may be anywhere
_PIXELS = 2.0  # coordinates that reach beyond this are pixels, not fractions of the input
_LARGEST_CELL = 64.0  # offsets and logarithms of sides, in strides
_SHOWING = 0.1  # share of a detector's scores that may be above a half
_BACKGROUND = 0.5  # share of candidates that show nothing, of a model that has a class for that


@dataclass(frozen=True)
class Evidence:
    """What is known of a model.

    Attributes:
        names: Of its outputs.
        outputs: Of some images.
        images: How many these are.
        size: Height and width of its input.
        metadata: What its file says.
        classes: How many classes the labels have; None where that is not known.
        certain: Does the user say that it detects?
    """

    names: Sequence[str]
    outputs: Sequence[Array]
    images: int
    size: tuple[int, int]
    metadata: ModelMetadata = field(default_factory=ModelMetadata)
    classes: int | None = None
    certain: bool = False

    @property
    def known_classes(self) -> int | None:
        """How many classes there are, as the file says, else as the labels do."""
        return len(self.metadata.names) if self.metadata.names is not None else self.classes

    @property
    def sure(self) -> bool:
        """Does the user or the file say that it detects?"""
        return self.certain or self.metadata.task in ("detect", "segment", "pose")

    def named(self, place: int, *words: str) -> bool:
        """Does an output's name hold one of these words?"""
        return any(word in self.names[place].lower() for word in words)


def head_from_outputs(found: Evidence) -> Head | None:
    """The head that these outputs are of; None where they are of none that is known."""
    if found.metadata.task == "obb" or (found.metadata.task == "classify" and not found.certain):
        return None  # rotated boxes end in an angle, which is no class
    usable = [
        i
        for i, output in enumerate(found.outputs)
        if isinstance(output, np.ndarray) and output.dtype.kind in "fiu" and output.ndim
    ]
    for find in (_rows, _final_in_one, _levels, _separate, _combined):
        head = find(found, usable)
        if head is not None:
            return head
    return None


def _levels(found: Evidence, usable: Sequence[int]) -> Head | None:
    outputs = {i: found.outputs[i] for i in usable if found.outputs[i].dtype.kind == "f"}
    head = levels_head(found.names, outputs, found.images, found.size, found.known_classes)
    if head is None or found.sure:
        return head
    # The maps of a backbone have such sizes too, but a detector's points hardly ever show anything.
    scores = np.concatenate([each.ravel() for each in head.scores_of(found.outputs)])
    return head if (scores > 0.5).mean() < _SHOWING else None


def _rows(found: Evidence, usable: Sequence[int]) -> Head | None:
    """[M, 7] for all images, [M, 6] for one."""
    for place in usable:
        output = found.outputs[place]
        if output.ndim != 2 or output.dtype.kind != "f" or not len(output):
            continue
        if output.shape[1] == 7 and _whole(output[:, 0]) and (output[:, 0] < found.images).all():
            values, with_image = output[:, 1:], True
        elif output.shape[1] == 6 and found.images == 1 and len(usable) == 1:
            values, with_image = output, False
        else:
            continue
        for score_first in (False, True):
            scores, classes = (values[:, 4], values[:, 5]) if score_first else (values[:, 5], values[:, 4])
            if _whole(classes) and _shares(scores) and _is_form(values[:, :4], "xyxy"):
                return RowsHead(place, with_image, score_first)
    return None


def _final_in_one(found: Evidence, usable: Sequence[int]) -> Head | None:
    """[N, K, 6 or more]: box, score, class, and masks or keypoints behind them."""
    for place in usable:
        output = found.outputs[place]
        if output.dtype.kind != "f" or output.ndim < 3 or len(output) != found.images:
            continue
        rows = three_axes(output)
        if rows.ndim != 3 or rows.shape[2] < 6 or not _whole(rows[..., 5]) or not _shares(rows[..., 4]):
            continue
        if not (rows[..., 4].max(initial=0) > 0 and _is_form(rows[..., :4], "xyxy")):
            continue
        return FinalHead(place, place, place, fraction=_in_fractions(rows[..., :4]))
    return None


def _separate(found: Evidence, usable: Sequence[int]) -> Head | None:
    """Boxes, scores and perhaps labels, a count, priors or a selection in outputs of their own."""
    selected = next((i for i in usable if _is_selection(found.outputs[i])), None)
    places = [i for i in usable if i != selected]
    for boxes in sorted(places, key=lambda i: not found.named(i, "box", "loc", "bbox")):
        shape = _as_boxes(found.outputs[boxes], found)
        if shape is None:
            continue
        count, boxes_last = shape
        others = [i for i in places if i != boxes]
        final = _final_apart(found, boxes, count, others)
        if final is not None and selected is None:
            return final
        for scores in sorted(others, key=lambda i: not found.named(i, "score", "prob", "conf", "cls", "logit")):
            head = _candidates(found, boxes, scores, count, others, boxes_last=boxes_last)
            if head is not None:
                return head if selected is None else SelectedHead(selected, head)
    return None


def _is_selection(output: Array) -> bool:
    return output.ndim == 2 and output.shape[1] == 3 and output.dtype.kind in "iu"


def _as_boxes(output: Array, found: Evidence) -> tuple[int, bool] | None:
    """How many boxes an output holds, and whether their coordinates come last; None where it holds none."""
    if output.dtype.kind != "f":
        return None
    if output.ndim == 2 and found.images == 1 and output.shape[1] == 4:
        return len(output), True
    if output.ndim < 3 or len(output) != found.images:
        return None
    values = three_axes(output)
    if values.ndim != 3 or 4 not in values.shape[1:]:
        return None
    return (values.shape[1], True) if values.shape[2] == 4 else (values.shape[2], False)


def _final_apart(found: Evidence, boxes: int, count: int, others: Sequence[int]) -> FinalHead | None:
    """Boxes [N, K, 4] with one score each and one label each."""
    flat = [i for i in others if found.outputs[i].size == found.images * count and found.outputs[i].ndim <= 3]
    labels = [i for i in flat if _whole(found.outputs[i]) and not _only_ones(found.outputs[i])]
    labels.sort(key=lambda i: not (found.outputs[i].dtype.kind in "iu" or found.named(i, "label", "class", "cls")))
    scores = [
        i for i in flat if found.outputs[i].dtype.kind == "f" and i not in labels[:1] and _shares(found.outputs[i])
    ]
    if not labels or not scores:
        return None
    of_one = found.outputs[boxes].reshape(-1, 4)
    form: Form = "yxyx" if found.named(boxes, "detection_boxes") else "xyxy"
    if not _is_form(of_one, "xyxy"):
        form = "cxcywh"
    counts = [i for i in others if i not in flat and found.outputs[i].size == found.images and _whole(found.outputs[i])]
    first = 1 if found.named(boxes, "detection_boxes") else 0  # TensorFlow's object detection counts from one
    return FinalHead(boxes, scores[0], labels[0], counts[0] if counts else None, form, _in_fractions(of_one), first)


def _only_ones(output: Array) -> bool:
    """Are these scores that are all 0 or 1 by chance, in floats?"""
    return output.dtype.kind == "f" and not (output > 1).any()


def _candidates(
    found: Evidence, boxes: int, scores: int, count: int, others: Sequence[int], *, boxes_last: bool
) -> SeparateHead | None:
    """Boxes of candidates with the scores of all classes."""
    output = found.outputs[scores]
    if output.dtype.kind != "f" or output.ndim < 2 or len(output) != found.images:
        return None
    values = three_axes(output)
    if values.ndim != 3 or count not in values.shape[1:]:
        return None
    scores_last = values.shape[1] == count and (values.shape[2] != count or not boxes_last or values.shape[1] == count)
    values = values if scores_last else values.swapaxes(1, 2)
    numbers = three_axes(found.outputs[boxes])
    numbers = numbers if boxes_last else numbers.swapaxes(1, 2)
    activation, background = _kind_of_scores(values, found)
    classes = values.shape[2] - (background is not None)
    priors = next((i for i in others if i != scores and _are_priors(found.outputs[i], count, found.images)), None)
    fraction = _in_fractions(numbers if priors is None else found.outputs[priors].reshape(-1, 4)[:count])
    if priors is None and not _lie_about_the_input(numbers, found, fraction=fraction):
        return None
    if classes < 1:
        return None
    form: Form = "xyxy" if priors is not None or _is_form(numbers, "xyxy") else "cxcywh"
    is_set = count <= 1000 and found.named(boxes, "pred_boxes")  # DETR and its kind say so; each object has one query
    return SeparateHead(
        boxes, scores, classes, boxes_last, scores_last, form, fraction, activation, background, priors, not is_set
    )


def _are_priors(output: Array, count: int, images: int) -> bool:
    """Boxes as many as the candidates, the same for all images: without their axis, or in two rows with variances."""
    return (
        output.dtype.kind == "f"
        and output.size in (4 * count, 8 * count)
        and not (output.ndim == 3 and len(output) == images and images > 1)
    )


def _kind_of_scores(values: Array, found: Evidence) -> tuple[Activation, int | None]:
    """What makes scores of these numbers [N, A, C], and which of the classes is the background.

    A model with a class for "no object" gives it most of the candidates.
    """
    leading = values.argmax(axis=2)
    ends = {0: float((leading == 0).mean()), -1: float((leading == values.shape[2] - 1).mean())}
    end = max(ends, key=lambda place: ends[place])
    known = found.known_classes
    empty = end if values.shape[2] > 1 and ends[end] >= _BACKGROUND and known in (None, values.shape[2] - 1) else None
    if _shares(values):
        sums = values.astype(np.float64).sum(axis=2)
        softmaxed = values.shape[2] > 1 and bool((np.abs(sums - 1) < 1e-2).all())
        return "none", empty if softmaxed else None
    return ("sigmoid", None) if empty is None else ("softmax", empty)


def _combined(found: Evidence, usable: Sequence[int]) -> Head | None:
    """One output of boxes and scores of all candidates; others may hold masks."""
    for place in usable:
        output = found.outputs[place]
        if output.dtype.kind != "f" or output.ndim < 3 or len(output) != found.images:
            continue
        values = three_axes(output)
        if values.ndim != 3:
            continue
        for channels_last in _orders(values, found):
            by_point = values if channels_last else values.swapaxes(1, 2)
            extra = _extra_channels(found, place)
            head = _combined_in_order(found, place, by_point, extra, channels_last=channels_last)
            if head is not None:
                return head
    return None


def _orders(values: Array, found: Evidence) -> Iterator[bool]:
    """Whether the channels may come last: the shorter axis first, the other one only where the file tells."""
    shorter_last = values.shape[2] <= values.shape[1]
    yield shorter_last
    if found.known_classes is not None and found.sure:
        yield not shorter_last


def _extra_channels(found: Evidence, place: int) -> int:
    """Channels behind the scores: coefficients of masks, whose prototypes are an output, or keypoints."""
    masks = [
        output.shape[1]
        for i, output in enumerate(found.outputs)
        if i != place and isinstance(output, np.ndarray) and output.ndim == 4 and output.shape[0] == found.images
    ]
    return (masks[0] if masks else 0) + found.metadata.keypoints


def _combined_in_order(
    found: Evidence, place: int, values: Array, extra: int, *, channels_last: bool
) -> CombinedHead | None:
    points, channels = values.shape[1:]
    strides = strides_from_points(found.size, points)
    if channels < 5 + extra or (points < channels and not found.sure):
        return None
    distances = _distances(found, place, values, strides) if channels_last else None
    if distances is not None:
        return distances
    scores = values[..., 4 : channels - extra]
    objectness = _has_objectness(scores, found.known_classes, channels_last=channels_last)
    classes = scores.shape[2] - objectness
    numbers = values[..., :4]
    fraction = _in_fractions(numbers)
    told = found.sure or not fraction or (strides is not None and _is_form(numbers, "cxcywh"))
    if not _shares(scores) or classes < 1 or _are_probabilities(values):
        return None
    if told and _lie_about_the_input(numbers, found, fraction=fraction):
        form: Form = "xyxy" if _is_form(numbers, "xyxy") else "cxcywh"
        return CombinedHead(place, channels_last, classes, objectness, form, "fractions" if fraction else "pixels")
    if strides is not None and channels_last and np.abs(numbers).max(initial=0) < _LARGEST_CELL:
        return CombinedHead(place, channels_last, classes, objectness, "cxcywh", "cells", strides)
    return None


def _distances(found: Evidence, place: int, values: Array, strides: tuple[int, ...] | None) -> CombinedHead | None:
    """Scores of all classes before the four sides' distributions, which are logits and so go beyond 0 and 1."""
    channels = values.shape[2]
    within = np.asarray(((values >= 0) & (values <= 1)).all(axis=(0, 1)))
    classes = (found.known_classes or int(np.argmin(within))) if not within.all() else 0
    bins, left = divmod(channels - classes, 4)
    if strides is None or not 0 < classes < channels or left or bins < 5 or not within[:classes].all():
        return None
    return CombinedHead(place, True, classes, False, "cxcywh", "distances", strides, bins)


def _has_objectness(scores: Array, known: int | None, *, channels_last: bool) -> bool:
    """Is the first of these channels a factor of the others, not a class beside them?

    The number of classes tells where it is known. Else, the families with objectness (YOLO v5 to v7, YOLOX) have their
    channels last and the later ones have them first, which single classes may not follow: where nothing is, a class has
    a score near 0, while one that is still to be multiplied by the objectness has not.
    """
    channels = scores.shape[2]
    if known is not None and channels in (known, known + 1):
        return bool(channels == known + 1)
    if not channels_last or channels < 2:
        return False
    return channels > 2 or bool(np.median(scores[..., 1]) > 2 * np.median(scores[..., 0]))


def _whole(values: Array) -> bool:
    if values.dtype.kind in "iu":
        return True
    return bool(values.size) and bool((np.isfinite(values) & (values == np.rint(values)) & (values >= 0)).all())


def _shares(values: Array) -> bool:
    """Are all from 0 to 1, but for rounding in FP16?"""
    return bool(values.size and (values >= -1e-3).all() and (values <= 1 + 1e-3).all())


def _are_probabilities(values: Array) -> bool:
    return _shares(values) and bool((np.abs(values.astype(np.float64).sum(axis=-1) - 1) < 1e-2).all())


def _in_fractions(boxes: Array) -> bool:
    finite = boxes[np.isfinite(boxes)]
    return bool(finite.size and np.abs(finite).max() <= _PIXELS)


def _is_form(boxes: Array, form: Form) -> bool:
    """Could these boxes be of a form? As corners, the second one lies beyond the first; sides are positive."""
    values = boxes.reshape(-1, 4)
    if form == "xyxy":
        return bool(((values[:, 2] >= values[:, 0]) & (values[:, 3] >= values[:, 1])).mean() >= _MOST)
    return bool(((values[:, 2] >= 0) & (values[:, 3] >= 0)).mean() >= _MOST)


def _lie_about_the_input(boxes: Array, found: Evidence, *, fraction: bool) -> bool:
    """Do boxes lie in the input or not far from it, with sides that are positive in one form or the other?"""
    values = boxes.reshape(-1, 4).astype(np.float64)
    height, width = (1, 1) if fraction else found.size
    limits = np.array([width, height, width, height])
    near = ((values > -limits) & (values < 2 * limits + 1)).all(axis=1).mean() >= 0.9
    spread = float(np.ptp(values[:, 0])) > (0.02 if fraction else 4.0)  # a grid of candidates covers the input
    return bool(near and spread and (_is_form(boxes, "xyxy") or _is_form(boxes, "cxcywh")))
