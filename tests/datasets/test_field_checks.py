import math

import pytest

from datasets import DatasetError
from datasets.field_checks import check_option, checked_number, checked_per_channel, checked_size, is_int


@pytest.mark.parametrize(
    ("value", "expected"), [(3, True), (-1, True), (0, True), (True, False), (False, False), (3.0, False), ("3", False)]
)
def test_whole_numbers_are_ints_and_no_truths(value, expected):
    assert is_int(value) is expected


def test_an_option_is_one_of_those_listed():
    check_option("resize", "crop", ("crop", "none"))
    with pytest.raises(DatasetError, match="resize: expected one of crop, none; found 'Crop'"):
        check_option("resize", "Crop", ("crop", "none"))


@pytest.mark.parametrize(("value", "expected"), [(2, 2.0), (0.5, 0.5), (-1e30, -1e30)])
def test_a_number_becomes_a_float(value, expected):
    found = checked_number("scale", value)
    assert found == expected
    assert isinstance(found, float)


@pytest.mark.parametrize("value", [True, math.nan, math.inf, -math.inf, "1", None, [1.0]])
def test_what_is_no_finite_number_is_refused_with_its_field(value):
    with pytest.raises(DatasetError, match=r"^scale: expected a finite number, found "):
        checked_number("scale", value)


@pytest.mark.parametrize("value", [[4, 5], (4, 5)])
def test_a_size_becomes_height_and_width(value):
    assert checked_size(value) == (4, 5)


@pytest.mark.parametrize("value", [[4], [4, 5, 3], [0, 5], [4, -5], [4.0, 5], [True, 5], "45", 4, None])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(DatasetError, match=r"^size: expected \[height, width\] in whole pixels, found "):
        checked_size(value)


@pytest.mark.parametrize(
    ("value", "channels", "expected"),
    [([1], 3, (1.0,)), ((1, 2.5, 3), 3, (1.0, 2.5, 3.0)), ([7], 1, (7.0,)), ([1, 2, 3, 4], 4, (1.0, 2.0, 3.0, 4.0))],
)
def test_one_number_for_all_channels_or_one_a_channel(value, channels, expected):
    assert checked_per_channel("mean", value, channels) == expected


@pytest.mark.parametrize(
    ("value", "channels", "expected"),
    [
        ([1, 2], 3, "mean: expected a list of 1 or 3 numbers, found"),
        ([], 3, "mean: expected a list of 1 or 3 numbers, found"),
        ([1, 2, 3], 1, "mean: expected a list of 1 number, found"),
        (0.5, 3, "mean: expected a list of 1 or 3 numbers, found 0.5"),
        ("abc", 3, "mean: expected a list of 1 or 3 numbers, found 'abc'"),
        ([1, math.nan, 3], 3, "mean: expected a finite number, found nan"),
    ],
)
def test_another_count_and_what_is_no_number_are_refused(value, channels, expected):
    with pytest.raises(DatasetError, match=f"^{expected}"):
        checked_per_channel("mean", value, channels)
