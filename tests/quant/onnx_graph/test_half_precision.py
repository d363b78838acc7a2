import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quant.onnx_graph.half_precision import half_model
from quant.onnxruntime.session import OnnxRuntimeSession

LOWEST = np.finfo(np.float32).min


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


def test_a_model_that_was_converted_before_is_converted_again(residual_net, run_onnx, random):
    """People bring FP16 models. The converter gives its casts the same names each time."""
    once = half_model(residual_net)
    assert any(name.startswith("graph_input_cast") for node in once.graph.node for name in node.output)
    twice = half_model(once)
    onnx.checker.check_model(twice, full_check=True)
    names = [name for node in twice.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    nodes = [node.name for node in twice.graph.node]
    assert len(set(nodes)) == len(nodes)
    x = random(2, 3, 8, 8)
    np.testing.assert_allclose(run_onnx(twice, input=x)[0], run_onnx(once, input=x)[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("x", "graph_input_cast_0"),
        ("y", "graph_output_cast_0"),
        ("w", "graph_input_cast_0"),
        ("w", "graph_output_cast_0"),
        ("b", "p_cast_to_fp32"),  # what the converter calls the product's cast for CumSum, which has no half kernel
        ("w", "s_cast_to_fp16"),
    ],
)
def test_any_tensor_may_have_a_name_that_the_converter_gives(graph_of, random, run_onnx, place, name):
    """What is cut out of a converted model has them at its ends; what is simplified, as constants."""
    called = {key: name if key == place else key for key in ("x", "w", "b", "y")}
    nodes = [
        helper.make_node("MatMul", [called["x"], called["w"]], ["p"]),
        helper.make_node("CumSum", ["p", "axis"], ["s"]),
        helper.make_node("Add", ["s", called["b"]], ["t"]),
        helper.make_node("MatMul", ["t", called["w"]], [called["y"]]),
    ]
    constants = {called["w"]: random(64, 64) / 64, called["b"]: random(64), "axis": np.array(1)}
    net = graph_of(nodes, {called["x"]: ["N", 64]}, {called["y"]: ["N", 64]}, constants)
    half = half_model(net)
    onnx.checker.check_model(half, full_check=True)
    assert [value.name for value in (*half.graph.input, *half.graph.output)] == [called["x"], called["y"]]
    assert {node.op_type for node in half.graph.node} > {"Cast"}
    given = {called["x"]: random(2, 64)}
    (expected,), (found,) = run_onnx(net, **given), OnnxRuntimeSession(half).run(given)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())


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


def test_a_factor_beyond_float16_is_applied_in_fp32(graph_of):
    proto = graph_of([helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [2]}, {"y": [2]}, {"w": [1e6, 2.0]})
    (found,) = OnnxRuntimeSession(half_model(proto)).run({"x": np.full(2, 2**-10, np.float32)})
    np.testing.assert_allclose(found, [1e6 / 1024, 2 / 1024], rtol=1e-3)


@pytest.mark.parametrize(
    ("form", "lowest"), [("Add", LOWEST), ("Add", -1e9), ("Where", LOWEST), ("Where", -1e9), ("Mul", LOWEST)]
)
def test_a_mask_beyond_float16_hides_and_makes_no_nan_where_all_is_hidden(graph_of, run_onnx, random, form, lowest):
    """As infinity, a row that is hidden throughout would be NaN."""
    hidden = np.triu(np.ones((4, 4), np.float32), 1)
    hidden[3] = 1
    nodes = {
        "Add": [helper.make_node("Add", ["x", "mask"], ["m"])],
        "Where": [helper.make_node("Where", ["hidden", "lowest", "x"], ["m"])],
        "Mul": [helper.make_node("Mul", ["h", "lowest"], ["t"]), helper.make_node("Add", ["x", "t"], ["m"])],
    }
    constants = {
        "Add": {"mask": (hidden * lowest).astype(np.float32)},
        "Where": {"hidden": hidden > 0, "lowest": np.float32(lowest)},
        "Mul": {"lowest": np.float32(lowest)},
    }
    inputs = {"x": [4, 4]} | ({"h": [4, 4]} if form == "Mul" else {})
    nodes = [*nodes[form], helper.make_node("Softmax", ["m"], ["y"], axis=-1)]
    proto = graph_of(nodes, inputs, {"y": [4, 4]}, constants[form])
    given = {"x": random(4, 4)} | ({"h": hidden} if form == "Mul" else {})
    (found,) = OnnxRuntimeSession(half_model(proto)).run(given)
    (expected,) = run_onnx(proto, **given)
    np.testing.assert_allclose(found[:3], expected[:3], atol=2e-3)
    np.testing.assert_allclose(found[3].sum(), 1, atol=1e-2)
