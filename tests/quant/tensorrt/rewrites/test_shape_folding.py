"""Shape arithmetic that is computed in advance."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.rewrites.shape_folding import with_shapes_folded


def fixed(proto, batch=5):
    return prepared_proto(proto, BatchRange(batch, batch, batch), "model")


def kinds(proto):
    return Counter(node.op_type for node in proto.graph.node)


def test_fixed_sizes_leave_no_arithmetic_on_shapes_and_the_same_answers(transformer, run_onnx, random):
    folded = with_shapes_folded(fixed(transformer))
    onnx.checker.check_model(folded, full_check=True)
    gone = {"Shape", "Gather", "Unsqueeze", "Concat", "Cast", "Pow"}
    assert not gone & set(kinds(folded))
    assert gone < set(kinds(transformer))
    rest = kinds(transformer)
    assert kinds(folded) == {kind: count for kind, count in rest.items() if kind not in gone}
    x = random(5, 16, 64, seed=9)
    np.testing.assert_array_equal(run_onnx(folded, x=x)[0], run_onnx(transformer, x=x)[0])


def test_sizes_that_depend_on_the_batch_stay(transformer, run_onnx, random):
    folded = with_shapes_folded(transformer)
    assert {"Shape", "Gather", "Concat"} <= set(kinds(folded))
    for batch in (1, 3):
        x = random(batch, 16, 64, seed=batch)
        np.testing.assert_allclose(run_onnx(folded, x=x)[0], run_onnx(transformer, x=x)[0], rtol=1e-6)


def test_the_model_that_was_given_is_not_edited(transformer):
    given = fixed(transformer)
    before = given.SerializeToString()
    with_shapes_folded(given)
    assert given.SerializeToString() == before


def test_part_of_a_shape_and_a_shape_that_the_model_gives(graph_of):
    nodes = [
        helper.make_node("Shape", ["x"], ["whole"]),
        helper.make_node("Shape", ["x"], ["last"], start=-2),
        helper.make_node("Cast", ["last"], ["sizes"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["x", "sizes"], ["y"]),
    ]
    outputs = {"y": [2, 3, 2], "whole": [3]}
    proto = graph_of(nodes, {"x": [2, 3, 2]}, outputs, kinds={"whole": onnx.TensorProto.INT64})
    folded = with_shapes_folded(proto)
    assert kinds(folded) == {"Shape": 1, "Add": 1}  # an output of the model keeps its node
    (constant,) = folded.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(constant), [3, 2])


def reshaped(graph_of, outputs):
    """[N, 2, 3] to [N, 6] by the shape of a tensor that is an output as well."""
    nodes = [
        helper.make_node("Relu", ["x"], ["feature"]),
        helper.make_node("Shape", ["feature"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["feature", "target"], ["y"]),
    ]
    return graph_of(nodes, {"x": ["N", 2, 3]}, outputs, {"first": np.array([0]), "rest": np.array([-1])})


@pytest.mark.parametrize("declared", [1, -1, "N"])
def test_sizes_that_the_model_declares_for_its_outputs_are_not_believed(graph_of, run_onnx, random, declared):
    proto = reshaped(graph_of, {"y": [declared, 6], "feature": [declared, 2, 3]})
    folded = with_shapes_folded(fixed(proto))
    assert kinds(folded) == {"Relu": 1, "Reshape": 1}
    assert run_onnx(folded, x=random(5, 2, 3))[0].shape == (5, 6)


def test_a_class_token_is_repeated_for_the_batch_once(graph_of, run_onnx, random):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("ConstantOfShape", ["rank"], ["ones"], value=onnx.numpy_helper.from_array(np.array([1]))),
        helper.make_node("Mul", ["target", "ones"], ["wanted"]),
        helper.make_node("Expand", ["token", "wanted"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["y"], axis=1),
    ]
    constants = {"first": np.array([0]), "rest": np.array([1, 4]), "rank": np.array([3]), "token": random(1, 1, 4)}
    proto = graph_of(nodes, {"x": ["N", 3, 4]}, {"y": ["N", 4, 4]}, constants)
    folded = with_shapes_folded(fixed(proto))
    assert kinds(folded) == {"Concat": 1}
    x = random(5, 3, 4, seed=2)
    np.testing.assert_array_equal(run_onnx(folded, x=x)[0], run_onnx(proto, x=x)[0])


def test_constants_are_not_repeated_to_any_size(graph_of):
    nodes = [helper.make_node("Expand", ["one", "wanted"], ["many"]), helper.make_node("Add", ["x", "many"], ["y"])]
    constants = {"one": np.ones(1, np.float32), "wanted": np.array([4096, 4096])}
    proto = graph_of(nodes, {"x": [4096, 4096]}, {"y": [4096, 4096]}, constants)
    assert kinds(with_shapes_folded(proto)) == {"Expand": 1, "Add": 1}
