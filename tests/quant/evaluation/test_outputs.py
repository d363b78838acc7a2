"""How outputs are read: shapes and values from which one tells by hand what they are."""

import numpy as np
import pytest

from quant.evaluation.outputs import are_probabilities, class_scores, layouts_from_runs
from quant.onnx_graph.model import TensorInfo


def layout_of(whole, size, part, part_size):
    (layout,) = layouts_from_runs([TensorInfo("y", (), "float32")], [whole], size, [part], part_size)
    return layout


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("whole", "part", "axis"),
    [
        # for batches of 8 and 4
        ((8, 10), (4, 10), 0),
        ((8,), (4,), 0),
        ((25, 8, 37), (25, 4, 37), 1),  # time, images, characters
        ((37, 25, 8), (37, 25, 4), 2),
        ((8, 8, 3), (8, 4, 3), 1),  # as many steps as images in the whole batch
        ((4, 8, 3), (4, 4, 3), 1),  # ... and in the part
        ((8, 4, 20, 20), (4, 4, 20, 20), 0),
    ],
)
def test_the_axis_that_is_as_long_as_both_batches_holds_the_images(whole, part, axis):
    layout = layout_of(zeros(*whole), 8, zeros(*part), 4)
    assert (layout.axis, layout.left_out) == (axis, "")


def test_images_come_first_after_reading():
    time_first = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    layout = layout_of(zeros(2, 3, 4), 3, zeros(2, 1, 4), 1)
    assert layout.by_image(time_first).shape == (3, 2, 4)
    assert layout.by_image(time_first)[2].tolist() == time_first[:, 2].tolist()


def test_of_a_single_image_the_first_axis_of_that_length_counts():
    assert layout_of(zeros(25, 1, 37), 1, zeros(25, 1, 37), 1).axis == 1
    assert layout_of(zeros(1, 1, 37), 1, zeros(1, 1, 37), 1).axis == 0


@pytest.mark.parametrize(
    ("whole", "part", "reason"),
    [
        (zeros(350, 7), zeros(171, 7), "its size depends on the images ([350, 7] for 8 of them)"),
        (zeros(8, 33, 4), zeros(4, 29, 4), "its size depends on the images ([8, 33, 4] for 8 of them)"),
        (zeros(100, 6), zeros(100, 6), "its size depends on the images ([100, 6] for 8 of them)"),
        (np.float32(3), np.float32(3), "it is a sequence or a map"),
        (np.array(3.0), np.array(3.0), "it is a single number, not one an image"),
        (zeros(8, 1, 3), zeros(4, 3), "its number of axes depends on the images"),
        (np.array(["hen"] * 8), np.array(["hen"] * 4), "it holds texts"),
        (np.array(["hen"] * 8, object), np.array(["hen"] * 4, object), "it holds texts"),
        ([{"hen": 0.5}] * 8, [{"hen": 0.5}] * 4, "it is a sequence or a map"),
        ([zeros(3)] * 8, [zeros(3)] * 4, "it is a sequence or a map"),
    ],
)
def test_what_cannot_be_compared_is_left_out_with_the_reason(whole, part, reason):
    layout = layout_of(whole, 8, part, 4)
    assert layout.axis is None
    assert layout.left_out == reason


def scores_of(*outputs, classes=None, labelled=False, after_sigmoid=()):
    infos = [TensorInfo("abc"[i], (), "float32") for i in range(len(outputs))]
    layouts = layouts_from_runs(infos, outputs, len(outputs[0]), [array[:1] for array in outputs], 1)
    found = class_scores(layouts, outputs, classes, labelled=labelled, after_sigmoid=frozenset(after_sigmoid))
    return None if found is None else (found.output, found.kind, found.classes)


LOGITS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
SOFTMAX = (np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)).astype(np.float32)
COLUMN = np.linspace(-3, 3, 6, dtype=np.float32)[:, None]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (LOGITS, (0, "logits", 5)),
        (SOFTMAX, (0, "probabilities", 5)),
        (SOFTMAX.astype(np.float16), (0, "probabilities", 5)),
        (LOGITS[:, :, None, None], (0, "logits", 5)),
        (LOGITS[:, None, None, :], (0, "logits", 5)),
        (1 / (1 + np.exp(-LOGITS)), (0, "logits", 5)),  # of each class for itself: they sum to no 1
        (SOFTMAX - 0.2, (0, "logits", 5)),
        (np.zeros((6, 5, 3), np.float32), None),
        (COLUMN, None),
        (np.arange(6), None),
    ],
)
def test_without_labels_only_a_vector_of_scores_tells_classes(output, expected):
    assert scores_of(output) == expected


def test_without_labels_a_box_beside_its_score_is_no_vector_of_classes():
    box = np.random.default_rng(1).uniform(10, 600, (6, 4))
    assert scores_of(np.concatenate([box, np.linspace(0, 1, 6)[:, None]], axis=1)) is None


def test_of_several_outputs_the_one_that_fits_the_labels_tells_classes():
    features = np.random.default_rng(2).normal(size=(6, 16)).astype(np.float32)
    assert scores_of(features, LOGITS, classes=5, labelled=True) == (1, "logits", 5)
    assert scores_of(LOGITS, features, classes=16, labelled=True) == (1, "logits", 16)
    assert scores_of(features, LOGITS) is None
    assert scores_of(features, LOGITS, classes=7, labelled=True) is None


@pytest.mark.parametrize(
    ("output", "after_sigmoid", "expected"),
    [
        (COLUMN, (), (0, "logit", 2)),
        (COLUMN[:, 0], (), (0, "logit", 2)),
        (1 / (1 + np.exp(-COLUMN)), ("a",), (0, "probability", 2)),
        (1 / (1 + np.exp(-COLUMN)), (), (0, "probability", 2)),
        (np.concatenate([COLUMN, -COLUMN], axis=1), (), (0, "logits", 2)),
    ],
)
def test_two_classes_may_have_one_score_or_two(output, after_sigmoid, expected):
    assert scores_of(output, classes=2, labelled=True, after_sigmoid=after_sigmoid) == expected


def test_one_score_is_no_answer_for_three_classes():
    assert scores_of(COLUMN, classes=3, labelled=True) is None


def test_the_number_of_a_class_counts_where_labels_say_so_and_scores_are_preferred():
    numbers = np.arange(6)
    assert scores_of(numbers, classes=5, labelled=True)[:2] == (0, "label")
    assert scores_of(numbers[:, None], classes=5, labelled=True)[:2] == (0, "label")
    assert scores_of(numbers, LOGITS, classes=5, labelled=True) == (1, "logits", 5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], True),
        ([[0.2, 0.8], [0.6, 0.6]], False),
        ([[-0.2, 1.2]], False),
        ([[0.3334, 0.3333, 0.3330]], True),
        ([[1.0]], False),  # a single one is always 1
        (np.zeros((0, 4)), False),
    ],
)
def test_probabilities_are_at_least_0_and_sum_to_1(values, expected):
    assert are_probabilities(np.array(values)) is expected
