"""Intersection over union, against loops over pixels."""

import numpy as np
import pytest
from interval_coverage import coverage

from quant.evaluation.drop import drawn_weights
from quant.tasks.segmentation.overlap import counts_of_image, gathered, mean_overlap

RNG = np.random.default_rng(3)
CLASSES = 4
TRUTHS = RNG.integers(-1, 3, (6, 5, 7))  # class 3 is in no mask
ANSWERS = np.where(RNG.random((6, 5, 7)) < 0.6, np.maximum(TRUTHS, 0), RNG.integers(0, 4, (6, 5, 7)))


def by_loops(images):
    """IoU of each class over some images, pixel by pixel; None where the class occurs nowhere."""
    found = []
    for label in range(CLASSES):
        both = either = 0
        for i in images:
            for answer, truth in zip(ANSWERS[i].ravel(), TRUTHS[i].ravel(), strict=True):
                if truth >= 0:
                    both += answer == truth == label
                    either += label in (answer, truth)
        found.append(100 * both / either if either else None)
    return found


@pytest.fixture
def counts():
    return gathered([counts_of_image(a, t, CLASSES) for a, t in zip(ANSWERS, TRUTHS, strict=True)], CLASSES)


def test_overlaps_of_all_images(counts):
    expected = by_loops(range(6))
    whole = counts.drawn(np.ones((1, 6), np.int64))
    np.testing.assert_allclose(whole.overlaps()[0], expected)
    assert expected[3] == 0  # answered, and nowhere there
    assert mean_overlap(whole.overlaps())[0] == pytest.approx(np.mean(expected))
    counted = TRUTHS >= 0
    assert whole.accuracy()[0] == pytest.approx(100 * (ANSWERS == TRUTHS)[counted].mean())


def test_a_draw_is_a_set_in_which_images_are_repeated(counts):
    weights = drawn_weights(6, 5, seed=2)
    for row, weight in zip(counts.drawn(weights).overlaps(), weights, strict=True):
        expected = by_loops(np.repeat(np.arange(6), weight))
        np.testing.assert_allclose(row, [np.nan if value is None else value for value in expected])


def test_a_class_that_occurs_nowhere_does_not_count():
    only = gathered([counts_of_image(np.zeros((2, 2), int), np.zeros((2, 2), int), 3)], 3).drawn(np.ones((1, 1), int))
    assert np.isnan(only.overlaps()[0, 1:]).all()
    assert mean_overlap(only.overlaps())[0] == 100


def test_images_of_different_numbers_of_classes():
    """Numbers of classes do not tell how many there are; later images may hold more."""
    parts = [counts_of_image(np.zeros((1, 1), int), np.zeros((1, 1), int), 1)]
    parts.append(counts_of_image(np.full((1, 1), 2), np.full((1, 1), 2), 3))
    assert gathered(parts, 3).right.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_the_interval_holds_the_true_drop_about_as_often_as_it_says():
    """Few draws, so the bounds are wide; scripts/interval_coverage.py makes 1,000."""
    drop, held = coverage("miou", draws=60, images=80, resamples=150, size=800, seed=3)
    assert drop > 0.5
    assert 53 <= held <= 60
