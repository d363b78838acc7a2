"""INT8 computed as the model states it, on every processor."""

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.onnxruntime.session import OnnxRuntimeSession
from tests.int8_oracle import amax_of, int8_of, run_exactly, sqnr_db

n = helper.make_node
INTEGER = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize", "QAttention")


@pytest.fixture
def nets(graph_of, random, residual_net, transformer):
    """Nets with their inputs, by name: weights near the ends of their grid, so that 16-bit sums would saturate."""
    full = np.sign(random(64, 8, seed=1)).astype(np.float32)
    gemm = graph_of([n("Gemm", ["x", "w"], ["y"])], {"x": ["N", 64]}, {"y": ["N", 8]}, {"w": full})
    conv = graph_of(
        [n("Conv", ["x", "w"], ["y"])],
        {"x": ["N", 8, 6, 6]},
        {"y": ["N", 8, 4, 4]},
        {"w": np.ones((8, 8, 3, 3), np.float32)},
    )
    between = graph_of([n("MatMul", ["x", "z"], ["y"])], {"x": ["N", 5, 64], "z": ["N", 64, 5]}, {"y": ["N", 5, 5]})
    return {
        "gemm": (gemm, {"x": np.ones((4, 64), np.float32)}),
        "conv": (conv, {"x": np.ones((4, 8, 6, 6), np.float32)}),
        "activations": (between, {"x": np.ones((2, 5, 64), np.float32), "z": np.ones((2, 64, 5), np.float32)}),
        "residual": (residual_net, {"input": random(4, 3, 8, 8)}),
        "transformer": (transformer, {"x": random(4, 16, 64)}),
    }


NETS = ("gemm", "conv", "activations", "residual", "transformer")


@pytest.mark.parametrize("net", NETS)
def test_exact_sessions_compute_on_floats_and_agree_with_the_model_as_it_is_written(nets, tmp_path, net):
    proto, inputs = nets[net]
    quantized = int8_of(proto, inputs)
    path = tmp_path / "optimized.onnx"
    found = OnnxRuntimeSession(quantized, exact=True, optimized_path=path).run(inputs)
    kernels = [node.op_type for node in onnx.load(path).graph.node]
    assert not [name for name in kernels if name.startswith(INTEGER)]
    name = proto.graph.output[0].name
    assert sqnr_db(found[0], run_exactly(quantized, inputs)[name]) > 45  # a rounding that falls the other way is a step


@pytest.mark.parametrize("net", NETS)
def test_an_int8_build_is_measured_exactly_and_timed_as_it_would_be_deployed(nets, saved, net):
    from calib.caches.cache import CalibrationCache, cache_from_amax
    from calib.calibrator import MinMaxCalibrator

    proto, inputs = nets[net]
    amax = amax_of(proto, inputs)
    cache = cache_from_amax(amax, MinMaxCalibrator().algorithm)
    assert isinstance(cache, CalibrationCache)
    build = OnnxRuntimeBackend().build(saved(proto), "int8", cache)
    expected = run_exactly(int8_of(proto, inputs), inputs)[proto.graph.output[0].name]
    assert sqnr_db(build.runnable.run(inputs)[0], expected) > 45
    assert build.deployed is not None
    assert build.deployed is not build.runnable


def test_values_at_the_end_of_the_grid_add_up_exactly(nets):
    """64 products of 1 by 1 are 64; with 16-bit sums, two of 255 by 127 would already be cut."""
    for net, expected in (("activations", 64.0), ("conv", 72.0)):
        proto, inputs = nets[net]
        (found,) = OnnxRuntimeSession(int8_of(proto, inputs), exact=True).run(inputs)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
