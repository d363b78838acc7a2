"""Old models are quantized in a later opset: with the same values, and under the names that they came with."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from quant.errors import BuildError
from quant.onnx_graph.opset import converted
from quant.qdq.writer import quantizable_tensors
from tests.int8_oracle import assert_preparation_keeps, int8_db, run_exactly


@pytest.fixture
def between(graph_of, random):
    """Nodes that make `b` out of `a`, between a convolution of x and one that gives y."""

    def make(nodes, constants=None, *, opset):
        weights = {"w1": random(4, 3, 3, 3, seed=1) / 5, "w2": random(4, 4, 3, 3, seed=2) / 6}
        first = helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1] * 4, name="first")
        last = helper.make_node("Conv", ["b", "w2"], ["y"], pads=[1] * 4, name="last")
        sizes = {"x": ["N", 3, 8, 8]}, {"y": ["N", 4, "H", "W"]}
        return graph_of([first, *nodes, last], *sizes, weights | (constants or {}), opset=opset)

    return make


def resizing(opset, mode, scales):
    """Upsample with sizes as an attribute until 8 and as an input in 9, Resize in 10."""
    if opset < 9:
        return [helper.make_node("Upsample", ["a"], ["b"], mode=mode, scales=scales)], {}
    op_type = "Upsample" if opset == 9 else "Resize"
    return [helper.make_node(op_type, ["a", "s"], ["b"], mode=mode)], {"s": np.array(scales, np.float32)}


@pytest.mark.parametrize(
    ("opset", "mode", "scales"),
    [
        (7, "linear", [1.0, 1.0, 2.0, 2.0]),
        (8, "nearest", [1.0, 1.0, 2.0, 3.0]),
        (9, "linear", [1.0, 1.0, 2.0, 2.0]),
        (9, "linear", [1.0, 1.0, 1.5, 3.0]),
        (9, "nearest", [1.0, 1.0, 1.7, 2.0]),
        (10, "linear", [1.0, 1.0, 2.0, 2.0]),
        (10, "linear", [1.0, 1.0, 0.6, 0.6]),
        (10, "nearest", [1.0, 1.0, 1.7, 1.7]),
        (10, "nearest", [1.0, 1.0, 0.6, 0.6]),
        (10, "nearest", [1.0, 1.0, 1.0, 0.45]),
    ],
)
def test_pictures_are_resized_as_the_old_operator_does(between, random, opset, mode, scales):
    nodes, constants = resizing(opset, mode, scales)
    proto = between(nodes, constants, opset=opset)
    inputs = {"x": random(2, 3, 8, 8)}
    assert_preparation_keeps(proto, inputs)
    assert quantizable_tensors(proto) == ["x", "b"]
    assert int8_db(proto, inputs) > 30


def test_scales_out_of_a_constant_node_resize_alike(between, random):
    value = helper.make_tensor("value", 1, [4], [1.0, 1.0, 2.0, 2.0])
    nodes = [
        helper.make_node("Constant", [], ["s"], value=value),
        helper.make_node("Resize", ["a", "s"], ["b"], mode="linear"),
    ]
    assert_preparation_keeps(between(nodes, opset=10), {"x": random(2, 3, 8, 8)})


def test_a_resize_of_opset_11_keeps_the_coordinates_that_it_states(between, random):
    for mode in ("half_pixel", "align_corners", "asymmetric"):
        attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
        nodes = [helper.make_node("Resize", ["a", "roi", "s"], ["b"], **attributes)]
        constants = {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}
        proto = between(nodes, constants, opset=11)
        assert_preparation_keeps(proto, {"x": random(2, 3, 8, 8)})


def upsample(source, result):
    return helper.make_node("Upsample", [source, "s"], [result], mode="nearest")


FOUR_OUT = np.array([1, 1, 2, 2], np.float32)
SMALLER = np.array([1, 1, 0.6, 0.6], np.float32)


@pytest.mark.parametrize(
    ("opset", "nodes", "constants", "needed"),
    [
        (9, [upsample("a", "b")], {"s": FOUR_OUT}, ["x", "b"]),
        (9, [upsample("a", "u"), upsample("u", "b")], {"s": FOUR_OUT}, ["x", "b"]),
        (
            9,
            [upsample("a", "u"), helper.make_node("MaxPool", ["u"], ["b"], kernel_shape=[2, 2])],
            {"s": FOUR_OUT},
            None,
        ),
        (9, [helper.make_node("Softmax", ["a"], ["b"], axis=1)], {}, ["x", "b"]),
        (9, [helper.make_node("LogSoftmax", ["a"], ["b"], axis=2)], {}, ["x", "b"]),
        (9, [helper.make_node("Dropout", ["a"], ["b"], ratio=0.5)], {}, None),
        (9, [helper.make_node("Clip", ["a"], ["b"], min=0.0, max=6.0)], {}, ["x", "b"]),
        (9, [helper.make_node("Pad", ["a"], ["b"], pads=[0, 0, 1, 1, 0, 0, 1, 1])], {}, None),
        (9, [helper.make_node("Slice", ["a"], ["b"], starts=[0, 2], ends=[5, 7], axes=[2, 3])], {}, None),
        (
            9,
            [
                helper.make_node("Unsqueeze", ["a"], ["u"], axes=[1]),
                helper.make_node("Squeeze", ["u"], ["b"], axes=[1]),
            ],
            {},
            None,
        ),
        (
            9,
            [
                helper.make_node("Split", ["a"], ["p", "q"], axis=1, split=[1, 3]),
                helper.make_node("Concat", ["q", "p"], ["b"], axis=1),
            ],
            {},
            ["x", "b"],
        ),
        (
            11,
            [
                helper.make_node("ReduceSum", ["a"], ["r"], axes=[2, 3]),
                helper.make_node("Mul", ["a", "r"], ["b"]),
            ],
            {},
            ["x", "b"],
        ),
    ],
)
def test_scales_are_asked_for_by_the_names_of_the_given_model(between, random, opset, nodes, constants, needed):
    proto = between(nodes, constants, opset=opset)
    inputs = {"x": random(2, 3, 8, 8)}
    found = quantizable_tensors(proto)
    assert found == needed if needed else {"x"} < set(found) <= {"x", "a", "u", "b"}
    assert_preparation_keeps(proto, inputs)
    assert int8_db(proto, inputs) > 28


def test_a_resized_tensor_that_several_read_and_that_is_an_output_keeps_its_name(graph_of, random):
    nodes = [
        helper.make_node("Upsample", ["x", "s"], ["u"], mode="linear"),
        helper.make_node("Conv", ["u", "w"], ["y"]),
        helper.make_node("Conv", ["u", "v"], ["z"]),
    ]
    constants = {"s": FOUR_OUT, "w": random(2, 3, 3, 3, seed=1), "v": random(2, 3, 1, 1, seed=2)}
    outputs = {"y": ["N", 2, 14, 14], "z": ["N", 2, 16, 16], "u": ["N", 3, 16, 16]}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, outputs, constants, opset=9)
    assert quantizable_tensors(proto) == ["u"]
    assert_preparation_keeps(proto, {"x": random(2, 3, 8, 8)})


def test_what_a_branch_reads_from_outside_keeps_its_name(graph_of, random):
    """The branches of an If read a resized tensor, that of the graph around them."""

    def branch(op_type):
        node = helper.make_node(op_type, ["u"], [f"by_{op_type}"])
        return helper.make_graph([node], op_type, [], [helper.make_tensor_value_info(f"by_{op_type}", 1, None)])

    nodes = [
        helper.make_node("Upsample", ["x", "s"], ["u"], mode="nearest"),
        helper.make_node("ReduceMax", ["x"], ["peak"], keepdims=0),
        helper.make_node("Greater", ["peak", "zero"], ["flag"]),
        helper.make_node("If", ["flag"], ["b"], then_branch=branch("Relu"), else_branch=branch("Tanh")),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    constants = {"s": FOUR_OUT, "w": random(2, 3, 3, 3, seed=1), "zero": np.float32(0)}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 2, 14, 14]}, constants, opset=9)
    assert quantizable_tensors(proto) == ["b"]
    for sign in (1, -1):
        assert_preparation_keeps(proto, {"x": sign * np.abs(random(2, 3, 8, 8))})


@pytest.mark.parametrize("own", [True, False])
def test_pictures_in_branches_are_resized_as_the_old_operator_does(graph_of, random, own):
    """A branch has its scales as a constant of its own, or reads one of the graph around it."""

    def branch(mode, sizes):
        scales = numpy_helper.from_array(np.array(sizes, np.float32), "t" if own else "unused")
        node = helper.make_node("Resize", ["x", "t" if own else "s"], [mode], mode=mode)
        return helper.make_graph([node], mode, [], [helper.make_tensor_value_info(mode, 1, None)], [scales])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["peak"], keepdims=0),
        helper.make_node("Greater", ["peak", "zero"], ["flag"]),
        helper.make_node(
            "If", ["flag"], ["b"], then_branch=branch("linear", SMALLER), else_branch=branch("nearest", SMALLER)
        ),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    constants = {"s": SMALLER, "w": random(2, 3, 3, 3, seed=1), "zero": np.float32(0)}
    proto = graph_of(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 2, None, None]}, constants, opset=10)
    for sign in (1, -1):
        assert_preparation_keeps(proto, {"x": sign * np.abs(random(2, 3, 8, 8))})


def test_what_cannot_be_converted_is_refused_with_both_opsets(graph_of):
    node = helper.make_node("Affine", ["x"], ["y"], alpha=1.0, beta=1.0)
    with pytest.raises(BuildError, match=r"opset 7 cannot be converted to 13, which INT8 needs .*; export the model"):
        converted(graph_of([node], {"x": [2]}, {"y": [2]}, opset=7), 13)


def test_the_given_model_is_not_edited(between):
    nodes, constants = resizing(9, "linear", [1.0, 1.0, 2.0, 2.0])
    proto = between(nodes, constants, opset=9)
    before = proto.SerializeToString()
    result = converted(proto, 13).proto
    assert proto.SerializeToString() == before
    x = np.ones((1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(run_exactly(result, {"x": x})["y"], run_exactly(proto, {"x": x})["y"], rtol=1e-5)
