"""Where the ticks of a chart stand, worked out by hand."""

import pytest

from quant.report.scales import Axis, Scale, round_ticks, scale_around


def labels(scale, most, form=None):
    return [
        label.replace("\N{MINUS SIGN}", "-") for _, label in round_ticks(scale, lambda ticks: len(ticks) <= most, form)
    ]


@pytest.mark.parametrize(
    ("scale", "most", "expected"),
    [
        (Scale(0, 102), 6, ["0", "20", "40", "60", "80", "100"]),
        (Scale(0, 102), 9, ["0", "20", "40", "60", "80", "100"]),
        (Scale(-1.5, 1.2), 6, ["-1.5", "-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (Scale(1.2, -1.5), 6, ["-1.5", "-1.0", "-0.5", "0.0", "0.5", "1.0"]),  # the other way round
        (Scale(0, 1), 5, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (Scale(0, 3.6e-5), 4, ["0", "1e-05", "2e-05", "3e-05"]),
        (Scale(0, 2_400_000), 3, ["0", "1e+06", "2e+06"]),
        (Scale(0.5, 30_000, log=True), 9, ["1", "10", "100", "1000", "10000"]),
        (Scale(0.5, 30_000, log=True), 3, ["1", "100", "10000"]),
        (Scale(0.015, 0.3, log=True), 9, ["0.1", "0.02", "0.05", "0.2"]),
        (Scale(0.021, 0.029, log=True), 5, ["0.022", "0.024", "0.026", "0.028"]),
    ],
)  # fmt: skip
def test_ticks_are_round_and_as_many_as_fit(scale, most, expected):
    assert sorted(labels(scale, most)) == sorted(expected)


def test_what_a_tick_says_can_be_chosen():
    assert labels(Scale(0, 2), 3, lambda value: f"<{value:g}>") == ["<0>", "<1>", "<2>"]


def test_fractions_along_both_kinds_of_scale():
    assert [Scale(2, 4).fraction(v) for v in (2, 2.5, 4)] == [0, 0.25, 1]
    assert [Scale(4, 2).fraction(v) for v in (4, 2.5, 2)] == [0, 0.75, 1]
    assert [Scale(1, 10_000, log=True).fraction(v) for v in (1, 10, 10_000)] == pytest.approx([0, 0.25, 1])


def test_room_beside_the_values_but_not_under_bars():
    assert scale_around([1, 3], 0.1) == Scale(pytest.approx(0.8), pytest.approx(3.2))
    assert scale_around([0, 2], 0.1, from_zero=True) == Scale(0, pytest.approx(2.2))
    assert scale_around([-2, 0], 0.1, from_zero=True) == Scale(pytest.approx(-2.2), 0)
    assert scale_around([0, 0], 0.1, from_zero=True) == Scale(-0.5, 0.5)  # nothing to tell: any room
    assert scale_around([4, 4], 0.1) == Scale(2, 6)
    assert scale_around([1, 100], 0.5, log=True) == Scale(pytest.approx(0.1), pytest.approx(1000), log=True)


def test_labels_of_ticks_do_not_touch():
    """Ten figures of eleven units' height need over six units each: at most four such labels in 300 units."""
    axis = Axis(limits=(0, 9_999_999_999), form=lambda value: f"{value:010.0f}")
    assert 2 <= len(axis.placed(300, across=True)) <= 4
    assert len(axis.placed(300, across=False)) > 4


def test_a_value_below_zero_has_the_sign_that_is_as_wide_as_a_plus():
    assert [label for _, label in round_ticks(Scale(-1, 0), lambda ticks: len(ticks) <= 2)] == ["\N{MINUS SIGN}1", "0"]
