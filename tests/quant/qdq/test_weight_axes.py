"""Scales of weights in the graph: along the axis of the output channels, and large enough for the bias."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from quant.qdq.float_products import products_left_float
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import quantizable_tensors
from tests.int8_oracle import int8_db, int8_of, run_exactly, sqnr_db

n = helper.make_node
MAGNITUDES = np.logspace(-2.5, 0, 8).astype(np.float32)


def weight_pairs(proto):
    """Scales and axes of dequantized weights, by the name of the weights."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {
        node.input[0].removesuffix("_quantized"): (
            values[node.input[1]],
            next((a.i for a in node.attribute if a.name == "axis"), None),
        )
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in values
    }


def by_channel_db(found, expected, axis=1):
    """The lowest SQNR of a channel: the sum over all would hide the small ones."""
    pairs = zip(np.moveaxis(found, axis, 0), np.moveaxis(expected, axis, 0), strict=True)
    return min(sqnr_db(mine, theirs) for mine, theirs in pairs)


def deconvolution(graph_of, weights, groups, bias=None):
    rank = weights.ndim - 2
    inputs = ["x", "w"] if bias is None else ["x", "w", "b"]
    nodes = [n("ConvTranspose", inputs, ["y"], group=groups, strides=[2] * rank)]
    constants = {"w": weights} | ({} if bias is None else {"b": bias})
    return graph_of(nodes, {"x": ["N", len(weights), *[6] * rank]}, {"y": [None] * (rank + 2)}, constants)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_a_depthwise_transposed_convolution_has_a_scale_for_each_channel(graph_of, random, rank, biased):
    weights = random(8, 1, *[3] * rank, seed=1) * MAGNITUDES.reshape(-1, *[1] * (rank + 1))
    proto = deconvolution(graph_of, weights, 8, random(8, seed=2) if biased else None)
    inputs = {"x": random(4, 8, *[6] * rank)}
    quantized = int8_of(proto, inputs)
    scales, axis = weight_pairs(quantized)["w"]
    assert (scales.shape, axis) == ((8,), 0)
    bias = random(8, seed=2).reshape(1, 8, *[1] * rank) if biased else 0
    found, expected = (run_exactly(model, inputs)["y"] - bias for model in (quantized, proto))
    assert by_channel_db(found, expected) > 30


