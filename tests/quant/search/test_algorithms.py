"""Which algorithm serves the outputs better: a layer whose rare large values matter, or whose common small ones do."""

import numpy as np
import pytest
from onnx import helper

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.calibrator import MinMaxCalibrator
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.evaluation.accuracy import reader_from_batch
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.search.algorithms import better_algorithm


@pytest.fixture
def model(saved, graph_of):
    """y = x in each of four places, by a product that INT8 quantizes."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    return saved(graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": np.eye(4, dtype=np.float32)}))


@pytest.fixture
def found(model, batch_of):
    """The better algorithm for inputs, with the amax of the one in use."""

    def look(values, now):
        batch = batch_of(x=np.asarray(values, np.float32))
        calibrator = MinMaxCalibrator([batch])
        OnnxRuntimeCollector().collect(model, calibrator)
        statistics = calibrator.statistics
        amax = amax_from_statistics(statistics, algorithm_from_name(now))
        reader = reader_from_batch(model.outputs, OnnxRuntimeSession(model.proto), batch)
        return better_algorithm(model, statistics, now, amax, batch, reader), amax

    return look


def spiked():
    """Small values with a spike for the hundredth part of them, which holds nearly all of the energy."""
    values = np.random.default_rng(0).normal(size=(2500, 4))
    values[::100] *= 300
    return values


def sqnr_of(values, amax):
    """SQNR of values on the INT8 grid of an amax, dB, by NumPy."""
    step = amax / 127
    rounded = np.clip(np.round(values / step), -128, 127) * step
    return 10 * np.log10(np.square(values).sum() / np.square(values - rounded).sum())


def test_where_clipping_costs_the_outputs_another_algorithm_is_named_with_both_figures(found):
    values = spiked().astype(np.float32)
    better, amax = found(values, "entropy")
    assert better.now == "entropy"
    assert better.algo != "entropy"
    assert better.now_db == pytest.approx(sqnr_of(values, amax["x"]), abs=0.5)
    assert better.now_db + 3 < better.sqnr_db <= sqnr_of(values, np.abs(values).max()) + 1
    assert better.images == 2500
    assert better.text == (
        f"--algo {better.algo} serves the outputs better: their worst is at {better.sqnr_db:.1f} dB with it, at "
        f"{better.now_db:.1f} dB with entropy (on 2500 images, from the same statistics)"
    )


@pytest.mark.parametrize("now", ["entropy", "minmax", "mse", "percentile"])
def test_where_all_algorithms_are_about_as_good_none_is_named(found, now):
    values = np.random.default_rng(1).uniform(-1, 1, (2500, 4))
    assert found(values, now)[0] is None


def test_the_best_algorithm_has_none_above_it(found):
    better, _ = found(spiked(), "entropy")
    assert found(spiked(), better.algo)[0] is None


def test_a_model_without_an_int8_form_has_no_better_algorithm(saved, graph_of, batch_of):
    nodes = [helper.make_node("Abs", ["x"], ["y"])]
    model = saved(graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}))
    batch = batch_of(x=np.ones((8, 4), np.float32))
    calibrator = MinMaxCalibrator([batch])
    OnnxRuntimeCollector().collect(model, calibrator)
    reader = reader_from_batch(model.outputs, OnnxRuntimeSession(model.proto), batch)
    assert better_algorithm(model, calibrator.statistics, "minmax", {"x": 1.0, "y": 1.0}, batch, reader) is None
