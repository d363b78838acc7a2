"""The numbers in a Q/DQ model: scales of activations and weights, and the results against NumPy and the float model."""

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors
from tests.qdq_walk import Walk


@pytest.mark.parametrize(
    ("op", "weight", "data", "axis"),
    [
        ("Conv", (6, 4, 3, 3), (1, 4, 5, 5), 0),
        ("ConvTranspose", (4, 6, 3, 3), (1, 4, 5, 5), 1),
        ("MatMul", (4, 6), (2, 4), 1),
    ],
)
def test_weights_have_a_scale_for_each_output_channel(graph_of, random, ones, op, weight, data, axis):
    w = random(*weight)
    proto = graph_of([helper.make_node(op, ["x", "w"], ["y"])], {"x": data}, {"y": [None] * len(data)}, {"w": w})
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    (kernel,) = (node for node in walk.nodes if node.op_type == op)
    dequantize = walk.producer[kernel.input[1]]
    others = tuple(i for i in range(w.ndim) if i != axis)
    np.testing.assert_allclose(walk.constants[dequantize.input[1]], np.abs(w).max(axis=others) / 127, rtol=1e-6)
    assert {a.name: a.i for a in dequantize.attribute} == {"axis": axis}


def test_activation_scales_are_amax_over_127(residual_net, ones):
    amax = ones(residual_net) | {"input": 2.54, "flat": 127.0}
    walk = Walk(qdq_model_from_amax(residual_net, amax))
    scales = {n.input[0]: walk.constants[n.input[1]] for n in walk.nodes if n.op_type == "QuantizeLinear"}
    assert scales["input"] == pytest.approx(0.02, rel=1e-6)
    assert scales["flat"] == 1.0
    assert scales["relu1"] == pytest.approx(1 / 127, rel=1e-6)


def test_the_smallest_amax_still_gives_a_positive_scale(residual_net, ones):
    Walk(qdq_model_from_amax(residual_net, ones(residual_net) | {"relu1": 2.0**-149})).assert_explicit()


def test_shared_weights_are_quantized_once_and_stay_float_for_others(graph_of, random, ones, run_onnx):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Add", ["b", "w"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": [3, 3]}, {"y": [3, 3]}, {"w": random(3, 3)})
    quantized = qdq_model_from_amax(proto, ones(proto) | {"x": 4.0, "a": 8.0})
    walk = Walk(quantized)
    assert [n.op_type for n in walk.nodes].count("DequantizeLinear") == 3  # x, a and w
    np.testing.assert_array_equal(walk.constants["w"], random(3, 3))
    x = random(3, 3, seed=5)
    np.testing.assert_allclose(run_onnx(quantized, x=x)[0], run_onnx(proto, x=x)[0], atol=0.3)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (1,), (3,), (1, 3), (4, 3)])
@pytest.mark.parametrize("factors", [{}, {"alpha": 0.5}, {"beta": -2.0}, {"alpha": 2.0, "beta": 0.25}])
@pytest.mark.parametrize("first_transposed", [0, 1])
def test_gemm_in_all_its_forms_gives_the_same_float_result(
    graph_of, random, run_onnx, ones, transposed, first_transposed, bias, factors
):
    constants = {"w": random(*((3, 5) if transposed else (5, 3)))}
    if bias is not None:
        constants["b"] = np.asarray(random(*bias, seed=2), np.float32)
    inputs = ["x", "w"] if bias is None else ["x", "w", "b"]
    node = helper.make_node("Gemm", inputs, ["y"], transA=first_transposed, transB=transposed, **factors)
    shape = (5, 4) if first_transposed else (4, 5)
    proto = graph_of([node], {"x": shape}, {"y": [4, 3]}, constants)
    x = random(*shape, seed=3)
    (expected,) = run_onnx(proto, x=x)
    prepared = prepared_for_quantization(proto).model()
    np.testing.assert_allclose(run_onnx(prepared, x=x)[0], expected, rtol=1e-5, atol=1e-5)
    if not first_transposed:
        assert "Gemm" not in {n.op_type for n in prepared.graph.node}  # TensorRT 8.6 refuses one with INT8 weights
    quantized = qdq_model_from_amax(proto, {"x": float(np.abs(x).max()), "y": 1.0})
    onnx.checker.check_model(quantized, full_check=True)
    Walk(quantized).assert_explicit()
    # Half a step on each of five products of numbers up to about 3: 5 * 3 * 3 / 127, times alpha.
    tolerance = 0.36 * factors.get("alpha", 1)
    np.testing.assert_allclose(run_onnx(quantized, x=x)[0], expected, atol=tolerance)


def quantized_by_numpy(x, scale, axis=None):
    """Symmetric INT8 and back: nearest step, ties to even, kept within the type."""
    if axis is not None:
        scale = scale.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return (np.clip(np.rint(x / scale), -128, 127) * scale).astype(np.float32)


def test_outputs_equal_a_numpy_simulation_of_symmetric_int8(graph_of, random, run_onnx):
    """A convolution, Relu and a matrix product with bias, the convolution as explicit sums."""
    w, b, v, c = random(4, 3, 3, 3), random(4, seed=1), random(4, 5, seed=2), random(5, seed=3)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v", "c"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 5]}, {"w": w, "b": b, "v": v, "c": c})
    x = random(4, 3, 6, 6, seed=4)
    amax = {"x": 2.0, "flat": 1.5}  # both clip some values
    assert np.abs(x).max() > 2.0

    x8 = quantized_by_numpy(x, np.float32(2.0 / 127))
    w8 = quantized_by_numpy(w, np.abs(w).max(axis=(1, 2, 3)) / np.float32(127), axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(x8, (3, 3), axis=(2, 3))  # N, channel, row, column, 3, 3
    conv = np.einsum("nchwij,ocij->nohw", windows.astype(np.float64), w8.astype(np.float64)) + b.reshape(1, -1, 1, 1)
    flat = np.maximum(conv, 0).mean(axis=(2, 3)).astype(np.float32)
    assert flat.max() > 1.5
    flat8 = quantized_by_numpy(flat, np.float32(1.5 / 127))
    v8 = quantized_by_numpy(v, np.abs(v).max(axis=0) / np.float32(127), axis=1)
    expected = flat8 @ v8 + c

    quantized = qdq_model_from_amax(proto, amax)
    np.testing.assert_allclose(run_onnx(quantized, x=x)[0], expected, rtol=1e-4, atol=1e-5)


def test_int8_with_wide_enough_scales_is_close_to_float(residual_net, run_onnx, random):
    x = random(8, 3, 8, 8, seed=20)
    tensors = quantizable_tensors(residual_net)
    values = run_onnx(residual_net, also=[name for name in tensors if name != "input"], input=x) | {"input": x}
    quantized = qdq_model_from_amax(residual_net, {name: float(np.abs(values[name]).max()) for name in tensors})
    (found,) = run_onnx(quantized, input=x)
    noise = np.square(found - values["logits"]).mean() / np.square(values["logits"]).mean()
    assert 0 < noise < 1e-3  # over 30 dB