@pytest.mark.parametrize("shape", [(8, 2, 3, 3), (8, 1, 3, 3), (4, 3, 3)])
def test_a_transposed_convolution_in_groups_of_several_channels_stays_float_and_is_named(graph_of, random, shape):
    """Channels of the output lie along no axis of its weights: two groups whose magnitudes differ."""
    weights = random(*shape, seed=1)
    weights[: len(weights) // 2] *= 0.004
    proto = deconvolution(graph_of, weights, 2)
    proto.graph.node.append(n("Relu", ["y"], ["r"]))
    proto.graph.node.append(n("GlobalAveragePool", ["r"], ["p"]))
    proto.graph.node.append(n("Flatten", ["p"], ["f"]))
    proto.graph.node.append(n("MatMul", ["f", "v"], ["z"]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", 1, ["N", 3]))
    proto.graph.initializer.append(numpy_helper.from_array(random(2 * shape[1], 3, seed=3), "v"))
    assert quantizable_tensors(proto) == ["f"]
    left = products_left_float(prepared_for_quantization(proto)).text
    assert left == "1 of 2 products stay float: 1 ConvTranspose in groups of several channels"
    assert int8_db(proto, {"x": random(4, *[shape[0], *[6] * (len(shape) - 2)])}) > 28


def test_an_ordinary_transposed_convolution_has_its_scales_along_axis_1(graph_of, random):
    weights = random(4, 8, 2, 2, seed=1) * MAGNITUDES.reshape(1, 8, 1, 1)
    proto = deconvolution(graph_of, weights, 1)
    inputs = {"x": random(4, 4, 6, 6)}
    quantized = int8_of(proto, inputs)
    scales, axis = weight_pairs(quantized)["w"]
    assert (scales.shape, axis) == ((8,), 1)
    assert by_channel_db(run_exactly(quantized, inputs)["y"], run_exactly(proto, inputs)["y"]) > 30


@pytest.mark.parametrize(
    ("left", "data", "weights", "axis"),
    [
        (False, (2, 3, 5, 6), (3, 6, 4), None),  # a matrix for each of three heads
        (False, (2, 3, 5, 6), (2, 3, 6, 4), None),
        (True, (2, 3, 6, 5), (3, 4, 6), None),
        (False, (2, 5, 6), (1, 6, 4), 2),  # a batch of one is one matrix
        (True, (2, 6, 5), (1, 4, 6), 1),
        (False, (7, 6), (6, 4), 1),
        (True, (6, 7), (4, 6), 0),
    ],
)
def test_a_batch_of_matrices_has_one_scale_and_a_matrix_one_for_each_output(
    graph_of, random, left, data, weights, axis
):
    node = n("MatMul", ["w", "x"] if left else ["x", "w"], ["y"])
    rank = max(len(data), len(weights))
    proto = graph_of([node], {"x": list(data)}, {"y": [None] * rank}, {"w": random(*weights)})
    inputs = {"x": random(*data, seed=1)}
    quantized = int8_of(proto, inputs)
    scales, found = weight_pairs(quantized)["w"]
    assert (found, scales.shape) == (axis, () if axis is None else (weights[axis],))
    assert int8_db(proto, inputs) > 30


@pytest.fixture
def dead_filters(graph_of, random):
    """Eight filters, two of them a billionth of the others; all have ordinary biases."""

    def make(op_type="Conv", size=1e-9, groups=1):
        shape = (8, 1, 3, 3) if groups > 1 else (8, 8, 3, 3)
        weights, bias = random(*shape, seed=1), random(8, seed=2)
        channels = (slice(None), [1, 5]) if op_type == "ConvTranspose" and groups == 1 else [1, 5]
        weights[channels] *= np.float32(size)
        bias[[1, 5]] = 1.2, -0.9
        nodes = [
            n(op_type, ["x", "w", "b"], ["c"], group=groups),
            n("Relu", ["c"], ["r"]),
            n("Conv", ["r", "v"], ["y"]),
        ]
        constants = {"w": weights, "b": bias, "v": random(4, 8, 1, 1, seed=3)}
        return graph_of(nodes, {"x": ["N", 8, 8, 8]}, {"y": ["N", 4, None, None]}, constants)

    return make


@pytest.mark.parametrize("size", [1e-9, 1e-15, 0.0])
@pytest.mark.parametrize(("op_type", "groups"), [("Conv", 1), ("Conv", 8), ("ConvTranspose", 1), ("ConvTranspose", 8)])
def test_the_bias_of_a_dead_filter_fits_into_32_bits(dead_filters, random, op_type, groups, size):
    proto = dead_filters(op_type, size, groups)
    inputs = {"x": random(2, 8, 8, 8)}
    quantized = int8_of(proto, inputs)
    weight_scales, _ = weight_pairs(quantized)["w"]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    whole = np.abs(values["b"].astype(np.float64)) / (values["x_scale"].astype(np.float64) * weight_scales)
    assert whole.max() < 2**31
    assert int8_db(proto, inputs) > 28


def test_the_weights_of_live_filters_keep_their_own_scales(dead_filters, random):
    proto = dead_filters()
    weights = numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == "w"))
    scales, _ = weight_pairs(int8_of(proto, {"x": random(2, 8, 8, 8)}))["w"]
    live = [0, 2, 3, 4, 6, 7]
    np.testing.assert_allclose(scales[live], np.abs(weights[live]).max((1, 2, 3)) / 127, rtol=1e-6)


def test_deployed_by_onnx_runtime_dead_filters_answer_as_they_do_in_float(dead_filters, random):
    """Its fused kernels make the bias a whole number of 32 bits; what does not fit turns its sign."""
    from quant.onnxruntime.session import OnnxRuntimeSession

    proto = dead_filters()
    x = np.abs(random(2, 8, 8, 8)) / 4  # small enough for 16-bit sums of processors without VNNI
    inputs = {"x": x}
    (found,) = OnnxRuntimeSession(int8_of(proto, inputs)).run(inputs)
    assert sqnr_db(found, run_exactly(proto, inputs)["y"]) > 20


def test_weights_with_two_biases_are_quantized_for_each(graph_of, random):
    """Two convolutions share their weights; the bias of one needs a larger scale."""
    nodes = [n("Conv", ["x", "w", "small"], ["c"]), n("Conv", ["c", "w", "large"], ["y"])]
    weights = random(4, 4, 1, 1, seed=1)
    weights[2] *= np.float32(1e-9)
    constants = {"w": weights, "small": np.zeros(4, np.float32), "large": np.full(4, 2, np.float32)}
    proto = graph_of(nodes, {"x": ["N", 4, 4, 4]}, {"y": ["N", 4, 4, 4]}, constants)
    inputs = {"x": random(4, 4, 4, 4)}
    quantized = int8_of(proto, inputs)
    dequantized = [node for node in quantized.graph.node if node.op_type == "Conv"]
    assert dequantized[0].input[1] != dequantized[1].input[1]
    assert int8_db(proto, inputs) > 28
