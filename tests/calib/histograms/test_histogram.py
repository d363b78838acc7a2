import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calib.errors import CalibrationError, NonFiniteError
from calib.histograms.histogram import BINS, Histogram
from calib.histograms.split_histogram import SplitHistogram

TINIEST = np.float32(2.0**-149)  # the smallest denormal
LARGEST = np.finfo(np.float32).max
CHUNK = 4096  # values that are counted at a time

anything = hnp.arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, -2.0, 4.0]),
)
# Magnitudes close together, so that values share bins and ranges double only a few times.
ordinary = hnp.arrays(np.float32, st.integers(0, 200), elements=st.floats(-8, 8, width=32))


def numpy_counts(values, width):
    """The same bins computed by NumPy: float64 holds every edge and every float32 exactly."""
    return np.histogram(np.abs(np.asarray(values, np.float64)), np.arange(BINS + 1) * width)[0]


def assert_counts_are_numpy_s(histogram, values):
    """Rows of negative and of other values, each with its width, and the sum of both with the larger width."""
    for row, width, kept in zip(histogram.signed_counts, histogram.widths, (values < 0, values >= 0), strict=True):
        np.testing.assert_array_equal(row, numpy_counts(values[kept], width))
    np.testing.assert_array_equal(histogram.counts, numpy_counts(values, histogram.width))


@given(anything | ordinary)
def test_counts_are_numpy_s_and_extremes_are_exact(histogram_of, values):
    histogram = histogram_of(values)
    assert_counts_are_numpy_s(histogram, values)
    assert histogram.count == len(values)
    assert histogram.zeros == int((values == 0).sum())
    if len(values):
        assert (histogram.min, histogram.max) == (float(values.min()), float(values.max()))
        assert histogram.abs_max == float(np.abs(values).max())


@given(anything | ordinary, st.data())
def test_counts_are_the_same_for_any_split_order_and_merge(histogram_of, assert_same_histogram, values, data):
    at_once = histogram_of(values)
    shuffled = values[data.draw(st.permutations(range(len(values))))] if len(values) else values
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    parts = np.split(shuffled, cuts)
    assert_same_histogram(histogram_of(*parts), at_once)

    shards = data.draw(st.permutations([histogram_of(part) for part in parts]))
    while len(shards) > 1:  # merged pair by pair, in a tree of any shape
        i = data.draw(st.integers(0, len(shards) - 2))
        shards[i : i + 2] = [shards[i].merged(shards[i + 1])]
    assert_same_histogram(shards[0], at_once)


@given(anything, anything, anything)
def test_counting_goes_on_after_a_merge(histogram_of, assert_same_histogram, first, second, third):
    merged = histogram_of(first).merged(histogram_of(second))
    merged.add(third)
    assert_same_histogram(merged, histogram_of(np.concatenate([first, second, third])))


def test_merging_changes_neither_operand(histogram_of, assert_same_histogram):
    small, large = histogram_of([0.5, -0.25]), histogram_of([1000.0])
    merged = small.merged(large)
    merged.add([7.0])
    assert_same_histogram(small, histogram_of([0.5, -0.25]))
    assert_same_histogram(large, histogram_of([1000.0]))


def test_the_width_is_the_smallest_power_of_two_that_holds_the_largest_magnitude(histogram_of):
    # 8192 bins: width 2^-13 ends right before 1.0, so that 1.0 itself takes 2^-12.
    below_one = np.nextafter(np.float32(1), np.float32(0))
    assert histogram_of([below_one]).width == 2.0**-13
    assert histogram_of([1.0]).width == 2.0**-12
    assert histogram_of([-1.0, 0.25]).width == 2.0**-12
    assert histogram_of([-1.0, 0.25]).widths == (2.0**-12, 2.0**-14)
    grown = histogram_of([below_one], [1.0])
    assert grown.width == 2.0**-12
    assert (grown.counts[4095], grown.counts[4096]) == (1, 1)


