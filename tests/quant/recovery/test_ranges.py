"""Scales by what they do to the outputs."""

import numpy as np
import pytest
from onnx import helper

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.calibrator import MinMaxCalibrator
from calib.names import ALGORITHMS
from quant.collectors.onnxruntime_collector import collect_statistics
from quant.evaluation.accuracy import reader_from_batch
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.recovery.judging import Judge
from quant.recovery.ranges import AVERAGE, candidates_of, changed_scales
from quant.search.per_tensor import PER_TENSOR
from tests.int8_oracle import run_exactly

n = helper.make_node


@pytest.fixture
def judged_and_counted(saved, batch_of):
    """A judge by batches of inputs `x`, and the statistics of all of them."""

    def make(proto, x, size=8):
        inputs = [{"x": x[i : i + size]} for i in range(0, len(x), size)]
        session = OnnxRuntimeSession(proto)

        class Batch:
            names, labels = [""] * size, None

        Batch.inputs = inputs[0]
        reader = reader_from_batch(OnnxModel("net.onnx", proto, "").outputs, session, Batch)
        calibrator = MinMaxCalibrator([batch_of(x=x)])
        collect_statistics(saved(proto), calibrator)
        return Judge(session, inputs, reader), calibrator.statistics

    return make


def amax_by(statistics, name):
    return amax_from_statistics(statistics, algorithm_from_name(name))


def noise_of(proto, amax, x):
    """By the oracle: squared error over squared signal of the output."""
    from quant.qdq.writer import qdq_model_from_amax

    expected = run_exactly(proto, {"x": x})["y"]
    found = run_exactly(qdq_model_from_amax(proto, amax), {"x": x})["y"]
    return float(np.square(found - expected).sum() / np.square(expected).sum())


def test_changes_of_single_tensors_leave_no_more_noise_than_the_best_algorithm(
    judged_and_counted, loud_bottlenecks, random
):
    x, others = random(64, 3, 8, 8), random(64, 3, 8, 8, seed=5)
    judge, statistics = judged_and_counted(loud_bottlenecks, x)
    single = {name: amax_by(statistics, name) for name in ALGORITHMS}
    candidates = candidates_of(loud_bottlenecks, statistics, "minmax", single["minmax"], judge.batches)
    assert list(candidates) == ["minmax", *(name for name in ALGORITHMS if name != "minmax"), AVERAGE]
    noise = {name: noise_of(loud_bottlenecks, amax, others) for name, amax in candidates.items()}
    best = min(noise, key=noise.get)
    found = changed_scales(loud_bottlenecks, candidates, best, judge.halves())
    assert noise_of(loud_bottlenecks, found.amax, others) <= 1.02 * noise[best]
    for tensor, amax in found.amax.items():
        assert amax == candidates[found.algorithms.get(tensor, best)][tensor]
    assert best not in found.algorithms.values()


def test_a_tensor_that_another_algorithm_serves_gets_it_and_the_others_stay(judged_and_counted, graph_of, random):
    """Values of one input are rare and huge and lost after a Clip: they need no range; those of the other count."""
    nodes = [
        n("Split", ["x", "parts"], ["a", "b"], axis=1), n("MatMul", ["a", "wa"], ["p"], name="rare"),
        n("Clip", ["p", "low", "high"], ["q"]), n("MatMul", ["b", "wb"], ["r"], name="even"),
        n("Add", ["q", "r"], ["y"]),
    ]  # fmt: skip
    constants = {
        "parts": np.array([16, 16]), "wa": random(16, 8, seed=1) / 4, "wb": random(16, 8, seed=2) / 4,
        "low": np.float32(-3), "high": np.float32(3),
    }  # fmt: skip
    proto = graph_of(nodes, {"x": ["N", 32]}, {"y": ["N", 8]}, constants)
    x = random(256, 32)
    loud = np.random.default_rng(3).uniform(size=x.shape) < 0.01
    x[:, :16][loud[:, :16]] *= 300  # what the Clip takes away
    x[:, 16:][loud[:, 16:]] *= 20  # what is seen
    judge, statistics = judged_and_counted(proto, x, 32)
    single = {name: amax_by(statistics, name) for name in ALGORITHMS}
    candidates = candidates_of(proto, statistics, "minmax", single["minmax"], judge.batches)
    found = changed_scales(proto, candidates, "minmax", judge.halves())
    assert set(found.algorithms) == {"a"}
    assert found.amax["a"] < single["minmax"]["a"] / 3
    assert noise_of(proto, found.amax, x) < min(noise_of(proto, amax, x) for amax in single.values()) / 2


def test_the_average_is_that_of_the_largest_magnitude_of_eight_images_each(judged_and_counted, graph_of, random):
    proto = graph_of([n("MatMul", ["x", "w"], ["y"])], {"x": ["N", 16]}, {"y": ["N", 8]}, {"w": random(16, 8, seed=1)})
    x = random(64, 16)
    x[5] *= 1000
    judge, statistics = judged_and_counted(proto, x, 16)
    found = candidates_of(proto, statistics, "minmax", amax_by(statistics, "minmax"), judge.batches)[AVERAGE]
    assert found["x"] == pytest.approx(np.mean([np.abs(x[i : i + 8]).max() for i in range(0, 64, 8)]), rel=1e-6)


def test_a_mixture_is_called_so(loud_bottlenecks):
    from calib.algorithms import MinMax
    from quant.recovery.candidate import Candidate

    plain = Candidate(loud_bottlenecks, loud_bottlenecks, None, MinMax(), {})
    mixed = Candidate(loud_bottlenecks, loud_bottlenecks, None, MinMax(), {}, changed={"a": AVERAGE})
    assert (plain.algo, mixed.algo) == ("minmax", PER_TENSOR)
