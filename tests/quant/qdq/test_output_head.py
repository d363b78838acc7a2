"""The head by the graph: of nets in the manner of YOLO, of a DETR, with suppression inside; names never matter."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from quant.qdq.output_head import head_nodes
from quant.qdq.placement import Placement
from quant.qdq.writer import qdq_model_from_amax
from tests.qdq_walk import Walk

n = helper.make_node


def detector(graph_of, random, *, tail, outputs, constants=None, kinds=None, opset=17):
    """A body of two convolutions, a branch for boxes and one for scores; `tail` makes outputs of `box` and `cls`."""
    nodes = [
        n("Conv", ["x", "w0"], ["a"]),
        n("Relu", ["a"], ["b"]),
        n("Conv", ["b", "w1"], ["c"]),
        n("Sigmoid", ["c"], ["s"]),
        n("Mul", ["c", "s"], ["d"]),
        n("Conv", ["d", "wb"], ["box"]),
        n("Conv", ["d", "wc"], ["cls"]),
        *tail,
    ]
    weights = {"w0": random(4, 3, 1, 1), "w1": random(4, 4, 1, 1), "wb": random(16, 4, 1, 1), "wc": random(2, 4, 1, 1)}
    return graph_of(nodes, {"x": ["N", 3, 4, 4]}, outputs, {**weights, **(constants or {})}, kinds=kinds, opset=opset)


def dfl(graph_of, random):
    """Boxes of four bins a side, their mean as a convolution with 0, 1, 2, 3; boxes and scores in one tensor."""
    tail = [
        n("Reshape", ["box", "sides"], ["r"]),
        n("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3]),
        n("Softmax", ["t"], ["p"], axis=1),
        n("Conv", ["p", "steps"], ["e"]),
        n("Reshape", ["e", "four"], ["dist"]),
        n("Sub", ["anchors", "dist"], ["lt"]),
        n("Mul", ["lt", "stride"], ["pixels"]),
        n("Reshape", ["cls", "two"], ["logits"]),
        n("Sigmoid", ["logits"], ["score"]),
        n("Concat", ["pixels", "score"], ["y"], axis=1),
    ]
    constants = {
        "sides": np.array([0, 4, 4, 16]),
        "steps": np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1),
        "four": np.array([0, 4, 16]),
        "two": np.array([0, 2, 16]),
        "anchors": random(1, 4, 16),
        "stride": np.float32(8),
    }
    return detector(graph_of, random, tail=tail, outputs={"y": ["N", 6, 16]}, constants=constants)


def test_the_last_convolutions_and_dfls_mean(graph_of, random, ones):
    proto = dfl(graph_of, random)
    assert head_nodes(proto) == {"box", "cls", "e"}
    walk = Walk(qdq_model_from_amax(proto, ones(proto), Placement(float_nodes=head_nodes(proto))))
    pairs = [node.input[0] for node in walk.nodes if node.op_type == "QuantizeLinear"]
    assert pairs == ["x", "b"]  # nothing of the head and nothing behind it
    assert head_nodes(proto, in_int8=True) == set()


def test_a_product_that_reads_boxes_and_scores_together_stays_float_even_if_the_head_does_not(graph_of, random):
    tail = [
        n("Reshape", ["box", "rows"], ["br"]),
        n("Reshape", ["cls", "rows2"], ["cr"]),
        n("Concat", ["br", "cr"], ["both"], axis=2),
        n("MatMul", ["both", "convert"], ["y"]),
    ]
    constants = {"rows": np.array([0, 32, 8]), "rows2": np.array([0, 32, 1]), "convert": random(9, 20)}
    proto = detector(graph_of, random, tail=tail, outputs={"y": ["N", 32, 20]}, constants=constants)
    assert head_nodes(proto) == {"y"}  # it learned something, so it is the last product
    small = {**constants, "convert": np.eye(9, 4, dtype=np.float32)}  # centre and size out of corners
    proto = detector(graph_of, random, tail=tail, outputs={"y": ["N", 32, 4]}, constants=small)
    assert head_nodes(proto) == {"box", "cls", "y"}
    assert head_nodes(proto, in_int8=True) == {"y"}


def test_shapes_lead_nowhere(graph_of, random):
    """The head's anchors depend on the size of the body's maps, not on what is in them."""
    tail = [
        n("Shape", ["a"], ["shape"]),
        n("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        n("ReduceSum", ["sizes"], ["total"], keepdims=0),
        n("Add", ["box", "total"], ["y"]),
        n("Sigmoid", ["cls"], ["z"]),
    ]
    proto = detector(graph_of, random, tail=tail, outputs={"y": ["N", 16, 4, 4], "z": ["N", 2, 4, 4]})
    assert head_nodes(proto) == {"box", "cls"}


def test_suppression_inside_is_walked_through(graph_of, random):
    tail = [
        n("Reshape", ["box", "corners"], ["boxes"]),
        n("Reshape", ["cls", "classes"], ["logits"]),
        n("Sigmoid", ["logits"], ["scores"]),
        n("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["y"]),
    ]
    constants = {"corners": np.array([0, 64, 4]), "classes": np.array([0, 1, 32]), "most": np.array([5])}
    constants |= {"iou": np.float32(0.5), "least": np.float32(0.1)}
    proto = detector(
        graph_of, random, tail=tail, outputs={"y": ["M", 3]}, constants=constants, kinds={"y": TensorProto.INT64}
    )
    assert head_nodes(proto) == {"box", "cls"}


def test_linear_heads_and_batch_normalization_behind_a_convolution(graph_of, random):
    nodes = [
        n("Conv", ["x", "w"], ["c"], name="body"),
        n("Flatten", ["c"], ["f"]),
        n("Gemm", ["f", "wb", "bb"], ["boxes"], name="b"),
        n("Gemm", ["f", "wc"], ["logits"], name="c", transB=1),
        n("BatchNormalization", ["c2", "g", "o", "m", "v"], ["map"], name="bn"),
    ]
    nodes.insert(4, n("Conv", ["c", "w2"], ["c2"], name="last"))
    constants = {"w": random(2, 3, 1, 1), "w2": random(2, 2, 1, 1), "wb": random(32, 4), "bb": random(4)}
    constants |= {"wc": random(5, 32), "g": random(2), "o": random(2), "m": random(2), "v": np.ones(2, np.float32)}
    outputs = {"boxes": ["N", 4], "logits": ["N", 5], "map": ["N", 2, 4, 4]}
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4]}, outputs, constants)
    assert head_nodes(proto) == {"b", "c", "last"}


@pytest.mark.parametrize("weights", [1, 2])
def test_a_model_that_is_all_head_keeps_none_of_it_float(graph_of, random, weights):
    """Then nothing would be quantized."""
    nodes = [n("Conv", ["x", "w0"], ["y0"])] + ([n("Conv", ["x", "w1"], ["y1"])] if weights == 2 else [])
    constants = {f"w{i}": random(2, 3, 1, 1) for i in range(weights)}
    outputs = {f"y{i}": ["N", 2, 4, 4] for i in range(weights)}
    assert head_nodes(graph_of(nodes, {"x": ["N", 3, 4, 4]}, outputs, constants)) == frozenset()
