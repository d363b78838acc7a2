"""Batches that a graph does not take at once, and outputs without an axis for images."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from quant.errors import ModelError
from quant.onnxruntime.session import OnnxRuntimeSession

n = helper.make_node


@pytest.fixture
def baked(graph_of, random):
    """Any batch is declared, and a shape inside holds for `images` at a time alone: y = 2 x."""

    def make(images=1, op_type="Reshape"):
        shape = np.array([images, 6])
        constants = {"to": shape, "two": np.full((images, 6), 2, np.float32)}
        nodes = [n("Reshape", ["x", "to"], ["r"]), n("Mul", ["r", "two"], ["y"])]
        return graph_of(nodes, {"x": ["N", 2, 3]}, {"y": ["N", 6]}, constants)

    return make


def test_a_graph_with_a_shape_for_one_image_is_run_image_by_image(baked, random):
    session = OnnxRuntimeSession(baked())
    for size in (1, 4, 7):
        x = random(size, 2, 3)
        (found,) = session.run({"x": x})
        np.testing.assert_array_equal(found, 2 * x.reshape(size, 6))
    assert session.fixed_batch == 1  # it is not tried again each time


def test_a_graph_that_takes_no_single_image_says_what_onnx_runtime_says(baked, random):
    with pytest.raises(ModelError, match="ONNX Runtime cannot run it: ") as caught:
        OnnxRuntimeSession(baked(images=3)).run({"x": random(4, 2, 3)})
    assert "\n" not in str(caught.value)


def test_written_into_arrays_too_it_goes_image_by_image(baked, random):
    session = OnnxRuntimeSession(baked())
    outputs = {"y": np.zeros((4, 6), np.float32)}
    for seed in range(2):
        x = random(4, 2, 3, seed=seed)
        session.run_into({"x": x}, outputs)
        np.testing.assert_array_equal(outputs["y"], 2 * x.reshape(4, 6))


@pytest.fixture
def single(graph_of):
    """Batch 1, and outputs as such graphs give them: scores without the batch, a scalar, time before the batch."""
    nodes = [
        n("Squeeze", ["x", "first"], ["vector"]),
        n("ReduceSum", ["x"], ["sum"], keepdims=0),
        n("Unsqueeze", ["x", "first"], ["later"]),
        n("Transpose", ["x"], ["columns"]),
        n("NonZero", ["x"], ["places"]),
        n("Transpose", ["places"], ["found"]),
        n("Compress", ["x", "keep"], ["kept"], axis=1),
        n("Greater", ["vector", "zero"], ["keep"]),
    ]
    nodes.insert(6, nodes.pop())
    outputs = {"vector": [3], "sum": [], "later": [1, 1, 3], "columns": [3, 1], "found": [None, 2], "kept": [1, None]}
    constants = {"first": np.array([0]), "zero": np.float32(0)}
    return graph_of(nodes, {"x": [1, 3]}, outputs, constants, kinds={"found": TensorProto.INT64})


def test_images_of_a_fixed_batch_of_one_are_joined_where_they_have_an_axis_or_get_one(single, random):
    x = np.abs(random(5, 3)) + 1
    session = OnnxRuntimeSession(single)
    found = dict(zip(session.outputs, session.run({"x": x}), strict=True))
    np.testing.assert_array_equal(found["vector"], x)  # [3] for each image
    np.testing.assert_allclose(found["sum"], x.sum(1), rtol=1e-6)
    np.testing.assert_array_equal(found["columns"], x.T)
    assert found["later"].size == x.size


@pytest.mark.parametrize("size", [1, 4])
def test_results_whose_number_depends_on_the_image_do_not_stop_the_others(single, size):
    x = np.array([[1, 0, 2], [0, 0, 3], [1, 1, 1], [-1, 0, 0]], np.float32)[:size]
    session = OnnxRuntimeSession(single)
    found = dict(zip(session.outputs, session.run({"x": x}), strict=True))
    np.testing.assert_array_equal(found["vector"], x)
    assert found.keys() == {"vector", "sum", "later", "columns", "found", "kept"}


def test_sequences_texts_and_maps_are_given_as_they_come(graph_of, random):
    nodes = [n("SequenceConstruct", ["x", "x"], ["pair"]), n("Identity", ["x"], ["y"])]
    proto = graph_of(nodes, {"x": [1, 3]}, {"y": [1, 3]})
    kind = helper.make_tensor_sequence_value_info("pair", TensorProto.FLOAT, None)
    proto.graph.output.append(kind)
    x = random(3, 3)
    y, pair = OnnxRuntimeSession(proto).run({"x": x})
    np.testing.assert_array_equal(y, x)
    assert [array.tolist() for array in pair] == [row[None].tolist() for row in x.repeat(2, 0)]


def test_a_scalar_of_a_fixed_batch_of_several_images_stays_one(graph_of, random):
    nodes = [n("ReduceMax", ["x"], ["top"], keepdims=0), n("Identity", ["x"], ["y"])]
    x = random(6, 3)
    top, y = OnnxRuntimeSession(graph_of(nodes, {"x": [2, 3]}, {"top": [], "y": [2, 3]})).run({"x": x})
    np.testing.assert_array_equal(y, x)
    assert top.shape == ()
