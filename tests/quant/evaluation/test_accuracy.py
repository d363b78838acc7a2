import math

import numpy as np
import pytest

from quant.errors import QuantError
from quant.evaluation.accuracy import Accumulator, check_labels, evaluate, reader_from_batch
from quant.evaluation.outputs import ClassScores, OutputLayout, OutputReader


def reader_of(classes=None, kind="logits", outputs=1, axis=0):
    """A reader of outputs called a, b, ... with the images on an axis; the first has the scores of classes if any."""
    layouts = tuple(OutputLayout("abc"[i], axis) for i in range(outputs))
    return OutputReader(layouts, None if classes is None else ClassScores(0, kind, classes))


@pytest.fixture
def evaluation():
    """The evaluation of some class scores against others, in one batch."""

    def make(scores, labels=None, baseline=None, kind="logits", classes=None):
        outputs = [np.asarray(scores, np.int64 if kind == "label" else np.float32)]
        reference = outputs if baseline is None else [np.asarray(baseline, outputs[0].dtype)]
        accumulator = Accumulator(reader_of(classes or outputs[0].shape[-1], kind))
        accumulator.add(outputs, reference, None if labels is None else np.asarray(labels), len(outputs[0]))
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


def test_with_five_classes_or_fewer_top5_says_nothing_and_is_left_out(evaluation):
    result = evaluation([[3, 2, 1]] * 3, [0, 1, 2])
    assert result.top5 is None
    assert result.top1 == pytest.approx(100 / 3)
    assert evaluation([[5, 4, 3, 2, 1]] * 5, range(5)).top5 is None
    assert evaluation([[6, 5, 4, 3, 2, 1]] * 6, range(6)).top5 == pytest.approx(500 / 6)


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
    whole, parts = Accumulator(reader_of(7)), Accumulator(reader_of(7))
    whole.add([logits], [reference], labels, 50)
    for start, stop in ((0, 1), (1, 33), (33, 50)):
        parts.add([logits[start:stop]], [reference[start:stop]], labels[start:stop], stop - start)
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
    with pytest.raises(QuantError, match=r"expected shapes \[\[2, 3\]\] .* found \[\[2, 4\]\]"):
        Accumulator(reader_of()).add([np.zeros((2, 4))], [np.zeros((2, 3))], None, 2)


def test_outputs_of_other_images_than_were_given_are_an_error_with_the_axis():
    with pytest.raises(QuantError, match=r"output 'a': expected 2 images on axis 1, found \[5, 3, 4\]"):
        Accumulator(reader_of(axis=1)).add([np.zeros((5, 3, 4))], [np.zeros((5, 2, 4))], None, 2)


def test_a_model_that_is_no_classifier_is_compared_by_its_outputs():
    accumulator = Accumulator(reader_of(outputs=2))
    boxes, scores = np.ones((2, 4, 3), np.float32), np.ones((2, 4), np.float32)
    accumulator.add([boxes * 1.1, scores], [boxes, scores], np.array([0, 1]), 2)
    result = accumulator.result()
    assert (result.predicted, result.top1, result.images) == (None, None, 2)
    assert result.sqnr_db == pytest.approx(10 * math.log10(32 / (24 * 0.01)), abs=1e-3)
    assert [each.sqnr_db for each in result.fidelity] == [pytest.approx(20, abs=1e-3), math.inf]


def test_images_are_counted_by_images_where_time_comes_first():
    accumulator = Accumulator(reader_of(axis=1))
    steps = np.random.default_rng(1).normal(size=(25, 4, 11)).astype(np.float32)
    for start, stop in ((0, 3), (3, 4)):
        accumulator.add([2 * steps[:, start:stop]], [steps[:, start:stop]], None, stop - start)
    result = accumulator.result()
    assert result.images == 4
    assert result.cosine == pytest.approx(1)
    assert result.sqnr_db == pytest.approx(0, abs=1e-6)  # the noise is as large as the signal


