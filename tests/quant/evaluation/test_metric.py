from types import SimpleNamespace

import numpy as np
import pytest

from quant.errors import QuantError
from quant.evaluation.drop import drawn_weights, metric_drop
from quant.evaluation.metric import MetricRecorder, recorder_from_settings, section_from_scores
from quant.progress import RecordingConsole
from quant.settings.run_settings import RunSettings

SCORES = """
import numpy as np

def first(outputs, labels):
    return outputs["y"][:, 0]

def right(outputs, labels):
    return outputs["y"].argmax(1) == labels

class Named:
    def __call__(self, outputs, labels, names):
        return [float(name.partition(".")[0]) for name in names]

named = Named()

def fails(outputs, labels):
    return outputs["no such output"]

def one(outputs, labels):
    return 1.0

def reads(outputs, labels):
    return [float(len(text)) for text in labels]

def infinite(outputs, labels):
    return np.where(np.arange(len(outputs["y"])) == 1, np.inf, 0)
"""


@pytest.fixture
def recorder(tmp_path):
    (tmp_path / "scores.py").write_text(SCORES)
    return lambda name: MetricRecorder(f"{tmp_path / 'scores.py'}:{name}", ["y"])


def test_scores_of_all_batches_by_build(recorder, batch_of):
    metric = recorder("first")
    for build, sign in (("fp32", 1), ("int8", -1)):
        metric.observe(build, [sign * np.array([[1.0, 9], [2, 9]])], batch_of(x=np.zeros(2)))
        metric.observe(build, [sign * np.array([[3.0, 9]])], batch_of(x=np.zeros(1), first=2))
    np.testing.assert_array_equal(metric.scores()["fp32"], [1, 2, 3])
    np.testing.assert_array_equal(metric.scores()["int8"], [-1, -2, -3])


def test_labels_and_names_are_given(recorder, batch_of):
    metric = recorder("right")
    metric.observe("fp32", [np.array([[0.0, 1], [1, 0]])], batch_of(x=np.zeros(2), labels=np.array([1, 1])))
    np.testing.assert_array_equal(metric.scores()["fp32"], [1, 0])
    metric = recorder("named")
    metric.observe("fp32", [np.zeros((2, 2))], batch_of(x=np.zeros(2), first=5))
    np.testing.assert_array_equal(metric.scores()["fp32"], [5, 6])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("fails", "images '0.png' to '1.png': line 17: KeyError: 'no such output'"),
        ("one", "expected 2 scores, one per image, found shape ()"),
        ("infinite", "expected finite scores, found inf for '1.png'"),
    ],
)
def test_what_a_metric_does_wrong_is_said(recorder, batch_of, name, part):
    with pytest.raises(QuantError) as caught:
        recorder(name).observe("int8", [np.zeros((2, 2))], batch_of(x=np.zeros(2)))
    assert part in str(caught.value)
    assert f"scores.py:{name}: int8" in str(caught.value)


def test_a_file_that_cannot_be_imported(tmp_path):
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(QuantError, match="cannot be imported: line 2: SyntaxError"):
        MetricRecorder(f"{tmp_path / 'broken.py'}:f", ["y"])


def test_the_drop_of_equal_scores_is_zero():
    scores = np.random.default_rng(0).random(50)
    found = metric_drop(scores, scores)
    assert (found.drop, found.low, found.high) == (0, 0, 0)
    assert found.score == pytest.approx(scores.mean())


def test_a_constant_drop_has_no_spread():
    scores = np.arange(20.0)
    found = metric_drop(scores, scores - 0.5)
    assert (found.drop, found.low, found.high) == (0.5, 0.5, 0.5)


def test_the_interval_depends_on_the_seed_alone():
    rng = np.random.default_rng(1)
    a, b = rng.random(300), rng.random(300)
    assert metric_drop(a, b, seed=4) == metric_drop(a, b, seed=4)
    assert metric_drop(a, b, seed=4) != metric_drop(a, b, seed=5)


