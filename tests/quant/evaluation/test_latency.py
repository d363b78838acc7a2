import numpy as np
import pytest

from quant.evaluation.latency import Latency, measure_latency


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


@pytest.fixture
def unshortened(monkeypatch):
    """As it is outside the tests."""
    monkeypatch.setattr("quant.evaluation.latency._LATENCY_SECONDS", 2.0)
    monkeypatch.setattr("quant.evaluation.latency._LATENCY_RUNS", (5, 50))


@pytest.mark.usefixtures("unshortened")
def test_latency_is_the_median_without_the_first_run():
    clock = Clock()
    builds = {"slow": clock.build("slow", iter([100, 1, 3, 2, 50, 2, 7, 7]))}
    latency = measure_latency(builds, {"x": np.zeros((4, 1))}, clock)["slow"]
    assert (latency.milliseconds, latency.batch, latency.runs) == (2000.0, 4, 5)  # of 1, 3, 2, 50, 2 seconds
    assert latency.images_per_second == pytest.approx(2.0)


@pytest.mark.usefixtures("unshortened")
def test_builds_take_turns_and_each_gets_the_time_it_needs():
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
