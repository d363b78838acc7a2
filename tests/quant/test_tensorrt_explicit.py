import pytest

from quant.tensorrt_explicit import fastest


@pytest.mark.parametrize(
    ("milliseconds", "taken"),
    [
        ([1.0], 0),
        ([1.0, 0.96], 0),  # within what two builds of the same differ by: the one with more INT8
        ([1.0, 0.9], 1),
        ([0.5, 0.9], 0),
        ([2.0, 1.04, 1.0], 1),
    ],
)
def test_of_engines_about_as_fast_the_one_with_more_int8_is_taken(milliseconds, taken):
    assert fastest(milliseconds) == taken
