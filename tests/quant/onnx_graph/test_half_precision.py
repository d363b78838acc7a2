import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quant.onnx_graph.half_precision import half_model
from quant.onnxruntime.session import OnnxRuntimeSession


def test_the_fp16_model_is_valid_typed_and_close(residual_net, run_onnx, random):
    before = residual_net.SerializeToString()
    half = half_model(residual_net)
    onnx.checker.check_model(half, full_check=True)
    assert residual_net.SerializeToString() == before
    assert {t.data_type for t in half.graph.initializer if t.name in ("w1", "w2", "w5")} == {TensorProto.FLOAT16}
    x = random(4, 3, 8, 8)
    (expected,) = run_onnx(residual_net, input=x)
    (found,) = OnnxRuntimeSession(half).run({"input": x})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())
    assert not np.array_equal(found, expected)  # it is not FP32 under another name


def test_inputs_and_outputs_keep_their_types_and_names(residual_net):
    half = half_model(residual_net)
    for values, originals in (
        (half.graph.input, residual_net.graph.input),
        (half.graph.output, residual_net.graph.output),
    ):
        assert [(v.name, v.type.tensor_type.elem_type) for v in values] == [
            (v.name, v.type.tensor_type.elem_type) for v in originals
        ]


@pytest.mark.parametrize(("weight", "x"), [(1e6, 1e-3), (1e-7, 6e4)])
def test_a_product_with_weights_that_float16_cannot_hold_stays_float32(graph_of, weight, x):
    proto = graph_of([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [2]}, {"y": [2]}, {"w": [weight, weight / 2]})
    (found,) = OnnxRuntimeSession(half_model(proto)).run({"x": np.full(2, x, np.float32)})
    np.testing.assert_allclose(found, [weight * x, weight * x / 2], rtol=1e-3)
