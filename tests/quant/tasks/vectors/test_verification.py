"""Rates of verification, against loops over pairs."""

import itertools

import numpy as np
import pytest

from quant.evaluation.drop import drawn_weights
from quant.tasks.vectors.embedding import EmbeddingRecorder, cosines, pair_images
from quant.tasks.vectors.vector_head import VectorHead
from quant.tasks.vectors.verification import (
    accepted_at,
    best_accuracy,
    measurable_rate,
    pairs_of,
    threshold_at,
    true_rates,
)

RNG = np.random.default_rng(5)
LABELS = np.repeat(np.arange(6), 4)
CENTRES = RNG.normal(0, 1, (6, 16))
VECTORS = CENTRES[LABELS] + RNG.normal(0, 1.2, (24, 16))


def rates_by_loops(images, rate):
    """TAR at a FAR, from all pairs of a list of images in which some are repeated; a pair of one image is none."""
    same, others = [], []
    for a, b in itertools.combinations(images, 2):
        if a != b:
            cosine = VECTORS[a] @ VECTORS[b] / np.linalg.norm(VECTORS[a]) / np.linalg.norm(VECTORS[b])
            (same if LABELS[a] == LABELS[b] else others).append(cosine)
    best = 0.0
    for threshold in [*same, *others]:
        if np.mean([each >= threshold - 1e-12 for each in others]) <= rate:
            best = max(best, float(np.mean([each >= threshold - 1e-12 for each in same])))
    return best


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_rates_of_all_images_and_of_draws(rate):
    pairs = pairs_of(VECTORS, LABELS)
    weights = np.concatenate([np.ones((1, 24), np.int64), drawn_weights(24, 5, seed=1)])
    expected = [rates_by_loops(np.repeat(np.arange(24), row), rate) for row in weights]
    np.testing.assert_allclose(true_rates(pairs, weights, rate), expected)
    assert 0.1 < expected[0] < 1
    tar, far = accepted_at(pairs, threshold_at(pairs, rate))
    assert tar == pytest.approx(expected[0]) and far <= rate


def test_the_best_accuracy_is_that_of_the_best_threshold():
    pairs = pairs_of(VECTORS, LABELS)
    tried = [np.mean([tar, 1 - far]) for tar, far in (accepted_at(pairs, t) for t in pairs.similarity)]
    assert best_accuracy(pairs) == pytest.approx(max(tried))


def test_a_draw_without_pairs_of_the_same_has_no_rate():
    weights = np.zeros((1, 24), np.int64)
    weights[0, [0, 4]] = 3
    assert np.isnan(true_rates(pairs_of(VECTORS, LABELS), weights, 0.1)).all()


def test_equal_similarities_are_accepted_together():
    pairs = pairs_of(np.ones((4, 3)), np.array([0, 0, 1, 1]))
    assert true_rates(pairs, np.ones((1, 4), np.int64), 0.1)[0] == 0
    assert best_accuracy(pairs) == 0.5


def test_the_rate_that_so_many_pairs_can_show():
    assert [measurable_rate(n) for n in (99, 100, 1000, 10_000, 200_000)] == [None, 0.1, 0.01, 0.001, 0.0001]


def test_few_of_very_many_images_are_paired_at_even_distances():
    assert pair_images(7).tolist() == list(range(7))
    chosen = pair_images(10_000)
    assert len(chosen) == 500 and chosen[0] == 0 and chosen[-1] == 9999 and np.diff(chosen).max() <= 21


def test_cosines():
    a, b = np.array([[3.0, 4], [1, 0], [0, 0], [1, np.nan]]), np.array([[4.0, 3], [1, 0], [0, 0], [1, 0]])
    np.testing.assert_allclose(cosines(a, b), [0.96, 1, 1, 0])


def test_identities_that_show_no_two_of_the_same_are_no_labels():
    head = VectorHead(0, "y", 0, 16)
    assert EmbeddingRecorder(head, np.arange(40), np.arange(40)).labelled is False
    assert EmbeddingRecorder(head, LABELS, np.arange(24)).name == "TAR at a FAR of 10 %"
    assert EmbeddingRecorder(head, LABELS, np.arange(4)).labelled is False  # no pair of others
