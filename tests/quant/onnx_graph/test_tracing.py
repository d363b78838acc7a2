"""Names in branches and loops: legal where they repeat, taken for new ones, and made unique for tools that need it."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.tracing import inner_graphs, names_read, outputs_after, with_unique_inner_names
from tests.int8_oracle import assert_preparation_keeps, int8_db, int8_of, run_exactly, sqnr_db

n = helper.make_node


def graph(nodes, inputs, outputs, constants=None):
    """A branch or the body of a loop: inputs and outputs with their types, shapes left open."""
    return helper.make_graph(
        nodes,
        "inner",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )


def branch(factor, result="r", extra=()):
    """r = factor times the 1x1 convolution of the outer `c`, with names that the other branch has too."""
    nodes = [n("Conv", ["c", "k"], ["t"], name="inside"), n("Mul", ["t", "f"], [result], name="scaled"), *extra]
    kernel = np.random.default_rng(7).normal(size=(4, 4, 1, 1)).astype(np.float32) * factor
    constants = {"k": kernel, "f": np.array([factor], np.float32)}
    return graph(nodes, {}, {result: TensorProto.FLOAT}, constants)


def loop_body():
    """Each of three turns convolves the state."""
    nodes = [
        n("Conv", ["state", "k"], ["t"], name="inside"),
        n("Tanh", ["t"], ["next"]),
        n("Identity", ["on"], ["still"]),
    ]
    inputs = {"turn": (TensorProto.INT64, []), "on": (TensorProto.BOOL, []), "state": (TensorProto.FLOAT, None)}
    kernel = np.random.default_rng(8).normal(size=(4, 4, 1, 1)).astype(np.float32)
    return graph(nodes, inputs, {"still": TensorProto.BOOL, "next": TensorProto.FLOAT}, {"k": kernel})


def scan_body():
    """The running sum of the images' rows, each times a matrix."""
    nodes = [n("MatMul", ["row", "k"], ["t"]), n("Add", ["t", "state"], ["next"]), n("Identity", ["next"], ["seen"])]
    inputs = {"state": (TensorProto.FLOAT, None), "row": (TensorProto.FLOAT, None)}
    kernel = np.random.default_rng(9).normal(size=(6, 6)).astype(np.float32) / 3
    return graph(nodes, inputs, {"next": TensorProto.FLOAT, "seen": TensorProto.FLOAT}, {"k": kernel})


def nested_branch(factor):
    inner = n("If", ["flag"], ["r"], then_branch=branch(factor), else_branch=branch(-factor))
    return graph([inner], {}, {"r": TensorProto.FLOAT})


@pytest.fixture
def with_inner(graph_of, random):
    """conv, what has graphs inside, conv."""

    def make(*nodes, constants=None):
        flag = [n("ReduceMean", ["x"], ["mean"], keepdims=0), n("Greater", ["mean", "zero"], ["flag"])]
        first = n("Conv", ["x", "w"], ["c"], name="first")
        last = n("Conv", ["inner", "v"], ["y"], name="last")
        given = {"w": random(4, 3, 3, 3, seed=1) / 5, "v": random(2, 4, 1, 1, seed=2), "zero": np.float32(0)}
        given |= constants or {}
        return graph_of([*flag, first, *nodes, last], {"x": ["N", 3, 8, 8]}, {"y": ["N", 2, "H", "W"]}, given)

    return make


@pytest.fixture
def forms(with_inner):
    """Models with graphs inside, by what they are."""
    turns = {"three": np.array(3), "true": np.array(True)}
    scan = n("Scan", ["start", "rows"], ["total", "seen"], body=scan_body(), num_scan_inputs=1)
    return {
        "if": with_inner(n("If", ["flag"], ["inner"], then_branch=branch(1.0), else_branch=branch(0.5))),
        "nested": with_inner(
            n("If", ["flag"], ["inner"], then_branch=nested_branch(1.0), else_branch=nested_branch(0.5))
        ),
        "loop": with_inner(n("Loop", ["three", "true", "c"], ["inner"], body=loop_body()), constants=turns),
        "scan": with_inner(
            n("Transpose", ["c"], ["rows"], perm=[2, 0, 1, 3]),
            scan,
            n("Transpose", ["seen"], ["inner"], perm=[1, 2, 0, 3]),
            constants={"start": np.zeros((1, 4, 6), np.float32)},
        ),
    }


