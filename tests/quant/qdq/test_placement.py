"""Where a Q/DQ model has pairs: before which nodes, on which of their inputs, and one for each tensor."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from calib import MinMaxCalibrator
from quant import collect_statistics
from quant.qdq.placement import Placement, product_inputs
from quant.qdq.writer import qdq_model_from_amax, quantizable_tensors
from tests.qdq_walk import Walk


def test_the_skip_input_of_a_residual_add_is_quantized_and_the_other_is_not(residual_net, ones):
    walk = Walk(qdq_model_from_amax(residual_net, ones(residual_net)))
    (add,) = (node for node in walk.nodes if node.name == "residual")
    assert add.input[0] == "bn2"  # straight from the second convolution, its BatchNormalization folded
    assert walk.producer["bn2"].op_type == "Conv"
    assert walk.is_activation_pair(add.input[1])
    # The skip and the second convolution read the same tensor through the same pair.
    assert add.input[1] == walk.producer["bn2"].input[0]


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_of_two_convolutions_the_later_one_fuses_with_the_add(graph_of, random, ones, order):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["x", "v"], ["b"]),
        helper.make_node("Add", order, ["y"], name="residual"),
    ]
    constants = {"w": random(2, 2, 1, 1), "v": random(2, 2, 1, 1)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 2, 4, 4]}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    walk.assert_explicit()
    (add,) = (node for node in walk.nodes if node.name == "residual")
    assert "b" in add.input
    assert walk.is_activation_pair(next(name for name in add.input if name != "b"))


def test_an_add_that_is_not_residual_stays_float(graph_of, random, ones):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Add", ["r", "s"], ["y"], name="plain"),
        helper.make_node("Add", ["y", "bias"], ["z"], name="shift"),
    ]
    constants = {"w": random(2, 2, 1, 1), "bias": random(2, 1, 1)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"z": ["N", 2, 4, 4]}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    assert [list(node.input) for node in walk.nodes if node.op_type == "Add"] == [["r", "s"], ["y", "bias"]]


def test_a_tensor_that_many_nodes_read_has_one_pair_and_float_readers_read_it_unquantized(graph_of, random, ones):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        *(helper.make_node("Conv", ["r", f"w{i}"], [f"c{i}"]) for i in range(3)),
        helper.make_node("Concat", ["c0", "c1", "c2", "r"], ["y"], axis=1),
    ]
    constants = {f"w{i}": random(2, 2, 1, 1, seed=i) for i in range(3)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 8, 4, 4]}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    walk.assert_explicit()
    assert [node.input[0] for node in walk.nodes if node.op_type == "QuantizeLinear"] == ["r"]
    (concat,) = (node for node in walk.nodes if node.op_type == "Concat")
    assert list(concat.input) == ["c0", "c1", "c2", "r"]


def test_a_gemm_between_two_activations_has_pairs_on_both(graph_of, ones):
    proto = graph_of([helper.make_node("Gemm", ["a", "b"], ["y"])], {"a": [2, 3], "b": [3, 4]}, {"y": [2, 4]})
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    walk.assert_explicit()
    assert [n.input[0] for n in walk.nodes if n.op_type == "QuantizeLinear"] == ["a", "b"]


def test_a_shortcut_that_only_moves_data_stays_int8_with_one_scale(moving_shortcut):
    amax = {"x": 3.0, "r1": 2.0}  # none for the moved data
    walk = Walk(qdq_model_from_amax(moving_shortcut, amax))
    by_name = {node.name: node for node in walk.nodes}
    assert walk.is_activation_pair(by_name["slice"].input[0])
    assert by_name["slice"].input[0] == by_name["conv2"].input[0]  # nobody reads the floats of r1
    skip = by_name["add"].input[1]
    assert walk.is_activation_pair(skip)
    assert walk.constants[walk.producer[skip].input[1]] == pytest.approx(2.0 / 127)


def test_moved_data_needs_no_scale_of_its_own(moving_shortcut):
    assert quantizable_tensors(moving_shortcut) == ["x", "r1"]


def test_moving_data_in_int8_changes_nothing(moving_shortcut, run_onnx, random):
    amax = {"x": 3.0, "r1": 2.0, "p": 2.0}
    x = random(5, 3, 8, 8)
    moved = run_onnx(qdq_model_from_amax(moving_shortcut, amax), x=x)[0]
    plain = run_onnx(qdq_model_from_amax(moving_shortcut, amax, Placement(moves=False)), x=x)[0]
    np.testing.assert_array_equal(moved, plain)


def test_a_pad_with_another_value_than_zero_is_no_mere_move(moving_shortcut):
    moving_shortcut.graph.initializer.append(numpy_helper.from_array(np.float32(0.3), "value"))
    next(node for node in moving_shortcut.graph.node if node.name == "pad").input.append("value")
    assert quantizable_tensors(moving_shortcut) == ["x", "r1", "p"]


def test_a_kernel_that_stays_float_takes_its_shortcut_with_it(moving_shortcut):
    placement = Placement(float_nodes=frozenset({"conv2"}))
    walk = Walk(qdq_model_from_amax(moving_shortcut, {"x": 3.0}, placement))
    by_name = {node.name: node for node in walk.nodes}
    assert by_name["conv2"].input[0] == "r1"
    assert list(by_name["add"].input) == ["c2", "p"]
    assert walk.is_int8_weight(by_name["conv1"].input[1])


def test_what_a_float_kernel_wrote_is_moved_as_floats(moving_shortcut):
    placement = Placement(float_nodes=frozenset({"conv1"}))
    walk = Walk(qdq_model_from_amax(moving_shortcut, {"r1": 2.0}, placement))
    by_name = {node.name: node for node in walk.nodes}
    assert by_name["slice"].input[0] == "r1"
    assert walk.is_activation_pair(by_name["conv2"].input[0])
    skip = by_name["add"].input[1]
    assert walk.is_activation_pair(skip)
    assert walk.constants[walk.producer[skip].input[1]] == pytest.approx(2.0 / 127)


def test_a_transformer_has_pairs_before_its_products_and_none_on_its_residuals(transformer, ones):
    walk = Walk(qdq_model_from_amax(transformer, ones(transformer)))
    walk.assert_explicit()
    quantized = {node.input[0] for node in walk.nodes if node.op_type == "QuantizeLinear"}
    assert quantized == {"n1", "q", "kt", "s", "v", "a", "n2", "gelu", "pooled"}
    by_name = {node.name: node for node in walk.nodes}
    assert list(by_name["residual"].input) == ["x", "o"]
    assert list(by_name["residual2"].input) == ["x1", "m"]


def test_results_of_a_transformer_s_products_are_quantized_but_for_its_residuals(transformer, ones):
    walk = Walk(qdq_model_from_amax(transformer, ones(transformer) | {"pb": 5.0}, Placement(results=True)))
    walk.assert_explicit()
    scales = {n.input[0]: float(walk.constants[n.input[1]]) for n in walk.nodes if n.op_type == "QuantizeLinear"}
    assert set(scales) == {"n1", "q", "kt", "s", "v", "a", "n2", "gelu", "pooled", "pb", "f"}
    assert {scales[name] for name in ("pb", "q", "kt", "v")} == {
        float(np.float32(5 / 127))
    }  # moved in INT8, so one scale
    for reader in walk.nodes:  # nobody reads the floats of what is written as INT8
        if reader.op_type != "QuantizeLinear":
            assert not {"pb", "f"} & set(reader.input)


def test_a_bias_may_be_added_apart_between_a_convolution_and_the_sum(graph_of, random, ones):
    nodes = [
        helper.make_node("Relu", ["x"], ["skip"]),
        helper.make_node("Conv", ["skip", "w"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["b"]),
        helper.make_node("Add", ["b", "skip"], ["y"], name="residual"),
    ]
    constants = {"w": random(2, 2, 1, 1), "bias": random(1, 2, 1, 1)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 2, 4, 4]}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto)))
    (add,) = (node for node in walk.nodes if node.name == "residual")
    assert add.input[0] == "b"
    assert walk.is_activation_pair(add.input[1])


@pytest.mark.parametrize("reader", ["LayerNormalization", "ReduceMean"])
def test_results_that_are_normalized_keep_their_floats(graph_of, random, ones, reader):
    """A normalization may come in parts, of which the mean is the first."""
    inputs = ["m", "gain"] if reader == "LayerNormalization" else ["m"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node(reader, inputs, ["n"], **({} if reader == "LayerNormalization" else {"axes": [-1]})),
        helper.make_node("Erf", ["n"], ["y"]),
    ]
    constants = {"w": random(4, 4), "gain": random(4)}
    proto = graph_of(nodes, {"x": ["N", 4]}, {"y": None}, constants)
    walk = Walk(qdq_model_from_amax(proto, ones(proto), Placement(results=True)))
    assert [node.input[0] for node in walk.nodes if node.op_type == "QuantizeLinear"] == ["x"]


@pytest.fixture
def attention(graph_of):
    """A product with weights, a softmax, a product with moved data, a classifier."""
    constants = {"w": np.ones((8, 8), np.float32), "c": np.ones((8, 4), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="query"),
        helper.make_node("Softmax", ["m"], ["s"], name="softmax", axis=-1),
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Transpose", ["r"], ["t"], name="transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["s", "t"], ["a"], name="attend"),
        helper.make_node("Gemm", ["a", "c"], ["y"], name="classify"),
    ]
    return graph_of(nodes, {"x": [8, 8]}, {"y": [8, 4]}, constants)


def test_what_enters_products_is_known_with_what_it_was_moved_from(attention):
    assert product_inputs(attention) - {"w"} == {"x", "s", "t", "r"}


def test_statistics_say_what_enters_products(attention, saved, random, batch_of):
    calibrator = MinMaxCalibrator([batch_of(x=random(8, 8))])
    collect_statistics(saved(attention), calibrator)
    assert calibrator.statistics.products == {"x", "s", "t", "r"}


def test_products_that_are_to_stay_float_are_named_by_their_output_where_they_have_no_name(graph_of, random, ones):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "v"], ["b"]),
        helper.make_node("Conv", ["b", "u"], ["y"], name="last"),
    ]
    constants = {name: random(2, 2, 1, 1, seed=i) for i, name in enumerate("wvu")}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 2, 4, 4]}, constants)
    placement = Placement(float_nodes=frozenset({"b", "last"}))
    walk = Walk(qdq_model_from_amax(proto, ones(proto), placement))
    convolutions = [node for node in walk.nodes if node.op_type == "Conv"]
    assert [walk.is_activation_pair(node.input[0]) for node in convolutions] == [True, False, False]
    assert [list(node.input) for node in convolutions[1:]] == [["a", "v"], ["b", "u"]]
