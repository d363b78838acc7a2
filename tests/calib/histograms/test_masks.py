"""A mask among a tensor's values: what is one, and what only looks large."""

import numpy as np
import pytest

from calib.histograms.histogram import Histogram
from calib.histograms.masks import holds_mask

LOWEST = float(np.finfo(np.float32).min)


def histogram(*parts):
    found = Histogram()
    for part in parts:
        found.add(np.asarray(part, np.float32))
    return found


@pytest.fixture
def scores():
    return np.random.default_rng(0).normal(size=1000) * 4


@pytest.mark.parametrize("mask", [LOWEST, LOWEST / 2, -1e9, -65504.0, -1e4, 1e9])
@pytest.mark.parametrize("added", [True, False])
def test_values_far_below_a_mask_make_it_one(scores, mask, added):
    hidden = scores[:300] + mask if added else np.full(300, mask)
    found = histogram(scores, hidden)
    assert holds_mask(found)
    other = histogram(scores[:500], hidden[:150]).merged(histogram(scores[500:], hidden[150:]))
    assert holds_mask(other)  # however the values are divided


@pytest.mark.parametrize(
    "parts",
    [
        lambda x: (x,),
        lambda x: (x * 1e4,),  # large throughout
        lambda x: (x, [-900.0]),  # an outlier, as people plant them: no stand-in for infinity
        lambda x: (x, [-1e9] * 5, [-3e8]),  # a tail, not a mask
        lambda x: (x, [-1e9] * 5, [1e9] * 5),  # of both signs
        lambda x: (np.zeros(50), [-1e9] * 50),  # the mask itself
        lambda x: ([-1e9] * 50,),
        lambda x: (x * 200, [-1e4] * 9),  # values that 127 levels up to the mask still tell apart
        lambda x: (np.zeros(5),),
        lambda x: (),
    ],
)
def test_other_values_are_none(scores, parts):
    assert not holds_mask(histogram(*parts(scores)))
