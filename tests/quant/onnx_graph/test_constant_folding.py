"""What depends on constants alone is computed once, as ONNX Runtime computes it; what is no tensor stays."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.onnx_graph import constant_folding
from quant.onnx_graph.editor import GraphEditor
from quant.qdq.writer import quantizable_tensors
from tests.int8_oracle import assert_preparation_keeps, int8_db, run_exactly

n = helper.make_node


@pytest.fixture
def weighted(graph_of, random):
    """y = x times the matrix `m` [4, 4], which nodes make out of constants."""

    def make(nodes, constants, *, opset=17):
        product = n("MatMul", ["x", "m"], ["y"], name="product")
        return graph_of([*nodes, product], {"x": ["N", 4]}, {"y": ["N", 4]}, constants, opset=opset)

    return make


def matrix(seed):
    return np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)


GRID = np.random.default_rng(3).uniform(-1.2, 1.2, size=(1, 4, 4, 2)).astype(np.float32)
PLANE = matrix(4).reshape(1, 1, 4, 4)
SQUARE = np.array([4, 4])


@pytest.mark.parametrize(
    ("opset", "nodes", "constants"),
    [
        (16, [n("GridSample", ["p", "g"], ["s"], mode="bilinear"), n("Reshape", ["s", "to"], ["m"])], "pg"),
        (16, [n("GridSample", ["p", "g"], ["s"], mode="bicubic"), n("Reshape", ["s", "to"], ["m"])], "pg"),
        (16, [n("GridSample", ["p", "g"], ["s"], padding_mode="reflection"), n("Reshape", ["s", "to"], ["m"])], "pg"),
        (17, [n("LpNormalization", ["w"], ["m"], p=1, axis=0)], "w"),
        (17, [n("LpNormalization", ["w"], ["m"], p=2, axis=1)], "w"),
        (13, [n("Hardmax", ["w"], ["h"], axis=0), n("Mul", ["h", "w"], ["m"])], "w"),
        (17, [n("Celu", ["w"], ["m"], alpha=0.5)], "w"),
        (17, [n("CumSum", ["w", "axis"], ["m"], exclusive=1, reverse=1)], "w"),
    ],
)
def test_weights_that_are_computed_are_those_that_onnx_runtime_computes(weighted, random, opset, nodes, constants):
    known = {"p": PLANE, "g": GRID, "w": matrix(5)}
    given = {name: known[name] for name in constants} | {"to": SQUARE, "axis": np.array(1)}
    read = {name for node in nodes for name in node.input}
    proto = weighted(nodes, {name: value for name, value in given.items() if name in read}, opset=opset)
    inputs = {"x": random(16, 4)}
    (left,) = assert_preparation_keeps(proto, inputs)
    assert left.op_type == "MatMul"
    np.testing.assert_array_equal(GraphEditor(proto).constants["m"], run_exactly(proto, inputs, also=["m"])["m"])
    assert quantizable_tensors(proto) == ["x"]
    assert int8_db(proto, inputs) > 30


@pytest.mark.parametrize(
    "nodes",
    [
        [n("SequenceConstruct", ["w", "w"], ["s"]), n("ConcatFromSequence", ["s"], ["both"], axis=0)],
        [
            n("SequenceEmpty", [], ["none"]),
            n("SequenceInsert", ["none", "w"], ["one"]),
            n("SequenceInsert", ["one", "w"], ["s"]),
            n("ConcatFromSequence", ["s"], ["both"], axis=0),
        ],
        [n("SplitToSequence", ["w"], ["s"], axis=0), n("ConcatFromSequence", ["s"], ["both"], axis=0)],
    ],
)
def test_lists_of_tensors_stay_nodes_and_the_model_stays_itself(weighted, random, nodes):
    half = n("Slice", ["both", "from", "to"], ["m"])
    constants = {"w": matrix(1), "from": np.array([0]), "to": np.array([4])}
    proto = weighted([*nodes, half], constants)
    inputs = {"x": random(16, 4)}
    left = assert_preparation_keeps(proto, inputs)
    assert {"SequenceConstruct", "SequenceInsert", "SplitToSequence"} & {node.op_type for node in left}
    assert int8_db(proto, inputs) > 30


def test_a_list_that_begins_empty_takes_activations(graph_of, random):
    nodes = [
        n("SequenceEmpty", [], ["none"]),
        n("MatMul", ["x", "w"], ["p"]),
        n("SequenceInsert", ["none", "p"], ["one"]),
        n("SequenceInsert", ["one", "x"], ["two"]),
        n("ConcatFromSequence", ["two"], ["y"], axis=1),
    ]
    proto = graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 8]}, {"w": matrix(1)})
    inputs = {"x": random(16, 4)}
    assert_preparation_keeps(proto, inputs)
    assert int8_db(proto, inputs) > 30


@pytest.mark.parametrize("flat", [True, False])
def test_a_sparse_constant_is_the_matrix_with_its_zeros(weighted, random, flat):
    """Values 2 and 3 at (0, 1) and (2, 3); places are counted through the matrix, or by row and column."""
    places = np.array([1, 11]) if flat else np.array([[0, 1], [2, 3]])
    values = numpy_helper.from_array(np.array([2, 3], np.float32), "values")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), [4, 4])
    proto = weighted([n("Constant", [], ["m"], sparse_value=sparse)], {})
    expected = np.zeros((4, 4), np.float32)
    expected[0, 1], expected[2, 3] = 2, 3
    editor = GraphEditor(proto)
    np.testing.assert_array_equal(editor.constants["m"], expected)
    folded = editor.model()
    onnx.checker.check_model(folded, full_check=True)
    x = random(16, 4)
    np.testing.assert_allclose(run_exactly(folded, {"x": x})["y"], x @ expected, rtol=1e-6)
    assert quantizable_tensors(proto) == ["x"]


@pytest.mark.parametrize(
    ("attribute", "value", "kind"),
    [("value_float", 1.5, np.float32), ("value_ints", [3, 4], np.int64), ("value_int", 7, np.int64)],
)
def test_constants_out_of_numbers_have_their_type(graph_of, attribute, value, kind):
    nodes = [n("Constant", [], ["c"], **{attribute: value}), n("Shape", ["x"], ["y"])]
    found = GraphEditor(graph_of(nodes, {"x": [2]}, {"y": [1]}, kinds={"y": TensorProto.INT64})).constants["c"]
    assert (found.tolist(), found.dtype) == (value, kind)


@pytest.mark.parametrize("moving", [n("Transpose", ["w"], ["m"]), n("Reshape", ["w", "to"], ["m"])])
def test_large_weights_are_moved_too_so_that_they_need_no_scale(weighted, random, monkeypatch, moving):
    monkeypatch.setattr(constant_folding, "_MAX_FOLDED_VALUES", 8)  # 16 values are large then
    proto = weighted([moving], {"w": matrix(1), "to": SQUARE} if len(moving.input) > 1 else {"w": matrix(1)})
    assert quantizable_tensors(proto) == ["x"]
    assert [node.op_type for node in assert_preparation_keeps(proto, {"x": random(16, 4)})] == ["MatMul"]


def test_constants_that_repeat_values_beyond_measure_stay_nodes(graph_of, random, monkeypatch):
    monkeypatch.setattr(constant_folding, "_MAX_GROWN_VALUES", 8)
    nodes = [n("Expand", ["one", "to"], ["m"]), n("MatMul", ["x", "m"], ["y"])]
    proto = graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"one": np.ones((1, 1), np.float32), "to": SQUARE})
    assert [node.op_type for node in assert_preparation_keeps(proto, {"x": random(3, 4)})] == ["Expand", "MatMul"]


@pytest.mark.parametrize("kind", ["RandomNormal", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"])
def test_random_numbers_are_drawn_in_each_run(graph_of, kind):
    nodes = {
        "Dropout": n(kind, ["w", "ratio", "training"], ["r"]),
        "RandomNormal": n(kind, [], ["r"], shape=[1, 4]),
        "RandomUniformLike": n(kind, ["w"], ["r"]),
        "Bernoulli": n(kind, ["w"], ["r"]),
        "Multinomial": n(kind, ["w"], ["i"], sample_size=4),
    }
    after = [n("Cast", ["i"], ["r"], to=1)] if kind == "Multinomial" else []
    constants = {"w": np.full((1, 4), 0.5, np.float32), "ratio": np.float32(0.5), "training": np.array(True)}
    constants = {name: value for name, value in constants.items() if name in nodes[kind].input}
    proto = graph_of([nodes[kind], *after, n("Add", ["x", "r"], ["y"])], {"x": [1, 4]}, {"y": [1, 4]}, constants)
    assert kind in [node.op_type for node in GraphEditor(proto).nodes]


def test_a_node_that_onnx_runtime_cannot_compute_stays_and_others_are_folded(graph_of):
    """A branch that is never taken holds what fails: five values as a square."""
    nodes = [
        n("Reshape", ["five", "to"], ["never"]),
        n("Neg", ["w"], ["m"]),
        n("MatMul", ["x", "m"], ["y"]),
    ]
    constants = {"five": np.ones(5, np.float32), "to": SQUARE, "w": matrix(1)}
    editor = GraphEditor(graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants))
    assert [node.op_type for node in editor.nodes] == ["Reshape", "MatMul"]
    np.testing.assert_array_equal(editor.constants["m"], -matrix(1))


def test_results_that_a_node_need_not_give_are_folded_with_it(weighted, random):
    """TopK gives places that nothing reads; of Dropout only the values have a name."""
    nodes = [n("TopK", ["w", "k"], ["top", "places"], axis=1), n("Dropout", ["top"], ["m", ""])]
    proto = weighted(nodes, {"w": matrix(1), "k": np.array([4])})
    inputs = {"x": random(16, 4)}
    assert [node.op_type for node in assert_preparation_keeps(proto, inputs)] == ["MatMul"]
    expected = -np.sort(-matrix(1), axis=1)
    np.testing.assert_array_equal(GraphEditor(proto).constants["m"], expected)