FORMS = ("if", "nested", "loop", "scan")


def both_signs(random, images=4):
    return [{"x": sign * np.abs(random(images, 3, 8, 8))} for sign in (1, -1)]


@pytest.mark.parametrize("form", FORMS)
def test_models_with_graphs_inside_are_quantized_around_them(forms, random, form):
    images = 1 if form == "scan" else 4  # its state is that of one image
    for inputs in both_signs(random, images):
        assert_preparation_keeps(forms[form], inputs)
        assert int8_db(forms[form], inputs) > 28


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_takes_graphs_inside_with_equal_names(forms, random, form):
    half = half_model(forms[form])
    onnx.checker.check_model(half)
    for inputs in both_signs(random, 1 if form == "scan" else 4):
        expected = run_exactly(forms[form], inputs)["y"]
        assert 45 < sqnr_db(run_exactly(half, inputs)["y"], expected) < 100  # 11 bits; it is not FP32


def all_made(of):
    """What a graph and those inside it make, once for each time."""
    yield from (value.name for value in (*of.input, *of.initializer))
    for node in of.node:
        yield from node.output
        for inner in inner_graphs(node):
            yield from all_made(inner)


@pytest.mark.parametrize("form", FORMS)
def test_names_inside_become_unique_and_the_model_stays_itself(forms, random, form):
    proto = forms[form]
    before = proto.SerializeToString()
    unique = with_unique_inner_names(proto)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(unique, full_check=True)
    assert max(Counter(all_made(unique.graph)).values()) == 1
    assert list(unique.graph.node[-1].output) == ["y"]
    for inputs in both_signs(random, 1 if form == "scan" else 4):
        np.testing.assert_array_equal(run_exactly(unique, inputs)["y"], run_exactly(proto, inputs)["y"])


@pytest.mark.parametrize("depth", [1, 2])
def test_names_that_only_a_branch_has_are_taken(with_inner, random, depth):
    """The names that a pair would get stand in a branch: of a tensor, of a constant, of a node."""
    extra = [n("Neg", ["t"], ["x_scale"]), n("Abs", ["t"], ["c_dead"], name="x_quantized")]
    inside = branch(1.0, extra=extra)
    inside.initializer.append(numpy_helper.from_array(np.array([1], np.float32), "x_zero_point"))
    for _ in range(depth - 1):
        node = n("If", ["flag"], ["r"], then_branch=inside, else_branch=branch(2.0))
        inside = graph([node], {}, {"r": TensorProto.FLOAT})
    proto = with_inner(n("If", ["flag"], ["inner"], then_branch=inside, else_branch=branch(0.5)))
    editor = GraphEditor(proto)
    for name in ("x_scale", "x_zero_point", "x_quantized"):
        assert editor.fresh_name(name) == f"{name}_1"
    for inputs in both_signs(random):
        made = Counter(name for name in all_made(int8_of(proto, inputs).graph) if name.startswith("x_"))
        assert max(made.values()) == 1
        assert int8_db(proto, inputs) > 28


def test_what_a_node_reads_is_known_through_all_its_graphs():
    node = n("If", ["flag"], ["y"], then_branch=nested_branch(1.0), else_branch=branch(2.0))
    assert {"flag", "c", "k", "f"} <= set(names_read(node))


def test_outputs_are_followed_to_what_gives_their_values(graph_of):
    nodes = [
        n("Sigmoid", ["x"], ["s"]),
        n("Reshape", ["s", "to"], ["r"]),
        n("Cast", ["r"], ["direct"], to=TensorProto.FLOAT),
        n("Neg", ["s"], ["changed"]),
        n("Relu", ["x"], ["other"]),
    ]
    outputs = dict.fromkeys(("direct", "changed", "other", "s"))
    proto = graph_of(nodes, {"x": ["N", 2]}, outputs, {"to": np.array([-1, 2])})
    assert outputs_after(proto, "Sigmoid") == {"direct", "s"}
