import math

import numpy as np
import pytest

from quant.errors import QuantError
from quant.evaluation.accuracy import Accumulator, check_labels, evaluate, logits_from_outputs


@pytest.fixture
def evaluation():
    """The evaluation of some logits against others, in one batch."""

    def make(logits, labels=None, baseline=None):
        accumulator = Accumulator()
        outputs = [np.asarray(logits, np.float32)]
        reference = outputs if baseline is None else [np.asarray(baseline, np.float32)]
        accumulator.add(outputs, reference, None if labels is None else np.asarray(labels))
        return accumulator.result()

    return make


def test_top1_and_top5_by_hand(evaluation):
    logits = [
        [9, 8, 7, 6, 5, 4],  # label 0: first
        [9, 8, 7, 6, 5, 4],  # label 4: fifth
        [9, 8, 7, 6, 5, 4],  # label 5: sixth
        [-1, -2, -3, -4, -5, 0],  # label 5: first
    ]
    result = evaluation(logits, [0, 4, 5, 5])
    assert result.predicted.tolist() == [0, 0, 0, 5]
    assert result.correct.tolist() == [True, False, False, True]
    assert result.in_top5.tolist() == [True, True, False, True]
    assert (result.top1, result.top5, result.images) == (50.0, 75.0, 4)


def test_ties_go_to_the_first_class(evaluation):
    result = evaluation([[1, 1, 1, 1, 1, 1]] * 6, [0, 1, 2, 3, 4, 5])
    assert result.predicted.tolist() == [0] * 6
    assert result.in_top5.tolist() == [True] * 5 + [False]


def test_with_fewer_than_five_classes_every_label_is_among_the_first_five(evaluation):
    result = evaluation([[3, 2, 1]] * 3, [0, 1, 2])
    assert result.top5 == 100.0
    assert result.top1 == pytest.approx(100 / 3)


def test_confidence_and_margin_by_hand(evaluation):
    result = evaluation([[math.log(6), math.log(3), 0.0]])  # exp: 6, 3, 1
    assert result.confidence == pytest.approx([0.6])
    assert result.margin == pytest.approx([math.log(2)])


def test_confidence_of_large_logits_is_finite(evaluation):
    assert evaluation([[5000, 0], [-5000, 0]]).confidence.tolist() == [1, 1]


def test_cosine_and_sqnr_by_hand(evaluation):
    # Image 0: parallel. Image 1: (3, 4) against (4, 3): 24 / 25. Signal 4 + 25, noise 1 + 2.
    result = evaluation([[1, 0], [3, 4]], baseline=[[2, 0], [4, 3]])
    assert result.cosine == pytest.approx((1 + 24 / 25) / 2)
    assert result.sqnr_db == pytest.approx(10 * math.log10(29 / 3))


def test_equal_outputs_have_no_noise(evaluation):
    result = evaluation([[1, 2], [0, 0]])
    assert result.sqnr_db == math.inf
    assert result.cosine == pytest.approx(1)


def test_an_output_of_zeros_is_like_nothing_but_zeros(evaluation):
    assert evaluation([[0, 0]], baseline=[[1, 1]]).cosine == 0


def test_batches_add_up():
    logits = np.random.default_rng(3).normal(size=(50, 7)).astype(np.float32)
    reference = logits + np.random.default_rng(4).normal(size=logits.shape).astype(np.float32) / 10
    labels = np.arange(50) % 7
    whole, parts = Accumulator(), Accumulator()
    whole.add([logits], [reference], labels)
    for start, stop in ((0, 1), (1, 33), (33, 50)):
        parts.add([logits[start:stop]], [reference[start:stop]], labels[start:stop])
    first, second = whole.result(), parts.result()
    assert (first.top1, first.top5, first.images) == (second.top1, second.top5, 50)
    assert first.cosine == pytest.approx(second.cosine)
    assert first.sqnr_db == pytest.approx(second.sqnr_db)
    np.testing.assert_array_equal(first.predicted, second.predicted)


def test_without_labels_there_is_no_accuracy(evaluation):
    result = evaluation([[1, 2]])
    assert (result.top1, result.top5, result.correct, result.labels) == (None, None, None, None)
    assert result.predicted.tolist() == [1]


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_a_label_that_the_model_has_no_class_for_is_an_error(evaluation, label):
    with pytest.raises(QuantError, match=rf"expected classes 0\.\.2 as the model has 3, found {label}; .*--classes"):
        evaluation([[1, 2, 3], [1, 2, 3]], [0, label])
    check_labels(np.array([0, 2]), 3)


def test_outputs_of_another_shape_are_an_error():
    with pytest.raises(QuantError, match=r"expected shapes \[\(2, 3\)\] .* found \[\(2, 4\)\]"):
        Accumulator().add([np.zeros((2, 4))], [np.zeros((2, 3))], None)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(2, 5)], (2, 5)),
        ([(2, 5, 1, 1)], (2, 5)),
        ([(2, 5, 3)], None),
        ([(2, 1)], None),
        ([(2, 5), (2, 5)], None),
        ([(2,)], None),
    ],
)
def test_logits_are_the_only_output_of_a_classifier(shapes, expected):
    logits = logits_from_outputs([np.zeros(shape, np.float32) for shape in shapes])
    assert (None if logits is None else logits.shape) == expected


def test_a_model_that_is_no_classifier_is_compared_by_its_outputs():
    accumulator = Accumulator()
    boxes, scores = np.ones((2, 4, 3), np.float32), np.ones((2, 4), np.float32)
    accumulator.add([boxes * 1.1, scores], [boxes, scores], np.array([0, 1]))
    result = accumulator.result()
    assert (result.predicted, result.top1, result.images) == (None, None, 2)
    assert result.sqnr_db == pytest.approx(10 * math.log10(32 / (24 * 0.01)), abs=1e-3)


class Scaled:
    """A build: input `x` times a factor. Counts its runs."""

    def __init__(self, factor):
        self.factor, self.runs = factor, 0

    def run(self, inputs):
        self.runs += 1
        return [inputs["x"] * self.factor]


def test_all_builds_see_each_batch_once_beside_the_baseline(batch_of):
    builds = {"int8": Scaled(-1), "fp32": Scaled(1)}
    batches = [
        batch_of(x=np.array([[1.0, 0.0], [0.0, 1.0]]), labels=np.array([0, 0])),
        batch_of(x=np.array([[2.0, 3.0]]), labels=np.array([1])),
    ]
    done = []
    results = evaluate(builds, "fp32", iter(batches), done.append)
    assert [build.runs for build in builds.values()] == [2, 2]
    assert done == [2, 1]
    assert results["fp32"].top1 == pytest.approx(100 * 2 / 3)
    assert results["int8"].top1 == pytest.approx(100 * 1 / 3)
    assert results["int8"].cosine == pytest.approx(-1)
    assert results["fp32"].sqnr_db == math.inf
