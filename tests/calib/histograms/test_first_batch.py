"""The histogram that TensorRT builds, against one built with NumPy from whole batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib import CalibrationError
from calib.entropy import SEARCH_BINS
from calib.histograms.first_batch import FirstBatchHistogram, largest_magnitude


def numpy_histogram(batches):
    """Counts and range as described in the module's docstring, from whole batches."""
    counts, limit = np.zeros(SEARCH_BINS, np.int64), np.float32(0)
    for batch in batches:
        magnitudes = np.abs(batch)
        if not limit:
            limit = magnitudes.max()
        if not limit:
            continue
        while magnitudes.max() > limit:
            counts = np.concatenate([counts.reshape(-1, 2).sum(axis=1), np.zeros(SEARCH_BINS // 2, np.int64)])
            limit = np.float32(limit * 2)
        index = (magnitudes * (np.float32(SEARCH_BINS) / limit)).astype(np.int64)
        counts += np.bincount(np.minimum(index, SEARCH_BINS - 1), minlength=SEARCH_BINS)
    return counts, float(limit)


def collected(batches, parts):
    histogram = FirstBatchHistogram()
    for batch in batches:
        histogram.start_batch()
        histogram.open(largest_magnitude(batch))
        for part in np.array_split(batch, parts):
            histogram.add(part, largest_magnitude(part))
    return histogram


batch = st.lists(st.integers(-40, 40).map(lambda v: v / 8), min_size=1, max_size=30).map(
    lambda values: np.array(values, np.float32)
)


@given(st.lists(batch, min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=300)
def test_parts_of_batches_give_what_whole_batches_give(batches, parts):
    counts, limit = numpy_histogram(batches)
    histogram = collected(batches, parts)
    assert histogram.limit == limit
    np.testing.assert_array_equal(histogram.counts[1:], counts[1:])  # bin 0 is never read


def test_the_first_maximum_moves_with_its_bin():
    histogram = collected([np.array([1.0], np.float32), np.array([1.5], np.float32)], 1)
    assert histogram.limit == 2.0
    assert np.flatnonzero(histogram.counts).tolist() == [1023, 1536]  # 1.0 was clamped into bin 2047 of the first grid


def test_the_order_of_batches_matters():
    rng = np.random.default_rng(0)
    small, large = (rng.standard_normal(4000).astype(np.float32) * scale for scale in (1, 3))
    assert collected([small, large], 1).limit != collected([large, small], 1).limit


def test_zeros_alone_have_no_amax():
    assert collected([np.zeros(5, np.float32)], 1).amax() == 0.0


def test_parts_that_contradict_each_other_are_refused():
    with pytest.raises(CalibrationError, match="expected 2048 counts"):
        FirstBatchHistogram.from_parts(np.zeros(7, np.int64), 1.0)
    with pytest.raises(CalibrationError, match="finite range"):
        FirstBatchHistogram.from_parts(np.zeros(SEARCH_BINS, np.int64), float("nan"))
