import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calib.algorithms import MSE, Algorithm, MinMax, Percentile, algorithm_from_name
from calib.errors import CalibrationError
from calib.histograms.histogram import Histogram
from calib.names import ALGORITHMS

values_of_any_size = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-100, 100, width=32))


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_minmax_is_the_largest_magnitude_exactly(histogram_of, values):
    assume(values.any())
    assert MinMax().amax(histogram_of(values)) == float(np.abs(values).max())


@given(values_of_any_size, st.floats(1e-9, 100))
def test_percentile_lies_within_one_bin_of_numpy_s(histogram_of, values, percent):
    histogram = histogram_of(values)
    assume(histogram.abs_max > 0)
    magnitudes = np.abs(values.astype(np.float64))
    # The smallest |x| with at least that share at or below it; a hair on either side, since the share is rounded.
    low, high = np.percentile(
        magnitudes, [percent * (1 - 1e-12), min(percent * (1 + 1e-12), 100)], method="inverted_cdf"
    )
    amax = Percentile(percent).amax(histogram)
    if low == 0 and amax == histogram.abs_max:
        return  # a percentile of zero cannot be a scale: the largest magnitude is taken instead
    assert low - histogram.width <= amax <= high + histogram.width


@pytest.mark.parametrize("percent", [50, 90, 99, 99.9, 99.99])
def test_percentile_of_many_values_is_numpy_s_default_one(histogram_of, percent):
    values = np.random.default_rng(1).laplace(size=400_000).astype(np.float32)
    histogram = histogram_of(values)
    expected = np.percentile(np.abs(values), percent)
    # The last percentiles fall between values that lie further apart than a bin.
    assert Percentile(percent).amax(histogram) == pytest.approx(expected, abs=histogram.width, rel=2e-3)


@given(values_of_any_size)
def test_percentile_100_is_the_largest_magnitude(histogram_of, values):
    assume(values.any())
    assert Percentile(100).amax(histogram_of(values)) == float(np.abs(values).max())


def test_percentile_interpolates_in_its_bin(histogram_of):
    # Width 2^-12; four values in bin 2048 [0.5, 0.50024]: half of the eight lie below, half of those four are 6 of 8.
    histogram = histogram_of([0.25] * 4 + [0.5] * 3 + [0.50001], [1.0])
    assert histogram.width == 2.0**-12
    assert Percentile(100 * 6 / 9).amax(histogram) == pytest.approx(0.5 + 2.0**-13, rel=1e-12)


def test_percentile_of_mostly_zeros_takes_the_largest_magnitude(histogram_of):
    assert Percentile(99).amax(histogram_of([0.0] * 999, [3.0])) == 3.0


def brute_force_error(values, amax):
    """Squared error of the INT8 grid -127..127 with the step amax / 127, in plain Python."""
    step = amax / 127
    return sum((x - min(round(x / step), 127) * step) ** 2 for x in values)


def centres(histogram):
    """The histogram's values at the centres of its bins, zeros left out."""
    counts = histogram.counts.copy()
    counts[0] -= histogram.zeros
    return [(i + 0.5) * histogram.width for i in np.flatnonzero(counts) for _ in range(counts[i])]


@settings(max_examples=15, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 25), elements=st.floats(-4, 4, width=32) | st.floats(-50, 50, width=32)))
def test_mse_is_as_good_as_the_best_of_all_candidates(histogram_of, values):
    histogram = histogram_of(values)
    assume(histogram.abs_max > 1e-3)
    points, limit = centres(histogram), histogram.abs_max
    amax = MSE().amax(histogram)
    assert 0 < amax <= limit
    best = min(brute_force_error(points, i * limit / 2048) for i in range(64, 2049, 8))
    # The search moves in steps of a thousandth of the range: each value's error may differ by so much.
    found = brute_force_error(points, amax)
    assert math.sqrt(found) <= math.sqrt(1.02 * best) + math.sqrt(len(points)) * limit / 1000


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("draw", ["normal", "laplace", "standard_cauchy"])
def test_mse_minimises_the_true_squared_error_of_many_values(histogram_of, draw, seed):
    values = getattr(np.random.default_rng(seed), draw)(size=20_000).astype(np.float32)
    histogram = histogram_of(values)

    def error(amax):
        step = amax / 127
        return float(np.square(values - np.clip(np.rint(values / step), -127, 127) * step).sum(dtype=np.float64))

    amax = MSE().amax(histogram)
    best = min(error(fraction * histogram.abs_max) for fraction in np.linspace(0.01, 1, 300))
    assert error(amax) <= best * 1.01


def test_mse_clips_one_far_value_only_when_that_pays(histogram_of):
    # 10,000 values spread over 0..1 cost 10,000 * step^2 / 12 in rounding; clipping 4.0 to 1.0 costs 9.
    spread = np.linspace(0, 1, 10_000)
    assert MSE().amax(histogram_of(spread, [4.0])) > 3.5
    # With 10 million of them rounding costs more: step 4/127 costs 827, step 1/127 costs 52 + 9.
    many = histogram_of(spread)
    for _ in range(10):
        many = many.merged(many)
    assert MSE().amax(many.merged(histogram_of([4.0]))) == pytest.approx(1.0, abs=0.35)


@pytest.mark.parametrize("algorithm", [MinMax(), Percentile(), Percentile(50), MSE()])
def test_a_tensor_of_zeros_gets_a_positive_amax(histogram_of, algorithm):
    for histogram in (histogram_of([0.0, -0.0]), Histogram()):
        amax = algorithm.amax(histogram)
        assert amax > 0
        assert math.isfinite(amax)


@pytest.mark.parametrize("algorithm", [MinMax(), Percentile(), MSE()])
@pytest.mark.parametrize("value", [1e-44, 1e-38, 1e38, float(np.finfo(np.float32).max)])
def test_the_smallest_and_largest_floats_get_a_finite_amax_within_their_range(histogram_of, algorithm, value):
    assert 0 < algorithm.amax(histogram_of([value, -value])) <= float(np.float32(value))


@pytest.mark.parametrize("algorithm", [MinMax(), Percentile(99), MSE()])
def test_algorithms_leave_the_histogram_as_it_is(histogram_of, assert_same_histogram, algorithm):
    values = np.linspace(-2, 5, 1000)
    histogram = histogram_of(values, [0.0])
    algorithm.amax(histogram)
    assert_same_histogram(histogram, histogram_of(values, [0.0]))


def test_an_algorithm_is_found_by_its_name():
    assert algorithm_from_name("minmax") == MinMax()
    assert algorithm_from_name("mse") == MSE()
    assert algorithm_from_name("percentile", 99.5) == Percentile(99.5)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CalibrationError, match="expected one of entropy, minmax, percentile, mse, found 'kl'"):
        algorithm_from_name("kl")


@pytest.mark.parametrize("percent", [0, -1, 100.001, math.nan, math.inf])
def test_a_percentile_outside_its_range_is_refused(percent):
    with pytest.raises(CalibrationError, match="expected a number above 0 and up to 100"):
        Percentile(percent)


def test_every_algorithm_is_found_by_its_name():
    assert [algorithm_from_name(name).name for name in ALGORITHMS] == list(ALGORITHMS)
    assert {type(algorithm_from_name(name)) for name in ALGORITHMS} == set(get_args(Algorithm))
