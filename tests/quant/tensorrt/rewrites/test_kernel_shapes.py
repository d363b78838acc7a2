"""Convolutions that leave their kernel's shape to be inferred, which TensorRT's parser does not do behind a pair."""

import onnx
import pytest
from onnx import helper

from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.rewrites.kernel_shapes import state_kernel_shapes


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


def test_constants_are_followed_through_what_stands_before_the_pair():
    """An Identity behind shared weights, a Cast, and a Transpose of weights in another framework's order."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1, 8, 8] x) => (float[A, B, C, D] y)
        <float s = {0.5}, int8 z = {0}, float[1, 1, 2, 3] w = {1, 2, 3, 4, 5, 6}, double[1, 1, 1, 2] wd = {1, 2},
         float[3, 2, 1, 1] hwio = {1, 2, 3, 4, 5, 6}, float[4, 3, 2, 1] back = {}>
        { i = Identity(w) qi = QuantizeLinear(i, s, z) di = DequantizeLinear(qi, s, z) a = Conv(x, di)
          c = Cast <to = 1> (wd) qc = QuantizeLinear(c, s, z) dc = DequantizeLinear(qc, s, z) b = Conv(a, dc)
          qt = QuantizeLinear(hwio, s, z) dt = DequantizeLinear(qt, s, z)
          t = Transpose <perm = [3, 2, 0, 1]> (dt) e = Conv(b, t) r = Transpose(back) y = Conv(e, r) }"""
    )
    assert kernel_shapes(prepared_proto(proto, BatchRange(2, 2, 2), "model")) == [[2, 3], [1, 2], [3, 2], [3, 4]]


def test_branches_read_the_weights_of_the_graph_around_them():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1, 8, 8] x, bool c) => (float[A, B, C, D] y)
        <float s = {0.5}, int8 z = {0}, int8[1, 1, 2, 3] w8 = {1, 2, 3, 4, 5, 6}>
        { w = DequantizeLinear(w8, s, z)
          y = If (c) <then_branch = first () => (float[A, B, C, D] a) { a = Conv(x, w) },
                      else_branch = second () => (float[A, B, C, D] b)
                      { k = Constant <value = float[1, 1, 2, 1] {1, 2}> () b = Conv(x, k) }> }"""
    )
    state_kernel_shapes(proto)
    branches = [attribute.g for attribute in proto.graph.node[-1].attribute]
    assert [kernel_shapes(onnx.ModelProto(graph=branch)) for branch in branches] == [[[2, 3]], [[2, 1]]]


def test_a_loop_s_own_value_of_the_same_name_is_not_the_constant():
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1, 8, 8] x, float[A, B, C, D] v)
            => (float[E, F, G, H] y)
        <int64 n = {1}, bool t = {1}, float[1, 1, 2, 3] w = {1, 2, 3, 4, 5, 6}>
        { last, y = Loop (n, t, v) <body = once (int64 i, bool go, float[P, Q, R, S] w)
            => (bool go, float[P, Q, R, S] w, float[T, U, V, W] o) { o = Conv(x, w) }> }"""
    )
    state_kernel_shapes(proto)
    assert kernel_shapes(onnx.ModelProto(graph=proto.graph.node[0].attribute[0].g)) == []