def test_confidence_of_probabilities_is_the_probability(evaluation):
    result = evaluation([[0.2, 0.7, 0.1], [1.0, 0.0, 0.0]], kind="probabilities")
    assert result.confidence == pytest.approx([0.7, 1.0])
    assert result.margin[0] == pytest.approx(math.log(0.7 / 0.2), rel=1e-5)
    assert result.predicted.tolist() == [1, 0]


@pytest.mark.parametrize(("kind", "values"), [("probability", [0.49, 0.51, 0.9]), ("logit", [-0.1, 0.1, 4.0])])
def test_one_score_for_two_classes_is_held_against_its_threshold(evaluation, kind, values):
    result = evaluation([[value] for value in values], [1, 1, 0], kind=kind, classes=2)
    assert result.predicted.tolist() == [0, 1, 1]
    assert result.top1 == pytest.approx(100 / 3)
    assert result.confidence[2] == pytest.approx(0.9 if kind == "probability" else 1 / (1 + math.exp(-4)))


def test_an_output_that_is_the_class_has_accuracy_and_no_confidence(evaluation):
    result = evaluation([3, 0, 2], [3, 1, 2], kind="label")
    assert result.predicted.tolist() == [3, 0, 2]
    assert result.top1 == pytest.approx(200 / 3)
    assert (result.top5, result.confidence, result.margin) == (None, None, None)


def test_equal_infinities_are_no_noise(evaluation):
    baseline = [[1.0, -np.inf], [2.0, 0.0]]
    result = evaluation([[1.0, -np.inf], [2.0, 1.0]], baseline=baseline)
    assert result.sqnr_db == pytest.approx(10 * math.log10(5))
    assert evaluation(baseline, baseline=baseline).sqnr_db == math.inf


def test_an_infinity_where_the_baseline_has_none_is_the_worst_there_is(evaluation):
    assert evaluation([[1.0, np.nan]], baseline=[[1.0, 2.0]]).sqnr_db == -100
    assert evaluation([[1.0, np.inf]], baseline=[[1.0, 2.0]]).sqnr_db == -100


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
    results = evaluate(builds, "fp32", iter(batches), done.append, reader=reader_of(2))
    assert [build.runs for build in builds.values()] == [2, 2]
    assert done == [2, 1]
    assert results["fp32"].top1 == pytest.approx(100 * 2 / 3)
    assert results["int8"].top1 == pytest.approx(100 * 1 / 3)
    assert results["int8"].cosine == pytest.approx(-1)
    assert results["fp32"].sqnr_db == math.inf


def test_on_the_first_images_the_deployed_form_is_held_against_the_written_one(batch_of):
    builds = {"fp32": Scaled(1), "int8": Scaled(1.1)}
    deployed = {"int8": Scaled(2)}
    batches = [batch_of(first=4 * i, x=np.full((4, 3), 1.0 + i)) for i in range(3)]
    results = evaluate(builds, "fp32", iter(batches), deployed=deployed, deployed_images=5)
    assert (results["fp32"].written, results["fp32"].deployed) == (None, None)
    found = results["int8"]
    assert (found.images, found.written.images, found.deployed.images) == (12, 8, 8)  # whole batches
    assert deployed["int8"].runs == 2
    assert found.sqnr_db == pytest.approx(20, abs=1e-6)
    assert found.written.sqnr_db == pytest.approx(20, abs=1e-6)
    assert found.deployed.sqnr_db == pytest.approx(0, abs=1e-6)


class Transposed:
    """A model that gives time first, [T, images, classes], and a scalar."""

    def run(self, inputs):
        return [np.zeros((6, len(inputs["x"]), 6)), np.float32(1)]


@pytest.mark.parametrize("size", [2, 5, 6, 7])
def test_two_runs_tell_which_axis_holds_the_images(batch_of, size):
    """Batches of 6 are as long as the other axes, so that one run alone would not tell."""
    reader = reader_from_batch(None, Transposed(), batch_of(x=np.zeros((size, 3))))
    assert [layout.axis for layout in reader.layouts] == [1, None]
    assert reader.compared == (0,)
    assert reader.scores is None
