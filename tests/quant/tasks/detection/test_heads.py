"""Each family's outputs, written point by point and read back."""

import math

import numpy as np
import pytest

from quant.onnx_graph.metadata import ModelMetadata
from tests.known_boxes import (
    CLASSES,
    FAINT,
    NAMED,
    SIZE,
    TRUTH,
    assert_read,
    at_points,
    centred,
    distribution,
    logit,
    points,
    scores_of,
)

STRIDES = (8, 16, 32)


def background_box(rng, point):
    return [point[0] + rng.uniform(-3, 3), point[1] + rng.uniform(-3, 3), *(rng.uniform(1, 2, 2) * point[2])]


@pytest.mark.parametrize(
    ("channels_last", "metadata"),
    [(False, ModelMetadata()), (False, NAMED), (True, NAMED)],
    ids=["first", "first, with names", "last, with names"],
)
def test_yolo_v8_to_v12_boxes_beside_scores(metadata, channels_last):
    out = at_points(
        points(STRIDES, 0.5),
        4 + CLASSES,
        lambda point, label, score, box: centred(box) + scores_of(label, score),
        lambda rng, point: [*background_box(rng, point), *[FAINT] * CLASSES],
    )
    outputs = [out if channels_last else out.swapaxes(1, 2).copy()]
    head = assert_read(outputs, metadata=metadata, text=f"{4} + {CLASSES}")
    assert head.classes == CLASSES


def test_fractions_of_the_input():
    scale = np.array([SIZE[1], SIZE[0]] * 2)
    out = at_points(
        points(STRIDES, 0.5),
        4 + CLASSES,
        lambda point, label, score, box: [*(centred(box) / scale), *scores_of(label, score)],
        lambda rng, point: [*(background_box(rng, point) / scale), *[FAINT] * CLASSES],
    )
    assert_read([out.swapaxes(1, 2).copy()], text="in fractions")


@pytest.mark.parametrize("metadata", [ModelMetadata(), NAMED], ids=["alone", "with names"])
def test_yolo_v5_to_v7_with_objectness(metadata):
    """Their classes mean something only where there is an object: elsewhere they may be anything."""
    grid = points((8, 16, 32), 0.5) * 3  # three anchors a cell
    out = at_points(
        grid,
        5 + CLASSES,
        lambda point, label, score, box: [*centred(box), math.sqrt(score), *scores_of(label, math.sqrt(score))],
        lambda rng, point: [*background_box(rng, point), FAINT, *rng.uniform(0.2, 0.6, CLASSES)],
    )
    head = assert_read([out], metadata=metadata, text="with objectness")
    assert head.objectness


def test_yolox_in_cells():
    """Its own formula: centre = (offset + cell) * stride, side = exp(number) * stride; no half cell."""

    def cells(point, box):
        x, y, width, height = centred(box)
        stride = point[2]
        return [(x - point[0]) / stride, (y - point[1]) / stride, math.log(width / stride), math.log(height / stride)]

    out = at_points(
        points(STRIDES, 0.0),
        5 + CLASSES,
        lambda point, label, score, box: [*cells(point, box), 1.0, *scores_of(label, score)],
        lambda rng, point: [*rng.normal(0, 0.7, 4), FAINT, *rng.uniform(0.2, 0.6, CLASSES)],
    )
    assert_read([out], text="cells of strides 8, 16, 32")


@pytest.mark.parametrize("extra", [0, 32], ids=["boxes", "with masks' coefficients"])
def test_end_to_end(extra):
    out = np.zeros((len(TRUTH), 300, 6 + extra), np.float32)
    for image, boxes in enumerate(TRUTH):
        for place, (label, score, *box) in enumerate(sorted(boxes, key=lambda row: -row[1])):
            out[image, place, :6] = [*box, score, label]
    masks = [np.zeros((len(TRUTH), 32, 16, 24), np.float32)] if extra else []
    head = assert_read([out, *masks], text="final detections")
    assert head.classes is None


@pytest.mark.parametrize("transposed", [False, True])
def test_masks_beside_boxes_are_left_aside(transposed):
    out = at_points(
        points(STRIDES, 0.5),
        4 + CLASSES + 32,
        lambda point, label, score, box: [*centred(box), *scores_of(label, score), *[0.5] * 32],
        lambda rng, point: [*background_box(rng, point), *[FAINT] * CLASSES, *rng.normal(size=32)],
    )
    prototypes = np.random.default_rng(1).normal(size=(len(TRUTH), 32, 16, 24)).astype(np.float32)
    outputs = [out.swapaxes(1, 2).copy(), prototypes]
    metadata = ModelMetadata("segment", ("a", "b", "c"))
    assert_read(outputs[::-1] if transposed else outputs, metadata=metadata)