def test_growth_by_many_doublings_keeps_small_values_in_the_first_bin(histogram_of):
    histogram = histogram_of([1e-30] * 3, [-1e-30] * 2, [1e30])
    assert histogram.signed_counts[1, 0] == 3
    assert histogram.counts[0] == 5
    assert histogram.count == 6


def test_growth_inside_one_array_that_is_longer_than_a_chunk(histogram_of):
    values = np.linspace(-1, 1, 3 * CHUNK + 17, dtype=np.float32)
    values[2 * CHUNK + 5] = 500.0
    histogram = histogram_of(values)
    assert_counts_are_numpy_s(histogram, values)
    assert histogram.max == 500.0


def test_zeros_of_both_signs_are_counted_as_zeros_and_as_positive(histogram_of):
    histogram = histogram_of([0.0, -0.0, -0.0])
    assert (histogram.zeros, histogram.count) == (3, 3)
    assert histogram.signed_counts[:, 0].tolist() == [0, 3]
    assert (histogram.min, histogram.max, histogram.abs_max) == (0.0, 0.0, 0.0)
    assert not np.signbit(histogram.min)


@given(ordinary)
def test_the_sign_of_a_zero_makes_no_difference(histogram_of, assert_same_histogram, values):
    assert_same_histogram(histogram_of(values, [-0.0]), histogram_of([0.0], values))


def test_denormals_are_kept_apart_from_zeros(histogram_of):
    histogram = histogram_of([0.0, TINIEST, -TINIEST])
    assert (histogram.zeros, histogram.count) == (1, 3)
    assert (histogram.min, histogram.max) == (-float(TINIEST), float(TINIEST))
    assert histogram.signed_counts[:, 0].tolist() == [1, 2]


def test_the_largest_floats_have_a_bin(histogram_of):
    histogram = histogram_of([LARGEST, -LARGEST, 1.0])
    assert (histogram.min, histogram.max) == (-float(LARGEST), float(LARGEST))
    assert histogram.signed_counts[:, -1].tolist() == [1, 1]


def test_an_empty_histogram_and_an_empty_array(histogram_of, assert_same_histogram):
    empty = histogram_of([])
    assert (empty.count, empty.zeros, empty.min, empty.max) == (0, 0, 0.0, 0.0)
    some = histogram_of([-3.0, 2.0])
    assert_same_histogram(empty.merged(some), some)
    assert_same_histogram(some.merged(empty), some)


def test_counts_pass_2_to_the_31_by_merging(histogram_of):
    histogram = histogram_of([0.0, -1.0, 1.0, 1.0])
    for _ in range(33):
        histogram = histogram.merged(histogram)
    assert histogram.count == 4 << 33
    assert histogram.zeros == 1 << 33
    assert histogram.counts[4096] == 3 << 33


def test_counts_past_2_to_the_31_come_out_of_parts_and_grow_on():
    counts = np.zeros((2, BINS), np.int64)
    counts[1, 4096] = 5_000_000_000
    histogram = Histogram.from_parts(counts, widths=(2.0**-120, 2.0**-12), zeros=0, minimum=1.0, maximum=1.0)
    histogram.add(np.full(7, 3.0, np.float32))  # doubles the width
    assert histogram.count == 5_000_000_007
    assert histogram.counts[2048] == 5_000_000_000


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 5, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_a_value_that_is_not_finite_is_an_error_with_its_index(value, index):
    values = np.zeros(2 * CHUNK + 8, np.float32)
    values[index] = value
    values[-1] = value
    with pytest.raises(NonFiniteError, match=f"value {index} is") as caught:
        Histogram().add(values)
    assert caught.value.index == index


def test_the_index_of_a_value_that_is_not_finite_is_that_of_the_flattened_array():
    values = np.zeros((2, 3, 4), np.float32)
    values[1, 2, 1] = np.nan
    with pytest.raises(NonFiniteError) as caught:
        Histogram().add(values)
    assert caught.value.index == 1 * 12 + 2 * 4 + 1


