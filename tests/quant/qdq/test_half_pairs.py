import numpy as np
import onnx
import pytest
from onnx import TensorProto

from quant.onnx_graph.model import opset_of
from quant.qdq.half_pairs import half_qdq_model
from quant.qdq.writer import qdq_model_from_amax


@pytest.mark.parametrize(
    ("net", "shape", "name"), [("residual_net", (3, 8, 8), "input"), ("transformer", (16, 64), "x")]
)
def test_it_is_valid_and_answers_as_with_float32_around_the_pairs(net, shape, name, request, ones, random, run_onnx):
    proto = request.getfixturevalue(net)
    quantized = qdq_model_from_amax(proto, dict.fromkeys(ones(proto), 6.0))
    before = quantized.SerializeToString()
    half = half_qdq_model(quantized)
    assert quantized.SerializeToString() == before
    onnx.checker.check_model(half, full_check=True)
    assert opset_of(half) == 19
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    pairs = [node for node in half.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == sum(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in quantized.graph.node)
    assert {kinds[node.input[1]] for node in pairs} == {TensorProto.FLOAT16}
    x = random(4, *shape)
    (expected,), (found,) = run_onnx(quantized, **{name: x}), run_onnx(half, **{name: x})
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()
