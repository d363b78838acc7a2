"""Weights of products as floats: another file, the same INT8."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quant.qdq.writer import qdq_model_from_amax
from quant.tensorrt.rewrites.float_weights import with_float_products
from tests.qdq_walk import Walk


def by_name(walk):
    return {node.name: node for node in walk.nodes}


def test_a_transformer_s_weights_become_the_same_int8(transformer, ones, run_onnx, random):
    amax = ones(transformer) | {"n1": 3.0, "n2": 3.0, "q": 3.0, "kt": 3.0, "v": 3.0, "a": 2.0, "gelu": 3.0}
    plain = qdq_model_from_amax(transformer, amax)
    before = plain.SerializeToString()
    floats = with_float_products(plain)
    assert plain.SerializeToString() == before
    onnx.checker.check_model(floats, full_check=True)
    stored = {tensor.name: tensor for tensor in floats.graph.initializer}
    assert not [
        name for name, tensor in stored.items() if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
    ]
    walk, int8 = Walk(floats), Walk(plain)
    x = random(2, 16, 64, seed=9)
    for kernel in ("qkv", "out", "fc1", "fc2", "head"):
        quantized = walk.producer[by_name(walk)[kernel].input[1]].input[0]
        expected = int8.constants[int8.producer[by_name(int8)[kernel].input[1]].input[0]]
        found = run_onnx(floats, also=[quantized], x=x)[quantized]
        assert found.dtype == np.int8
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(run_onnx(floats, x=x)[0], run_onnx(plain, x=x)[0])


def test_every_int8_value_survives_every_magnitude_of_scale(graph_of, run_onnx):
    values = np.tile(np.arange(-127, 128, dtype=np.int8)[:, None], (1, 60))
    scales = np.logspace(-38, 36, 60).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    constants = {"w": values, "s": scales, "z": np.zeros(60, np.int8)}
    floats = with_float_products(graph_of(nodes, {"x": [1, 255]}, {"y": [1, 60]}, constants))
    (quantize,) = (node for node in floats.graph.node if node.op_type == "QuantizeLinear")
    found = run_onnx(floats, also=[quantize.output[0]], x=np.zeros((1, 255), np.float32))[quantize.output[0]]
    np.testing.assert_array_equal(found, values)


def test_convolutions_keep_their_int8_weights(residual_net, ones):
    walk = Walk(with_float_products(qdq_model_from_amax(residual_net, ones(residual_net))))
    assert all(walk.is_int8_weight(node.input[1]) for node in walk.nodes if node.op_type == "Conv")


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_what_has_a_zero_point_stays(graph_of, kind):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    constants = {"w": np.ones((3, 2), kind), "s": np.float32(0.1), "z": np.array(5, kind)}
    proto = graph_of(nodes, {"x": ["N", 3]}, {"y": ["N", 2]}, constants)
    assert [node.op_type for node in with_float_products(proto).graph.node] == ["DequantizeLinear", "MatMul"]


@pytest.mark.parametrize("shape", [(), (2,)])
def test_without_a_zero_point_negative_weights_stay_negative(graph_of, random, run_onnx, shape):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    constants = {"w": np.array([[-3, 5], [7, -127], [1, 0]], np.int8), "s": np.full(shape, 0.1, np.float32)}
    proto = graph_of(nodes, {"x": ["N", 3]}, {"y": ["N", 2]}, constants)
    x = random(4, 3)
    np.testing.assert_array_equal(run_onnx(with_float_products(proto), x=x)[0], run_onnx(proto, x=x)[0])


def test_weights_quantized_by_blocks_stay(graph_of):
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=16),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    constants = {"w": np.ones((64, 32), np.int8), "s": np.ones((4, 32), np.float32)}
    proto = graph_of(nodes, {"x": ["N", 64]}, {"y": ["N", 32]}, constants, opset=21)
    assert [node.op_type for node in with_float_products(proto).graph.node] == ["DequantizeLinear", "MatMul"]
