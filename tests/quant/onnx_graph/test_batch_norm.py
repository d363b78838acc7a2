"""BatchNormalization is folded where its statistics are those that were learned, and never in training mode."""

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.onnx_graph.batch_norm import fold_batch_norm, is_in_training, split_batch_norm
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.half_precision import half_model
from tests.int8_oracle import assert_preparation_keeps, int8_db, run_exactly, sqnr_db

PARTS = ("scale", "shift", "mean", "var")

IN_TRAINING = ("n", "new_mean", "new_var")


@pytest.fixture
def normalised(graph_of, random, norm_constants):
    """conv, BatchNormalization, conv; the batch's own statistics are far from the learned ones."""

    def make(*, opset, outputs=("n",), before=(), data="c", **attributes):
        constants = {"w": random(4, 3, 3, 3, seed=1), "v": random(2, 4, 1, 1, seed=2), **norm_constants("n", 4)}
        constants["n_mean"] = constants["n_mean"] + 5
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            *before,
            helper.make_node("BatchNormalization", [data, *(f"n_{part}" for part in PARTS)], outputs, **attributes),
            helper.make_node("Conv", ["n", "v"], ["y"]),
        ]
        return graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 2, 6, 6]}, constants, opset=opset)

    return make


def by_batch_statistics(values, constants):
    """What BatchNormalization gives in training mode, out of its definition."""
    mean, var = values.mean((0, 2, 3), keepdims=True), values.var((0, 2, 3), keepdims=True)
    scale, shift = (constants[f"n_{part}"].reshape(1, -1, 1, 1) for part in ("scale", "shift"))
    return (values - mean) / np.sqrt(var + 1e-5) * scale + shift


@pytest.mark.parametrize("opset", [14, 15, 17])
def test_in_training_mode_it_stays_with_the_statistics_of_the_batch(normalised, norm_constants, random, opset):
    proto = normalised(opset=opset, outputs=IN_TRAINING, training_mode=1)
    x = random(4, 3, 8, 8)
    nodes = assert_preparation_keeps(proto, {"x": x})
    assert [node.op_type for node in nodes] == ["Conv", "BatchNormalization", "Conv"]
    assert is_in_training(nodes[1])
    values = run_exactly(proto, {"x": x}, also=["c", "n"])
    np.testing.assert_allclose(values["n"], by_batch_statistics(values["c"], norm_constants("n", 4)), atol=1e-4)
    assert int8_db(proto, {"x": x}) > 30


@pytest.mark.parametrize(("opset", "attributes"), [(9, {}), (13, {}), (14, {}), (15, {"training_mode": 0})])
def test_in_inference_it_is_folded_in_every_opset(normalised, random, opset, attributes):
    proto = normalised(opset=opset, **attributes)
    nodes = assert_preparation_keeps(proto, {"x": random(4, 3, 8, 8)})
    assert [node.op_type for node in nodes] == ["Conv", "Conv"]


def test_in_training_mode_behind_a_bias_it_stays_too(normalised, graph_of, random):
    bias = helper.make_node("Add", ["c", "n_shift_column"], ["b"])
    proto = normalised(opset=15, before=[bias], data="b", outputs=IN_TRAINING, training_mode=1)
    column = onnx.numpy_helper.from_array(random(4, 1, 1, seed=9), "n_shift_column")
    proto.graph.initializer.append(column)
    assert fold_batch_norm(GraphEditor(proto)) == 0
    assert_preparation_keeps(proto, {"x": random(4, 3, 8, 8)})


def test_statistics_of_each_pixel_are_not_folded(graph_of, random):
    """spatial = 0, until opset 8: a mean and a variance for each value of an image, not for each channel."""
    parts = {f"n_{part}": np.abs(random(4, 6, 6, seed=i)) + 0.5 for i, part in enumerate(PARTS)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *parts], ["y"], spatial=0),
    ]
    constants = {"w": random(4, 3, 3, 3, seed=1), **parts}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 4, 6, 6]}, constants, opset=7)
    editor = GraphEditor(proto)
    assert fold_batch_norm(editor) == 0
    split_batch_norm(editor)
    assert [node.op_type for node in editor.nodes] == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("shape", [["N", 4], ["N", 4, 5], ["N", 4, 5, 5], ["N", 4, 2, 5, 5]])
def test_without_a_convolution_it_becomes_a_product_and_a_sum_of_each_channel(graph_of, random, norm_constants, shape):
    node = helper.make_node("BatchNormalization", ["x", *(f"n_{part}" for part in PARTS)], ["y"], epsilon=0.01)
    proto = graph_of([node], {"x": shape}, {"y": shape}, norm_constants("n", 4))
    editor = GraphEditor(proto)
    split_batch_norm(editor)
    split = editor.model()
    onnx.checker.check_model(split, full_check=True)
    assert [node.op_type for node in split.graph.node] == ["Mul", "Add"]
    x = random(3, *shape[1:])
    np.testing.assert_allclose(run_exactly(split, {"x": x})["y"], run_exactly(proto, {"x": x})["y"], atol=1e-5)


def test_half_precision_keeps_the_statistics_of_the_batch_and_a_variance_that_is_no_half(normalised, random):
    x = random(4, 3, 8, 8)
    training = normalised(opset=15, outputs=IN_TRAINING, training_mode=1)
    small = normalised(opset=15)
    for tensor in small.graph.initializer:
        if tensor.name in ("n_var", "n_scale"):  # 1e-9 is 0 as a half; the factor made of both is ordinary
            value = 1e-9 if tensor.name == "n_var" else 1e-4
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, value, np.float32), tensor.name))
    for node in small.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(helper.make_attribute("epsilon", 1e-12))
    for proto in (training, small):
        found = run_exactly(half_model(proto), {"x": x})["y"]
        assert sqnr_db(found, run_exactly(proto, {"x": x})["y"]) > 45  # 11 bits are 66 dB at best


def test_two_in_a_row_are_folded_both(graph_of, random, norm_constants):
    def norm(data, result):
        return helper.make_node("BatchNormalization", [data, *(f"n_{part}" for part in PARTS)], [result])

    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), norm("c", "n1"), norm("n1", "y")]
    constants = {"w": random(4, 3, 1, 1), **norm_constants("n", 4)}
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 4, 4, 4]}, constants)
    (conv,) = assert_preparation_keeps(proto, {"x": random(2, 3, 4, 4)})
    assert (conv.op_type, conv.output[0]) == ("Conv", "y")
