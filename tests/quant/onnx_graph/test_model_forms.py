"""Models in forms that ONNX Runtime runs and few tools read: old IRs, local functions, sparse weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.errors import ModelError
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.model import load_model
from quant.qdq.float_products import products_left_float
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import quantizable_tensors
from tests.int8_oracle import amax_of, assert_preparation_keeps, int8_db, int8_of, run_exactly

n = helper.make_node


@pytest.fixture
def two_layers(graph_of, random):
    """conv, relu, then a product of what is left."""

    def make(opset=8):
        nodes = [
            n("Conv", ["x", "w"], ["c"]),
            n("Relu", ["c"], ["r"]),
            n("GlobalAveragePool", ["r"], ["p"]),
            n("Flatten", ["p"], ["f"]),
            n("Gemm", ["f", "v", "b"], ["y"], transB=1),
        ]
        constants = {"w": random(4, 3, 3, 3, seed=1), "v": random(5, 4, seed=2), "b": random(5, seed=3)}
        return graph_of(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 5]}, constants, opset=opset)

    return make


def with_initializers_as_inputs(proto):
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto


@pytest.mark.parametrize("opset", [7, 8, 9])
@pytest.mark.parametrize("as_inputs", [True, False])
def test_models_of_ir_3_are_read_and_what_is_made_of_them_is_valid(
    saved, two_layers, random, tmp_path, opset, as_inputs
):
    proto = with_initializers_as_inputs(two_layers(opset)) if as_inputs else two_layers(opset)
    proto.ir_version = 3
    model = saved(proto)
    assert [info.name for info in model.inputs] == ["x"]
    inputs = {"x": random(8, 3, 6, 6)}
    assert_preparation_keeps(model.proto, inputs)
    assert int8_db(model.proto, inputs) > 28
    for made in (int8_of(model.proto, inputs), half_model(model.proto)):
        onnx.checker.check_model(made, full_check=True)
        again = saved(made, "made.onnx")  # our own file is read again, without mending
        assert [info.name for info in again.inputs] == ["x"]
        assert again.proto.ir_version >= 4


def test_an_input_without_a_shape_is_read_as_one(saved, two_layers, random):
    """ONNX's checker asks for the shape of an input; ONNX Runtime does not."""
    proto = two_layers(13)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    model = saved(proto)
    assert [(info.name, info.shape) for info in model.inputs] == [("x", ())]
    assert amax_of(model.proto, {"x": random(2, 3, 6, 6)}).keys() == {"x", "f"}


def test_what_onnx_runtime_does_not_run_either_is_refused(saved, two_layers):
    proto = two_layers(13)
    proto.ir_version = 3
    proto.graph.node[0].input[1] = "nowhere"
    with pytest.raises(ModelError, match=r"not a valid ONNX model: .*; export it again"):
        saved(proto)


def function(name, nodes, inputs, outputs, *, uses=False):
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid("my.own", 1)] if uses else [])]
    return helper.make_function("my.own", name, inputs, outputs, nodes, imports)


@pytest.fixture
def of_functions(graph_of, random):
    """A block of two convolutions that calls a block of one, twice; nothing but functions in the graph itself."""
    block = function("Block", [n("Conv", ["d", "k"], ["t"]), n("Relu", ["t"], ["e"])], ["d", "k"], ["e"])
    pair = function(
        "Pair",
        [n("Block", ["d", "k"], ["t"], domain="my.own"), n("Conv", ["t", "k"], ["e"])],
        ["d", "k"],
        ["e"],
        uses=True,
    )
    nodes = [n("Pair", ["x", "w"], ["h"], domain="my.own"), n("Pair", ["h", "v"], ["y"], domain="my.own")]
    constants = {"w": random(3, 3, 1, 1, seed=1), "v": random(3, 3, 1, 1, seed=2)}
    proto = graph_of(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 3, 6, 6]}, constants)
    proto.opset_import.append(helper.make_opsetid("my.own", 1))
    proto.functions.extend([block, pair])
    return proto