@pytest.mark.parametrize("bins", [8, 17])
def test_nanodet_plus_scores_before_distances(bins):
    """One output; its points are the corners of the cells, and its levels go to stride 64."""
    grid = points((8, 16, 32, 64), 0.0)

    def sides(point, box):
        x, y, stride = point
        return [d / stride for d in (x - box[0], y - box[1], box[2] - x, box[3] - y)]

    def write(point, label, score, box):
        return [*scores_of(label, score), *(v for side in sides(point, box) for v in distribution(side, bins))]

    out = at_points(
        grid, CLASSES + 4 * bins, write, lambda rng, point: [*[FAINT] * CLASSES, *rng.normal(0, 3, 4 * bins)]
    )
    assert_read([out], metadata=ModelMetadata(), text="strides 8, 16, 32, 64")


def level_outputs(bins, strides, offset, scored, *, flat, joined=False):
    """Scores and distances level by level, of PicoDet's and NanoDet's and YOLO v8's kind."""
    grid = points(strides, offset)

    def write(point, label, score, box):
        x, y, stride = point
        sides = [d / stride for d in (x - box[0], y - box[1], box[2] - x, box[3] - y)]
        numbers = [v for side in sides for v in (distribution(side, bins) if bins > 1 else [side])]
        return [*numbers, *(scored(s) for s in scores_of(label, score))]

    def background(rng, point):
        return [*(rng.normal(0, 2, 4 * bins) if bins > 1 else rng.uniform(0.5, 2, 4)), *[scored(FAINT)] * CLASSES]

    out = at_points(grid, 4 * bins + CLASSES, write, background)
    outputs, at = [], 0
    for stride in strides:
        rows, columns = math.ceil(SIZE[0] / stride), math.ceil(SIZE[1] / stride)
        level = out[:, at : at + rows * columns]
        at += rows * columns
        parts = [level] if joined else [level[..., 4 * bins :], level[..., : 4 * bins]]
        for part in parts:
            maps = part.swapaxes(1, 2).reshape(len(TRUTH), -1, rows, columns)
            outputs.append(np.ascontiguousarray(part if flat else maps))
    return outputs


@pytest.mark.parametrize("flat", [True, False], ids=["[N, h*w, C]", "[N, C, h, w]"])
@pytest.mark.parametrize("scored", [lambda p: p, logit], ids=["scores", "logits"])
@pytest.mark.parametrize("bins", [1, 8])
def test_raw_levels_with_and_without_dfl(bins, scored, flat):
    outputs = level_outputs(bins, (8, 16, 32), 0.5, scored, flat=flat)
    order = [1, 3, 5, 0, 2, 4]  # all distances, then all scores: the order must not matter
    head = assert_read([outputs[i] for i in order], metadata=ModelMetadata(), text="raw outputs of 3 levels")
    assert head.classes == CLASSES


def test_raw_levels_with_boxes_and_scores_in_one_output():
    outputs = level_outputs(16, (8, 16, 32), 0.5, logit, flat=False, joined=True)
    assert_read(outputs, metadata=ModelMetadata(), text="distributions of 16")


@pytest.mark.parametrize("form", ["xyxy", "cxcywh"])
@pytest.mark.parametrize("last", [True, False], ids=["[N, A, C]", "[N, C, A]"])
def test_boxes_and_scores_in_two_outputs(form, last):
    grid = points(STRIDES, 0.5)
    out = at_points(
        grid,
        4 + CLASSES,
        lambda point, label, score, box: [*(box if form == "xyxy" else centred(box)), *scores_of(label, score)],
        lambda rng, point: [
            *(
                [point[0] - 9, point[1] - 9, point[0] + 9, point[1] + 9]
                if form == "xyxy"
                else [*point[:2], *rng.uniform(3, 20, 2)]
            ),
            *[FAINT] * CLASSES,
        ],
    )
    boxes, scores = out[..., :4].copy(), out[..., 4:].copy()
    outputs = [scores if last else scores.swapaxes(1, 2).copy(), boxes if last else boxes.swapaxes(1, 2).copy()]
    head = assert_read(outputs, metadata=ModelMetadata(), text=f"{form} in pixels")
    assert head.classes == CLASSES


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("softmaxed", [True, False])
def test_a_class_for_the_background_is_none_of_the_classes(first, softmaxed):
    grid = points(STRIDES, 0.5)

    def row(label, score):
        shares = [FAINT] * CLASSES
        if label is not None:
            shares[label] = score
        rest = 1 - sum(shares)
        whole = [rest, *shares] if first else [*shares, rest]
        return whole if softmaxed else [math.log(share) for share in whole]

    scale = np.array([SIZE[1], SIZE[0]] * 2)
    out = at_points(
        grid,
        5 + CLASSES,
        lambda point, label, score, box: [*(np.array(box) / scale), *row(label, score)],
        lambda rng, point: [
            *(np.array([point[0] - 4, point[1] - 4, point[0] + 4, point[1] + 4]) / scale),
            *row(None, 0),
        ],
    )
    head = assert_read([out[..., :4].copy(), out[..., 4:].copy()], metadata=ModelMetadata(), text="the background")
    assert head.classes == CLASSES