def test_the_interval_is_that_of_the_normal_distribution_for_many_images():
    """Mean +- 1.96 standard errors, which the bootstrap approaches."""
    rng = np.random.default_rng(2)
    base, loss = rng.normal(0, 5, 4000), rng.normal(0.1, 1.0, 4000)
    found = metric_drop(base, base - loss)
    error = loss.std() / np.sqrt(4000)
    assert found.drop == pytest.approx(loss.mean())
    assert found.low == pytest.approx(loss.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(loss.mean() + 1.96 * error, abs=0.15 * error)


def test_the_interval_covers_a_known_drop_in_95_of_100_draws():
    rng = np.random.default_rng(3)
    covered = 0
    for draw in range(1000):
        scores = rng.random(200)
        found = metric_drop(scores, scores - rng.exponential(0.3, 200), seed=draw, resamples=400)
        covered += found.low <= 0.3 <= found.high
    assert 925 <= covered <= 970


def test_the_section_of_a_report(recorder, batch_of):
    metric = recorder("first")
    metric.observe("fp32", [np.array([[1.0], [3.0]])], batch_of(x=np.zeros(2)))
    metric.observe("int8", [np.array([[1.0], [1.0]])], batch_of(x=np.zeros(2)))
    section = section_from_scores(metric, "fp32", seed=7, max_drop=5.0)
    assert (section["name"], section["images"], section["seed"]) == ("first", 2, 7)
    assert section["allowed_drop"] == pytest.approx(0.1)  # 5 % of 2
    assert section["builds"][0] == {"precision": "fp32", "score": 2.0}
    # Width 2, distance 0.9: 2 * (2.8016 * (2 / 3.91993) / 0.9)^2 = 5.05
    assert section["builds"][1] == {
        "precision": "int8", "score": 1.0, "drop": 1.0, "drop_ci95": [0.0, 2.0], "enough_images": False,
        "images_needed": 6,
    }  # fmt: skip


def test_the_allowed_drop_of_a_score_below_zero_is_positive(recorder, batch_of):
    metric = recorder("first")
    metric.observe("fp32", [np.array([[-4.0], [-4.0]])], batch_of(x=np.zeros(2)))
    metric.observe("int8", [np.array([[-4.5], [-4.5]])], batch_of(x=np.zeros(2)))
    section = section_from_scores(metric, "fp32", seed=0, max_drop=1.0)
    assert section["allowed_drop"] == pytest.approx(0.04)
    assert section["builds"][1]["enough_images"]
    assert section["builds"][1]["images_needed"] is None


SETS = """
import numpy as np

class Median:
    def per_image(self, outputs, labels, names):
        return [(float(y), float(label), name) for y, label, name in zip(outputs["y"][:, 0], labels, names)]

    def score(self, records):
        return -float(np.median([abs(y - label) for y, label, _ in records]))

median = Median()

class Few(Median):
    def per_image(self, outputs, labels):
        return [1]

class Many(Median):
    def score(self, records):
        return [1.0, 2.0]

class Fails(Median):
    def score(self, records):
        return 1 / 0

class Needs:
    def __init__(self, something):
        pass
    def per_image(self, outputs, labels):
        return []
    def score(self, records):
        return 0.0
"""


@pytest.fixture
def set_recorder(tmp_path):
    """A recorder of a metric that scores all images together, as settings name it."""
    (tmp_path / "sets.py").write_text(SETS)
    interface = SimpleNamespace(outputs=[SimpleNamespace(name="y")])

    def make(name):
        settings = RunSettings(metric=f"{tmp_path / 'sets.py'}:{name}")
        return recorder_from_settings(settings, interface, RecordingConsole())

    return make


def observed(metric, batch_of, errors):
    """Batches of two images whose labels are 0, ...; FP32 is off by the errors, INT8 by twice as much."""
    for build, factor in (("fp32", 1), ("int8", 2)):
        for first in range(0, len(errors), 2):
            labels = np.arange(first, first + 2, dtype=float)
            outputs = (labels + factor * errors[first : first + 2])[:, None]
            metric.observe(build, [outputs], batch_of(x=np.zeros(2), first=first, labels=labels))
    return metric


@pytest.mark.parametrize("name", ["Median", "median"])
def test_a_set_is_scored_as_a_whole(set_recorder, batch_of, name):
    """A median is no mean over images: of a draw it is that of the images drawn, with repetitions."""
    errors = np.array([0.1, 0.4, 0.2, 0.9, 0.3, 0.5])
    metric = observed(set_recorder(name), batch_of, errors)
    section = section_from_scores(metric, "fp32", seed=3, max_drop=1.0)
    fp32, int8 = section["builds"]
    assert (fp32["score"], int8["score"]) == (pytest.approx(-0.35), pytest.approx(-0.7))
    assert int8["drop"] == pytest.approx(0.35)
    draws = drawn_weights(6, section["resamples"], 3)
    drops = [np.median(np.repeat(errors, row)) for row in draws]  # of INT8, twice as much, minus once
    assert int8["drop_ci95"] == pytest.approx(np.percentile(drops, [2.5, 97.5]))
    assert section["of_all"] and section["images"] == 6


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Few", "expected a list of 2, one for each image, found 1"),
        ("Many", "6 images together: expected one finite number, found"),
        ("Fails", "6 images together: line 23: ZeroDivisionError"),
        ("Needs", "TypeError: "),
    ],
)
def test_what_a_metric_of_a_set_does_wrong_is_said(set_recorder, batch_of, name, part):
    with pytest.raises(QuantError, match=r"metric .*sets\.py") as caught:
        observed(set_recorder(name), batch_of, np.arange(6.0)).score("fp32")
    assert part in str(caught.value)


def test_texts_are_given_as_they_are(recorder, batch_of):
    """Labels that name no class of the model, such as what a picture says."""
    metric = recorder("reads")
    metric.texts = ("abc", "xy")
    metric.observe("fp32", [np.zeros((2, 2))], batch_of(x=np.zeros(2), labels=np.array([1, 0])))
    np.testing.assert_array_equal(metric.scores()["fp32"], [2, 3])