def test_any_shape_stride_and_floating_type(histogram_of, assert_same_histogram):
    values = np.arange(-12, 12, dtype=np.float32).reshape(2, 3, 4) / 8
    expected = histogram_of(values.ravel())
    for other in (values, values.transpose(2, 0, 1), values[:, ::-1], values.astype(np.float16), values.astype("f8")):
        histogram = Histogram()
        histogram.add(other)
        assert_same_histogram(histogram, expected)


@given(anything | ordinary, ordinary)
def test_parts_put_together_are_the_histogram_again(histogram_of, assert_same_histogram, values, more):
    histogram = histogram_of(values)
    rebuilt = Histogram.from_parts(
        histogram.signed_counts.copy(),
        widths=histogram.widths,
        zeros=histogram.zeros,
        minimum=histogram.min,
        maximum=histogram.max,
    )
    assert_same_histogram(rebuilt, histogram)
    rebuilt.add(more)
    assert_same_histogram(rebuilt, histogram_of(values, more))


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (0.0, 2.0**-12)},
        {"widths": (2.0**-13, -(2.0**-12))},
        {"widths": (3.0, 2.0**-12)},
        {"widths": (2.0**-13, float("nan"))},
        {"widths": (float("inf"), 2.0**-12)},
        {"minimum": 2.0},
        {"maximum": float("nan")},
        {"maximum": 3.0},
        {"minimum": -2.5},
        {"zeros": -1},
        {"zeros": 3},
        {"minimum": 0.0, "maximum": 0.0},
        {"signed_counts": np.zeros((2, BINS), np.int64)},
        {"signed_counts": np.zeros((2, BINS // 2), np.int64)},
        {"signed_counts": np.zeros(BINS, np.int64)},
        {"signed_counts": -np.ones((2, BINS), np.int64)},
    ],
    ids=lambda change: " ".join(f"{k}={getattr(v, 'shape', v)}" for k, v in change.items()),
)
def test_parts_that_contradict_each_other_are_refused(histogram_of, change):
    histogram = histogram_of([0.0, -0.5, 1.5])
    parts = {"widths": histogram.widths, "zeros": 1, "minimum": -0.5, "maximum": 1.5}
    Histogram.from_parts(histogram.signed_counts, **parts)
    parts = {"signed_counts": histogram.signed_counts, **parts, **change}
    with pytest.raises(CalibrationError):
        Histogram.from_parts(parts.pop("signed_counts"), **parts)


@given(anything | ordinary)
def test_the_histogram_of_a_relu_follows_from_that_of_its_input(histogram_of, assert_same_histogram, values):
    assert_same_histogram(histogram_of(values).rectified(), histogram_of(np.maximum(values, 0)))


@example(np.array([8.8837e-26], np.float32), 25)  # whose bins end one step below the narrowest
@given(anything | ordinary, st.integers(1, 30))
def test_the_histogram_of_halves_follows_from_that_of_the_whole(histogram_of, assert_same_histogram, values, times):
    values = np.where(np.abs(values) < 2.0**-96, np.float32(0), values)  # so that none becomes subnormal
    halves = values * np.float32(2.0**-times)
    assert_same_histogram(histogram_of(values).halved(times), histogram_of(halves))


@given(anything | ordinary, anything | ordinary, st.sampled_from([0.5, 1.0, 6.0, 1e-3, 1e30, np.inf]))
def test_one_pass_gives_the_histograms_of_a_tensor_and_of_its_clip(
    histogram_of, assert_same_histogram, first, second, limit
):
    counted = SplitHistogram(limit)
    counted.add(first)
    counted.add(second)
    values = np.concatenate([first, second])
    assert_same_histogram(counted.whole(), histogram_of(values))
    assert_same_histogram(counted.clipped(), histogram_of(np.clip(values, 0, np.float32(limit))))


def test_a_split_histogram_refuses_what_is_not_finite():
    with pytest.raises(NonFiniteError) as caught:
        SplitHistogram(6.0).add(np.array([1, 7, np.inf], np.float32))
    assert caught.value.index == 2
