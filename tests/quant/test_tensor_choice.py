import numpy as np
import pytest

from quant.qdq import qdq_model_from_amax, quantizable_tensors
from quant.tensor_choice import choose_by_tensor


@pytest.fixture
def net(residual_net, saved):
    return saved(residual_net)


@pytest.fixture
def batches(random):
    return [{"input": random(4, 3, 8, 8, seed=seed)} for seed in (1, 2)]


@pytest.fixture
def largest(net, batches, run_onnx):
    """Largest magnitude of each tensor in those batches."""
    tensors = quantizable_tensors(net.proto)
    inner = [tensor for tensor in tensors if tensor != "input"]
    found = [{**run_onnx(net.proto, also=inner, **batch), **batch} for batch in batches]
    return {tensor: float(max(np.abs(values[tensor]).max() for values in found)) for tensor in tensors}


def sqnr_db(net, amax, batches, run_onnx):
    """Of the outputs, with a model built for these scales."""
    built = qdq_model_from_amax(net.proto, amax)
    pairs = [(run_onnx(net.proto, **batch)[0], run_onnx(built, **batch)[0]) for batch in batches]
    signal = sum(np.square(a, dtype=np.float64).sum() for a, _ in pairs)
    return 10 * np.log10(signal / sum(np.square(a.astype(np.float64) - b).sum() for a, b in pairs))


def test_a_tensor_gets_the_algorithm_that_does_not_clip_it(net, batches, largest, run_onnx):
    """One candidate clips the input, the other one everything else."""
    first = {**largest, "input": largest["input"] * 0.3}
    second = {**{name: value * 0.05 for name, value in largest.items()}, "input": largest["input"]}
    choice = choose_by_tensor(net, {"second": second, "first": first}, batches)
    assert choice.start == "first"
    assert choice.algorithms == {**dict.fromkeys(largest, "first"), "input": "second"}
    assert choice.amax == largest
    assert choice.sqnr_db > choice.start_sqnr_db + 3
    assert choice.sqnr_db == pytest.approx(sqnr_db(net, choice.amax, batches, run_onnx), abs=0.01)


def test_it_begins_with_the_best_and_never_gets_worse(net, batches, largest, run_onnx):
    candidates = {f"{part}": {name: value * part for name, value in largest.items()} for part in (0.1, 0.5, 0.9, 1.0)}
    alone = {name: sqnr_db(net, amax, batches, run_onnx) for name, amax in candidates.items()}
    steps = []
    choice = choose_by_tensor(net, candidates, batches, steps.append)
    assert choice.start == max(alone, key=alone.get)
    assert choice.start_sqnr_db == pytest.approx(alone[choice.start], abs=0.01)
    assert choice.sqnr_db >= choice.start_sqnr_db
    assert sum(steps) == len(largest)


def test_tensors_that_no_build_quantizes_keep_the_starting_algorithm(net, batches, largest):
    candidates = {"a": {**largest, "sum": 3.0}, "b": {**{n: v / 50 for n, v in largest.items()}, "sum": 7.0}}
    choice = choose_by_tensor(net, candidates, batches)
    assert choice.start == "a"
    assert choice.amax["sum"] == 3.0
    assert "sum" not in choice.algorithms