def test_products_in_local_functions_within_functions_are_quantized(saved, of_functions, random):
    model = saved(of_functions)
    inputs = {"x": random(4, 3, 6, 6)}
    expected = run_exactly(of_functions, inputs)["y"]
    np.testing.assert_allclose(run_exactly(model.proto, inputs)["y"], expected, rtol=1e-5, atol=1e-5)
    editor = prepared_for_quantization(model.proto)
    left = products_left_float(editor)
    assert (left.products, left.reasons.total()) == (4, 0)
    quantized = int8_of(model.proto, inputs)
    pairs = [node.op_type for node in quantized.graph.node].count("QuantizeLinear")
    assert pairs == len(quantizable_tensors(model.proto)) == 4
    assert int8_db(model.proto, inputs) > 28
    onnx.checker.check_model(half_model(model.proto), full_check=True)


def test_a_function_with_a_branch_inside_is_read_too(saved, graph_of, random):
    def branch(op_type):
        return helper.make_graph(
            [n(op_type, ["d"], [op_type])],
            op_type,
            [],
            [helper.make_tensor_value_info(op_type, TensorProto.FLOAT, None)],
        )

    nodes = [
        n("If", ["on"], ["t"], then_branch=branch("Relu"), else_branch=branch("Tanh")),
        n("MatMul", ["t", "k"], ["e"]),
    ]
    call = n("Either", ["x", "w", "flag"], ["y"], domain="my.own")
    proto = graph_of([call], {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": random(4, 4), "flag": np.array(True)})
    proto.opset_import.append(helper.make_opsetid("my.own", 1))
    proto.functions.append(function("Either", nodes, ["d", "k", "on"], ["e"]))
    model = saved(proto)
    inputs = {"x": random(16, 4, seed=1)}
    np.testing.assert_allclose(
        run_exactly(model.proto, inputs)["y"], np.maximum(inputs["x"], 0) @ random(4, 4), rtol=1e-5, atol=1e-5
    )
    assert len(quantizable_tensors(model.proto)) == 1
    assert int8_db(model.proto, inputs) > 28


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers_are_weights_as_others_are(saved, graph_of, random, flat):
    dense = random(8, 6) * (random(8, 6, seed=1) > 0.5)
    places = np.flatnonzero(dense) if flat else np.argwhere(dense)
    values = numpy_helper.from_array(dense[dense != 0], "sw")
    nodes = [n("MatMul", ["x", "sw"], ["h"]), n("Relu", ["h"], ["r"]), n("MatMul", ["r", "w"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 8]}, {"y": ["N", 3]}, {"w": random(6, 3, seed=2)})
    index = numpy_helper.from_array(places.astype(np.int64), "sw_places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, index, [8, 6]))
    model = saved(proto)
    inputs = {"x": random(16, 8, seed=3)}
    expected = np.maximum(inputs["x"] @ dense, 0) @ random(6, 3, seed=2)
    np.testing.assert_allclose(run_exactly(model.proto, inputs)["y"], expected, rtol=1e-4, atol=1e-5)
    assert quantizable_tensors(model.proto) == ["x", "r"]
    assert int8_db(model.proto, inputs) > 28


@pytest.mark.parametrize("depth", [0, 1])
def test_what_onnx_runtime_saved_for_one_machine_is_refused_with_the_cure(tmp_path, graph_of, depth):
    node = n("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc")
    for _ in range(depth):
        inner = helper.make_graph([node], "inner", [], [helper.make_tensor_value_info("y", 1, None)])
        node = n("If", ["flag"], ["z"], then_branch=inner, else_branch=inner)
    constants = {"w": np.ones((8, 8, 1, 1), np.float32), "flag": np.array(True)}
    proto = graph_of([node], {"x": ["N", 8, 4, 4]}, {node.output[0]: None}, constants)
    proto.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(
        ModelError, match=r"found one that ONNX Runtime saved after optimizing it .*give the model before"
    ):
        load_model(tmp_path / "model.onnx")