def test_detr_whose_queries_need_no_suppression():
    grid = points((16,), 0.5)
    scale = np.array([SIZE[1], SIZE[0]] * 2)
    out = at_points(
        grid,
        4 + CLASSES,
        lambda point, label, score, box: [*(centred(box) / scale), *map(logit, scores_of(label, score))],
        lambda rng, point: [*(background_box(rng, point) / scale).clip(0, 1), *[logit(FAINT)] * CLASSES],
    )
    outputs = [out[..., 4:].copy(), out[..., :4].copy()]
    head = assert_read(outputs, names=["logits", "pred_boxes"], text="before a sigmoid")
    assert not head.suppress


def test_ssd_offsets_from_the_papers_default_boxes():
    """The paper's formulas, box by box: sides of 0.2 to 0.9 of the image; variances 0.1 and 0.2."""
    grids, each = [(8, 12), (4, 6), (2, 3)], [4, 6, 6]
    sides = [0.2, 0.55, 0.9]
    priors, level_of = [], []
    for k, (rows, columns) in enumerate(grids):
        larger = math.sqrt(sides[k] * (sides[k + 1] if k < 2 else 1.0))
        shapes = [(sides[k], sides[k]), (larger, larger)]
        for ratio in (2, 1 / 2, 3, 1 / 3)[: each[k] - 2]:
            shapes.append((sides[k] * math.sqrt(ratio), sides[k] / math.sqrt(ratio)))
        for row in range(rows):
            for column in range(columns):
                for width, height in shapes:
                    priors.append(((column + 0.5) / columns * 96, (row + 0.5) / rows * 64, width * 96, height * 64))
                    level_of.append(k)

    def write(prior, label, score, box):
        x, y, w, h = centred(box)
        offsets = [(x - prior[0]) / prior[2] / 0.1, (y - prior[1]) / prior[3] / 0.1]
        offsets += [math.log(w / prior[2]) / 0.2, math.log(h / prior[3]) / 0.2]
        shares = scores_of(label, score)
        return [*offsets, *(math.log(share) for share in [1 - sum(shares), *shares])]

    def background(rng, prior):
        return [*rng.normal(0, 0.3, 4), *(math.log(s) for s in [1 - CLASSES * FAINT, *[FAINT] * CLASSES])]

    out = at_points(priors, 5 + CLASSES, write, background)
    outputs = []
    for k, (rows, columns) in enumerate(grids):
        level = out[:, [i for i, at in enumerate(level_of) if at == k]]
        for part in (level[..., :4], level[..., 4:]):
            maps = part.reshape(2, rows, columns, -1).transpose(0, 3, 1, 2)
            outputs.append(np.ascontiguousarray(maps))
    named = [f"{kind}{k}" for k in range(3) for kind in ("loc", "conf")]
    head = assert_read(outputs, names=named, text="default boxes")
    assert head.background == 0 and head.activation == "softmax"


def test_ssd_with_its_priors_as_an_output():
    grid = points((16,), 0.5)
    scale = np.array([SIZE[1], SIZE[0]] * 2)
    priors = np.array([[x, y, 24, 24] for x, y, _ in grid]) / scale

    def write(point, label, score, box):
        x, y, w, h = centred(box)
        offsets = [(x - point[0]) / 24 / 0.1, (y - point[1]) / 24 / 0.1, math.log(w / 24) / 0.2, math.log(h / 24) / 0.2]
        shares = scores_of(label, score)
        return [*offsets, 1 - sum(shares), *shares]

    out = at_points(
        grid, 5 + CLASSES, write, lambda rng, point: [*rng.normal(0, 1, 4), 1 - CLASSES * FAINT, *[FAINT] * CLASSES]
    )
    assert_read(
        [out[..., :4].copy(), out[..., 4:].copy(), priors.astype(np.float32)],
        names=["loc", "conf", "priors"],
        metadata=ModelMetadata(),
        text="offsets from priors",
    )
