"""Q/DQ models in the numbers of ONNX Runtime's own kernels."""

import numpy as np
import pytest
from onnx import helper

from quant.onnx_graph.light_model import whole_model
from quant.qdq.number_form import FOR_TENSORRT, for_onnxruntime, never_negative
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import light_qdq_model, qdq_model_from_amax
from tests.qdq_walk import Walk

n = helper.make_node


@pytest.fixture
def net(graph_of, random):
    """A convolution with a bias, a Relu, and a second convolution of signed data."""
    nodes = [
        n("Conv", ["x", "w", "b"], ["c"], name="first"),
        n("Relu", ["c"], ["r"], name="relu"),
        n("Conv", ["r", "v", "d"], ["y"], name="second"),
    ]
    constants = {"w": random(4, 3, 3, 3), "b": random(4), "v": random(4, 4, 1, 1, seed=1), "d": random(4, seed=2)}
    return graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": None}, constants)


AMAX = {"x": 3.0, "r": 24.0}


def made(net, form):
    return whole_model(light_qdq_model(net, AMAX, form=form))


def test_data_is_unsigned_around_128_or_from_zero_where_it_is_never_negative(net):
    walk = Walk(made(net, for_onnxruntime(reduce_range=False)))
    pairs = {node.input[0]: node for node in walk.nodes if node.op_type == "QuantizeLinear"}
    scale, zero = {}, {}
    for name, node in pairs.items():
        scale[name], zero[name] = walk.constants[node.input[1]], walk.constants[node.input[2]]
        assert zero[name].dtype == np.uint8
    assert (int(zero["x"]), int(zero["r"])) == (128, 0)
    assert scale["x"] == pytest.approx(3 / 127)
    assert scale["r"] == pytest.approx(24 / 255)  # all 256 values for what is there


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 63)])
def test_biases_are_whole_numbers_of_the_data_s_scale_times_the_weights(net, reduce_range, largest):
    walk = Walk(made(net, for_onnxruntime(reduce_range=reduce_range)))
    for name, bias, step in (("first", "b", 3 / 127), ("second", "d", 24 / 255)):
        (node,) = (each for each in walk.nodes if each.name == name)
        whole, scale = (walk.constants[each] for each in walk.producer[node.input[2]].input)
        weights, weight_scale, _ = (walk.constants[each] for each in walk.producer[node.input[1]].input)
        assert whole.dtype == np.int32
        np.testing.assert_allclose(scale, weight_scale * step, rtol=1e-6)
        original = next(tensor for tensor in net.graph.initializer if tensor.name == bias)
        np.testing.assert_allclose(whole * scale, np.frombuffer(original.raw_data, np.float32), atol=scale.max())
        assert np.abs(weights).max() == largest


def test_products_of_reduced_weights_fit_into_16_bits(net):
    """Two neighbouring products are added in 16 bits on processors without VNNI: 255 * 63 * 2 is the most."""
    walk = Walk(made(net, for_onnxruntime(reduce_range=True)))
    largest = max(np.abs(value.astype(int)).max() for value in walk.constants.values() if value.dtype == np.int8)
    assert 255 * largest * 2 <= np.iinfo(np.int16).max < 255 * 127 * 2


@pytest.mark.parametrize("form", [for_onnxruntime(reduce_range=True), for_onnxruntime(reduce_range=False)])
def test_the_function_stays_that_of_the_model(net, run_onnx, random, form):
    x = np.clip(random(8, 3, 8, 8), -3, 3)
    (expected,) = run_onnx(net, x=x)
    (found,) = run_onnx(made(net, form), x=x)
    assert 10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()) > 30


def test_tensorrt_s_form_is_the_default(net):
    assert made(net, FOR_TENSORRT) == qdq_model_from_amax(net, AMAX)


def test_a_bias_that_is_no_constant_or_whose_data_is_float_stays(graph_of, random):
    nodes = [n("Relu", ["given"], ["bias"]), n("Conv", ["x", "w", "bias"], ["y"], name="conv")]
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4], "given": [4]}, {"y": None}, {"w": random(4, 3, 1, 1)})
    walk = Walk(whole_model(light_qdq_model(proto, {"x": 1.0}, form=for_onnxruntime(reduce_range=False))))
    (conv,) = (node for node in walk.nodes if node.op_type == "Conv")
    assert conv.input[2] == "bias"


def test_what_is_never_negative_is_known_by_the_graph(graph_of):
    nodes = [
        n("Relu", ["x"], ["relu"]),
        n("Clip", ["x", "zero", "six"], ["clipped"]),
        n("Clip", ["x", "minus", "six"], ["signed"]),
        n("Sigmoid", ["x"], ["gate"]),
        n("Mul", ["relu", "gate"], ["product"]),
        n("Mul", ["x", "gate"], ["silu"]),
        n("Add", ["relu", "signed"], ["sum"]),
        n("MaxPool", ["relu"], ["pooled"], kernel_shape=[1, 1]),
        n("Concat", ["relu", "clipped"], ["joined"], axis=1),
        n("Concat", ["relu", "silu"], ["mixed"], axis=1),
        n("Resize", ["relu", "", "scales"], ["cubic"], mode="cubic"),
        n("Resize", ["relu", "", "scales"], ["nearest"], mode="nearest"),
    ]
    constants = {"zero": np.float32(0), "six": np.float32(6), "minus": np.float32(-1)}
    constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    outputs = dict.fromkeys(("product", "silu", "sum", "pooled", "joined", "mixed", "cubic", "nearest"))
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, outputs, constants)
    expected = {"relu", "clipped", "gate", "product", "pooled", "joined", "nearest"}
    assert never_negative(prepared_for_quantization(proto)) == expected
