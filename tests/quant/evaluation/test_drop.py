import numpy as np
import pytest

from quant.evaluation.drop import agreement, paired_drop
from quant.evaluation.latency import Latency, measure_latency


def flags(both, lost, won, neither):
    """Baseline and other build with that many images in each cell."""
    baseline = np.array([True] * (both + lost) + [False] * (won + neither))
    other = np.array([True] * both + [False] * lost + [True] * won + [False] * neither)
    return baseline, other


def test_the_drop_by_hand():
    # 100 images, 5 lost, 2 won. p1 = 6/102, p2 = 3/102: 3/102 +- 1.95996 * sqrt((9/102 - (3/102)^2) / 102).
    drop = paired_drop(*flags(80, 5, 2, 13))
    assert (drop.points, drop.lost, drop.won) == (pytest.approx(3.0), 5, 2)
    assert drop.low == pytest.approx(2.941176 - 5.736269, abs=2e-3)
    assert drop.high == pytest.approx(2.941176 + 5.736269, abs=2e-3)


def test_no_flips_still_leave_doubt():
    # p1 = p2 = 1/102: +- 1.95996 * sqrt((2/102) / 102) = 2.7174 points.
    drop = paired_drop(*flags(90, 0, 0, 10))
    assert drop.points == 0
    assert (drop.low, drop.high) == (pytest.approx(-2.7174, abs=1e-3), pytest.approx(2.7174, abs=1e-3))


def test_a_better_build_has_a_negative_drop_and_the_mirrored_interval():
    worse, better = paired_drop(*flags(50, 8, 3, 20)), paired_drop(*flags(50, 8, 3, 20)[::-1])
    assert better.points == -worse.points
    assert (better.low, better.high) == (pytest.approx(-worse.high), pytest.approx(-worse.low))


@pytest.mark.parametrize("images", [1, 2, 5])
def test_few_images_stay_within_100_points(images):
    drop = paired_drop(*flags(0, images, 0, 0))
    assert drop.points == 100
    assert -100 <= drop.low < drop.high <= 100


@pytest.mark.parametrize(
    ("images", "lost", "won"), [(1000, 0.03, 0.02), (300, 0.05, 0.01), (2000, 0.10, 0.10), (10_000, 0.012, 0.010)]
)
def test_the_interval_covers_the_true_drop_19_times_of_20(images, lost, won):
    generator = np.random.default_rng(2012)
    covered = 0
    for _ in range(1000):
        kind = generator.random(images)
        baseline = (kind < lost) | (kind > 0.5)  # below `lost`: only the baseline is right; above 0.5: both are
        other = ((kind >= lost) & (kind < lost + won)) | (kind > 0.5)
        drop = paired_drop(baseline, other)
        covered += drop.low <= 100 * (lost - won) <= drop.high
    assert 930 <= covered <= 970


def test_agreement_is_the_share_of_equal_predictions():
    assert agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 75.0


class Clock:
    """Time that passes only while builds run."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def __call__(self):
        return self.now

    def build(self, name, seconds):
        durations = iter(seconds)

        class Build:
            def run(build, inputs):
                self.order.append(name)
                self.now += next(durations)

        return Build()


def forever(*seconds):
    while True:
        yield from seconds


def test_latency_is_the_median_without_the_first_run():
    clock = Clock()
    builds = {"slow": clock.build("slow", iter([100, 1, 3, 2, 50, 2, 7, 7]))}
    latency = measure_latency(builds, {"x": np.zeros((4, 1))}, clock)["slow"]
    assert (latency.milliseconds, latency.batch, latency.runs) == (2000.0, 4, 5)  # of 1, 3, 2, 50, 2 seconds
    assert latency.images_per_second == pytest.approx(2.0)


def test_builds_take_turns_and_each_gets_the_time_it_needs(monkeypatch):
    monkeypatch.setattr("quant.evaluation.latency._LATENCY_SECONDS", 2.0)  # as it is outside the tests
    clock = Clock()
    builds = {
        "a": clock.build("a", forever(1.0)),
        "b": clock.build("b", forever(0.1)),
        "c": clock.build("c", forever(0.001)),
    }
    results = measure_latency(builds, {"x": np.zeros((1, 1))}, clock)
    # 5 at least; two seconds; 50 at most.
    assert results["a"].runs == 5
    assert results["b"].runs in (20, 21)  # 20 times 0.1 may sum to a hair less than 2
    assert results["c"].runs == 50
    assert clock.order[:18] == ["a", "b", "c"] * 6
    assert [results[name].milliseconds for name in "abc"] == pytest.approx([1000, 100, 1])


def test_builds_that_time_themselves_are_asked():
    class Engine:
        def __init__(self, milliseconds):
            self.milliseconds = milliseconds

        def run(self, inputs):
            raise AssertionError("the host's clock must not be used")

        def latency(self, inputs):
            return Latency(self.milliseconds, len(inputs["x"]), 200, self.milliseconds + 0.5)

    found = measure_latency({"fp32": Engine(2.0), "int8": Engine(1.0)}, {"x": np.zeros((8, 1))})
    assert found["int8"] == Latency(milliseconds=1.0, batch=8, runs=200, p99=1.5)
    assert found["fp32"].images_per_second == pytest.approx(4000)
