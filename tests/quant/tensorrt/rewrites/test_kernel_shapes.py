"""Convolutions that leave their kernel's shape to be inferred, which TensorRT's parser does not do behind a pair."""

import onnx
import pytest
from onnx import helper

from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.network import prepared_proto


def kernel_shapes(proto):
    return [
        helper.get_attribute_value(attribute)
        for node in proto.graph.node
        if node.op_type in ("Conv", "ConvTranspose")
        for attribute in node.attribute
        if attribute.name == "kernel_shape"
    ]


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_a_quantized_convolution_states_its_kernel(graph_of, random, run_onnx, ones, op_type):
    node = helper.make_node(op_type, ["x", "w"], ["y"], pads=[1, 0, 1, 0])
    proto = graph_of([node], {"x": ["N", 4, 9, 9]}, {"y": None}, {"w": random(4, 4, 3, 1)})
    quantized = qdq_model_from_amax(proto, ones(proto))
    assert kernel_shapes(quantized) == [[3, 1]]
    assert kernel_shapes(proto) == []
    assert run_onnx(quantized, x=random(2, 4, 9, 9))[0].shape == run_onnx(proto, x=random(2, 4, 9, 9))[0].shape


def test_a_kernel_that_is_stated_stays(graph_of, random, ones):
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 1])
    proto = graph_of([node], {"x": ["N", 4, 9, 9]}, {"y": None}, {"w": random(4, 4, 3, 1)})
    assert kernel_shapes(qdq_model_from_amax(proto, ones(proto))) == [[3, 1]]
    assert kernel_shapes(prepared_proto(proto, BatchRange(2, 2, 2), "model")) == [[3, 1]]


def test_models_with_pairs_of_another_tool_state_it_for_the_parser():
    """Weights as INT8, as float in a pair of their own, and as a node; and one that is computed, so not known."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1, 8, 8] x) => (float[A, B, C, D] y)
        <float s = {0.5}, int8 z = {0}, int8[1, 1, 2, 2] w8 = {1, 2, 3, 4}, float[1, 1, 1, 2] wf = {1, 2}>
        { w = DequantizeLinear(w8, s, z) a = Conv(x, w)
          q = QuantizeLinear(wf, s, z) d = DequantizeLinear(q, s, z) b = Conv(a, d)
          k = Constant <value = float[1, 1, 2, 1] {1, 2}> () c = Conv(b, k)
          r = Relu(k) y = Conv(c, r) }"""
    )
    assert kernel_shapes(prepared_proto(proto, BatchRange(2, 2, 2), "model")) == [[2, 2], [1, 2], [2, 1]]
