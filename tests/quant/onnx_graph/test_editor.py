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


def test_a_constant_that_would_grow_large_is_not_folded(graph_of):
    def nodes_left(*sizes):
        proto = graph_of(
            [helper.make_node("Expand", ["one", "sizes"], ["many"]), helper.make_node("Add", ["x", "many"], ["y"])],
            {"x": [1]},
            {"y": [None, None]},
            {"one": [1.0], "sizes": np.array(sizes, np.int64)},
        )
        return [node.op_type for node in GraphEditor(proto).nodes]

    assert nodes_left(1 << 10, 1 << 10) == ["Add"]  # a million values, 4 MB
    assert nodes_left((1 << 10) + 1, 1 << 10) == ["Expand", "Add"]


@pytest.mark.parametrize("kind", ["RandomNormal", "DequantizeLinear"])
def test_what_is_drawn_at_random_and_quantized_constants_stay_nodes(graph_of, kind):
    node = helper.make_node("RandomNormal", [], ["made"], shape=[2])
    if kind == "DequantizeLinear":
        node = helper.make_node("DequantizeLinear", ["small", "scale"], ["made"])
    constants = {"small": np.array([1, 2], np.int8), "scale": np.float32(0.5)}
    proto = graph_of([node, helper.make_node("Add", ["x", "made"], ["y"])], {"x": [2]}, {"y": [2]}, constants)
    assert [node.op_type for node in GraphEditor(proto).nodes] == [kind, "Add"]


def test_a_new_name_is_that_of_no_tensor_and_no_node(graph_of):
    nodes = [helper.make_node("Mul", ["x", "w"], ["w_1"], name="wanted"), helper.make_node("Relu", ["w_1"], ["y"])]
    editor = GraphEditor(graph_of(nodes, {"x": [1]}, {"y": [1]}, {"w": [1.0]}))
    assert [editor.fresh_name("w") for _ in range(2)] == ["w_2", "w_3"]
    assert [editor.fresh_name(name) for name in ("x", "wanted", "free", "free")] == [
        "x_1",
        "wanted_1",
        "free",
        "free_1",
    ]


def test_readers_are_counted_in_branches_and_outputs_too(graph_of):
    branch = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["inner"])], "branch", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("If", ["flag"], ["b"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["a", "a"], ["c"]),
    ]
    inputs, outputs = {"x": [1], "flag": []}, {"a": [1], "b": None, "c": [1]}
    editor = GraphEditor(graph_of(nodes, inputs, outputs, kinds={"flag": TensorProto.BOOL}))
    found = editor.consumers()
    assert {name: found[name] for name in ("x", "a", "b", "c")} == {"x": 1, "a": 5, "b": 1, "c": 1}
    assert {name: node.op_type for name, node in editor.producers().items()} == {"a": "Abs", "b": "If", "c": "Add"}


def test_what_an_edit_leaves_unread_is_gone_and_the_rest_is_kept(graph_of, run_onnx):
    nodes = [helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    proto = graph_of(nodes, {"x": [2], "w": [2]}, {"y": [2]}, {"w": [2.0, 3.0], "b": [1.0, 1.0]})
    proto = onnx.shape_inference.infer_shapes(proto)
    assert [value.name for value in proto.graph.value_info] == ["m"]
    editor = GraphEditor(proto)
    assert [value.name for value in editor.model().graph.input] == ["x"]  # w has a value: it is no input
    editor.nodes = editor.nodes[1:]
    editor.nodes[0].input[0] = "x"
    edited = editor.model()
    onnx.checker.check_model(edited, full_check=True)
    assert [tensor.name for tensor in edited.graph.initializer] == ["b"]
    assert list(edited.graph.value_info) == []
    assert run_onnx(edited, x=np.array([5, 7], np.float32))[0].tolist() == [6, 8]
    assert len(proto.graph.node) == 2, "the given model is not edited"
