"""Several labels an image, against scikit-learn."""

import numpy as np
import pytest

from quant.evaluation.drop import drawn_weights
from quant.tasks.vectors.multilabel import f1, mean_precisions_of_labels

RNG = np.random.default_rng(2)
TRUTH = RNG.random((60, 4)) < (0.5, 0.2, 0.05, 0.3)
SCORES = np.round(TRUTH * 0.4 + RNG.random((60, 4)), 1)  # many are equal


def by_sklearn(rows):
    metrics = pytest.importorskip("sklearn.metrics")
    labels = [i for i in range(4) if TRUTH[rows, i].any()]
    return np.mean([metrics.average_precision_score(TRUTH[rows, i], SCORES[rows, i]) for i in labels])


def test_average_precision_of_all_images_and_of_draws():
    weights = np.concatenate([np.ones((1, 60), np.int64), drawn_weights(60, 8, seed=4)])
    expected = [by_sklearn(np.repeat(np.arange(60), row)) for row in weights]
    np.testing.assert_allclose(mean_precisions_of_labels(SCORES, TRUTH, weights), expected)


def test_a_draw_without_any_label_has_none():
    weights = (~TRUTH.any(axis=1)).astype(np.int64)[None]
    assert np.isnan(mean_precisions_of_labels(SCORES, TRUTH, weights)).all()


def test_f1():
    metrics = pytest.importorskip("sklearn.metrics")
    answers = SCORES > 0.6
    assert f1(answers.ravel(), TRUTH.ravel()) == pytest.approx(metrics.f1_score(TRUTH.ravel(), answers.ravel()))
    nothing = np.zeros(3, bool)
    assert f1(nothing, nothing) == 1
    assert f1(~nothing, nothing) == 0
