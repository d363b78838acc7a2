"""Which of processor and GPU a pass takes; both count alike, so a second processor's collector stands for the GPU."""

import threading

import numpy as np
import pytest
from onnx import helper

from calib import MinMaxCalibrator, NonFiniteError
from quant import collect_statistics
from quant.collectors import automatic_collector
from quant.collectors.automatic_collector import AutomaticCollector, seconds_of_engine
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.errors import BuildError
from quant.tensorrt.building import build_job


class Gpu:
    """Counts the passes; with an error, it fails before it has counted anything, or in between."""

    where = "the GPU"
    seconds = {"counting": 1.0}  # noqa: RUF012 - never changed

    def __init__(self, error=None, drawn=0):
        self.passes, self.error, self.drawn = 0, error, drawn

    def collect(self, model, calibrator, advance):
        self.passes += 1
        batches = iter(calibrator)
        for _ in range(self.drawn):
            next(batches)
        if self.error is not None:
            raise self.error
        collect_statistics(model, calibrator, advance)


class Stream:
    """Batches that are given out once; says how many there are, and whether they were closed."""

    def __init__(self, batches):
        self.batches, self.closed = batches, False

    def __length_hint__(self):
        return len(self.batches)

    def __iter__(self):
        try:
            yield from self.batches
        finally:
            self.closed = True


@pytest.fixture
def model(saved, graph_of):
    nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Sub", ["a", "one"], ["y"])]
    return saved(graph_of(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, {"one": np.float32(1)}))


@pytest.fixture
def collect(model, batch_of, random, monkeypatch):
    x = random(12, 8)

    def run(gpu, engine, batches=None):
        monkeypatch.setattr(automatic_collector, "seconds_of_engine", lambda model: engine)
        given = Stream(batches or [batch_of(first=i, x=x[i : i + 4]) for i in range(0, 12, 4)])
        calibrator, notes, advanced = MinMaxCalibrator(given), [], []
        collector = AutomaticCollector(OnnxRuntimeCollector(), gpu, notes.append)
        try:
            collector.collect(model, calibrator, advanced.append)
        finally:
            assert given.closed
        expected = MinMaxCalibrator([batch_of(x=x)])
        collect_statistics(model, expected)
        digests = [
            {name: h.digest() for name, h in each.statistics.histograms.items()} for each in (calibrator, expected)
        ]
        assert digests[0] == digests[1]
        assert calibrator.statistics.images == sum(advanced) == 12
        return notes, collector.where

    return run


def test_an_engine_that_takes_longer_than_the_pass_leaves_it_to_the_cpu(collect):
    gpu = Gpu()
    notes, where = collect(gpu, engine=100.0)
    assert (gpu.passes, where) == (0, "")
    assert notes[0].startswith("collector: the CPU; expected from the first batch: ")
    assert notes[0].endswith("100.0 s on the GPU, of which 100.0 s for its engine")


def test_the_gpu_begins_again_with_the_first_batch(collect):
    gpu = Gpu()
    notes, where = collect(gpu, engine=-1.0)  # faster than anything
    assert (gpu.passes, where) == (1, "the GPU")
    assert notes[0].startswith("collector: the GPU; ")


def test_a_gpu_that_fails_at_its_start_leaves_all_images_to_the_cpu(collect):
    notes, where = collect(Gpu(BuildError("no engine"), drawn=1), engine=-1.0)
    assert where == ""
    assert notes[-1] == "collector: the CPU instead of the GPU: no engine"


def test_a_gpu_that_fails_in_between_stops_the_pass(collect):
    with pytest.raises(BuildError, match="no engine"):
        collect(Gpu(BuildError("no engine"), drawn=2), engine=-1.0)


def test_an_error_of_the_images_is_not_taken_for_one_of_the_gpu(collect, batch_of):
    bad = np.full((4, 8), np.nan, np.float32)
    with pytest.raises(NonFiniteError, match=r"tensor 'x', image '0\.png'"):
        collect(Gpu(), 100.0, [batch_of(x=bad)])


def test_convolutions_make_engines_slow_to_build(saved, residual_net, model):
    assert 2 < seconds_of_engine(model) < seconds_of_engine(saved(residual_net, "net.onnx"))


def test_the_first_engine_of_a_process_takes_longer(model, monkeypatch):
    """Measured: 16.7 s for the first of mobilenetv2, 8 to 9 s for later ones."""
    monkeypatch.setattr(build_job, "_begun", threading.Event())
    first = seconds_of_engine(model)
    build_job._begun.set()
    assert 7 < first - seconds_of_engine(model) < 9
