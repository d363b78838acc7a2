import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.errors import ModelError
from quant.onnx_graph.editor import GraphEditor, sorted_nodes


def test_constants_are_folded_and_the_results_stay(graph_of, run_onnx, random):
    """Padding sizes and shapes computed out of constants, as PyTorch exports them."""

    def constant(name, value):
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))

    nodes = [
        constant("zeros", np.zeros(3, np.int64)),
        constant("last", np.array([2], np.int64)),
        helper.make_node("Concat", ["zeros", "last"], ["pairs"], axis=0),
        helper.make_node("Cast", ["pairs"], ["pads"], to=TensorProto.INT64),
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        constant("minus", np.float32(-1.5)),
        helper.make_node("Mul", ["minus", "w"], ["negative"]),
        helper.make_node("Mul", ["padded", "negative"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": ["N", 2]}, {"y": ["N", 4]}, {"w": [1.0, 2.0, 3.0, 4.0]})
    folded = GraphEditor(proto).model()
    onnx.checker.check_model(folded, full_check=True)
    assert [node.op_type for node in folded.graph.node] == ["Pad", "Mul"]
    x = random(3, 2)
    np.testing.assert_array_equal(run_onnx(folded, x=x)[0], run_onnx(proto, x=x)[0])


def test_constants_that_an_inner_graph_reads_stay(graph_of, run_onnx):
    def branch(factor):
        nodes = [helper.make_node("Mul", ["x", factor], [f"out_{factor}"])]
        return helper.make_graph(nodes, factor, [], [helper.make_tensor_value_info(f"out_{factor}", 1, None)])

    nodes = [
        helper.make_node("Add", ["a", "a"], ["twice"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch("twice"), else_branch=branch("a")),
    ]
    proto = graph_of(nodes, {"x": ["N"], "flag": []}, {"y": ["N"]}, {"a": [3.0]}, kinds={"flag": TensorProto.BOOL})
    folded = GraphEditor(proto).model()
    x = np.array([1, 2], np.float32)
    assert run_onnx(folded, x=x, flag=np.array(True))[0].tolist() == [6, 12]
    assert run_onnx(folded, x=x, flag=np.array(False))[0].tolist() == [3, 6]


def test_a_constant_that_is_an_output_stays_one(graph_of, run_onnx, random):
    nodes = [
        helper.make_node("Add", ["w", "w"], ["fixed"]),
        helper.make_node("Add", ["x", "fixed"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": [2]}, {"y": [2], "fixed": [2]}, {"w": [1.0, 2.0]})
    found = run_onnx(GraphEditor(proto).model(), x=np.zeros(2, np.float32))
    assert [array.tolist() for array in found] == [[2, 4], [2, 4]]


def test_nodes_in_any_order_are_sorted(linear, run_onnx, random):
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(linear)
    nodes = list(shuffled.graph.node)[::-1]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(shuffled)
    ordered = sorted_nodes(shuffled)
    onnx.checker.check_model(ordered)
    x = random(2, 3)
    np.testing.assert_array_equal(run_onnx(ordered, x=x)[0], run_onnx(linear, x=x)[0])


def test_a_cycle_is_an_error(graph_of):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    with pytest.raises(ModelError, match=re.escape("cycle through node 'first'")):
        sorted_nodes(graph_of(nodes, {"x": [1]}, {"b": [1]}))
