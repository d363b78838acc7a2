"""Models apart from their weights: what ONNX Runtime makes of them is what it makes of the whole model."""

import gc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.errors import BuildError
from quant.onnx_graph.light_model import bytes_of_constants, light_model, whole_model, with_weights_as_inputs
from quant.onnxruntime.session import OnnxRuntimeSession

LARGE, SMALL = (40, 40), (4, 40)  # 1,600 values are taken out, 160 are not


@pytest.fixture
def two_products(graph_of, random):
    """A product with large constants of type `dtype`, cast to float32, then one with small float32 ones."""

    def make(dtype=np.float32):
        large = (random(*LARGE, seed=1) * 20).astype(dtype)
        nodes = [
            helper.make_node("Cast", ["large"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "floats"], ["wide"]),
            helper.make_node("MatMul", ["wide", "narrowing"], ["y"]),
        ]
        constants = {"large": large, "narrowing": random(*SMALL, seed=2).T.copy()}
        return graph_of(nodes, {"x": ["N", 40]}, {"y": ["N", 4]}, constants)

    return make


def test_large_constants_are_taken_out_and_nothing_else(two_products):
    proto = two_products()
    before = proto.SerializeToString()
    light = light_model(proto)
    assert light.weights.keys() == {"large"}
    assert [len(tensor.raw_data) for tensor in light.proto.graph.initializer] == [0, 640]
    assert light.proto.ByteSize() < 2000
    assert bytes_of_constants(proto) == bytes_of_constants(light.proto) == 4 * (1600 + 160)
    assert proto.SerializeToString() == before == whole_model(light).SerializeToString()
    assert light_model(light) is light
    as_inputs = with_weights_as_inputs(proto).graph
    assert [tensor.name for tensor in as_inputs.initializer] == ["narrowing"]
    assert [value.name for value in as_inputs.input] == ["x", "large"]
    assert list(as_inputs.node) == list(proto.graph.node)


def test_weights_in_constant_nodes_count_too(two_products):
    proto = two_products()
    before = bytes_of_constants(proto)
    (large,) = (tensor for tensor in proto.graph.initializer if tensor.name == "large")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["large"], value=large))
    proto.graph.initializer.remove(large)
    assert bytes_of_constants(proto) == before


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.int32, np.uint8])
def test_a_session_gives_what_one_of_the_whole_model_gives(two_products, run_onnx, random, dtype):
    proto = two_products(dtype)
    x = random(3, 40)
    (expected,) = run_onnx(proto, x=x)
    session = OnnxRuntimeSession(proto, optimize=False)
    del proto
    gc.collect()
    for _ in range(2):  # what the session reads must still be there
        np.testing.assert_array_equal(session.run({"x": x})[0], expected)


def test_weights_that_do_not_lie_as_raw_bytes_are_taken_out_too(two_products, run_onnx, random):
    proto = two_products()
    values = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("large", TensorProto.FLOAT, LARGE, values.ravel().tolist()))
    np.testing.assert_array_equal(light_model(proto).weights["large"], values)
    x = random(3, 40)
    np.testing.assert_allclose(OnnxRuntimeSession(proto).run({"x": x})[0], run_onnx(proto, x=x)[0], rtol=1e-4)


def test_a_constant_that_a_caller_may_replace_can_be_replaced(two_products, random):
    proto = two_products()
    proto.graph.input.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, LARGE))
    session = OnnxRuntimeSession(proto)
    replaced = session.run({"x": random(3, 40), "large": np.zeros(LARGE, np.float32)})[0]
    np.testing.assert_array_equal(replaced, np.zeros((3, 4)))


def test_weights_that_nothing_reads_do_no_harm(two_products, run_onnx, random):
    proto = two_products()
    proto.graph.initializer.append(numpy_helper.from_array(random(*LARGE), "unused"))
    x = random(3, 40)
    np.testing.assert_allclose(OnnxRuntimeSession(proto).run({"x": x})[0], run_onnx(proto, x=x)[0], rtol=1e-4)


def test_weights_that_a_branch_reads_are_found(graph_of, run_onnx, random):
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", name], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["N", 40])],
        )
        for name in ("then", "else")
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], **branches),
    ]
    weights = {"then": random(*LARGE, seed=1), "else": random(*LARGE, seed=2), "zero": np.float32(0)}
    proto = graph_of(nodes, {"x": ["N", 40]}, {"y": ["N", 40]}, weights)
    assert light_model(proto).weights.keys() == {"then", "else"}
    for x in (np.ones((3, 40), np.float32), -np.ones((3, 40), np.float32)):
        np.testing.assert_allclose(OnnxRuntimeSession(proto).run({"x": x})[0], run_onnx(proto, x=x)[0], rtol=1e-4)


def test_more_tensors_are_given_on_request_each_once(two_products, random):
    session = OnnxRuntimeSession(two_products(), also=["wide", "y"])
    assert session.outputs == ["y", "wide"]
    assert [array.shape for array in session.run({"x": random(3, 40)})] == [(3, 4), (3, 40)]


def test_weights_of_a_wrong_size_are_one_line(two_products):
    proto = onnx.ModelProto()
    proto.CopyFrom(two_products())
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    with pytest.raises(BuildError, match="it: ONNX Runtime cannot load it: ") as caught:
        OnnxRuntimeSession(proto, name="it")
    assert "\n" not in str(caught.value)
