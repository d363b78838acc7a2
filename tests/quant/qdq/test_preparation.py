import numpy as np
import onnx
import pytest
from onnx import helper

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.preparation import fold_batch_norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("op", "weight", "groups", "channels", "data"),
    [
        ("Conv", (6, 4, 3, 3), 1, 6, (2, 4, 7, 7)),
        ("Conv", (6, 2, 3, 3), 2, 6, (2, 4, 7, 7)),
        ("Conv", (4, 1, 3, 3), 4, 4, (2, 4, 7, 7)),
        ("Conv", (6, 4, 3), 1, 6, (2, 4, 7)),
        ("ConvTranspose", (4, 6, 3, 3), 1, 6, (2, 4, 5, 5)),
        ("ConvTranspose", (4, 3, 2, 2), 2, 6, (2, 4, 5, 5)),
        ("ConvTranspose", (4, 1, 2, 2), 4, 4, (2, 4, 5, 5)),
        ("ConvTranspose", (4, 3, 2), 2, 6, (2, 4, 5)),
    ],
)
def test_batchnorm_folds_into_a_convolution(
    graph_of, run_onnx, random, norm_constants, op, weight, groups, channels, data, bias
):
    constants = {"w": random(*weight, seed=5), **norm_constants("n", channels)}
    constants |= {"b": random(channels, seed=6)} if bias else {}
    nodes = [
        helper.make_node(op, ["x", "w", "b"] if bias else ["x", "w"], ["c"], group=groups),
        helper.make_node("BatchNormalization", ["c", "n_scale", "n_shift", "n_mean", "n_var"], ["n"], epsilon=0.01),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": ["N", *data[1:]]}, {"y": [None] * len(data)}, constants)
    before = proto.SerializeToString()
    editor = GraphEditor(proto)
    assert fold_batch_norm(editor) == 1
    folded = editor.model()
    onnx.checker.check_model(folded)
    assert [node.op_type for node in folded.graph.node] == [op, "Relu"]
    assert folded.graph.node[0].output[0] == "n"  # the tensor that the calibration names
    x = random(*data)
    np.testing.assert_allclose(run_onnx(folded, x=x)[0], run_onnx(proto, x=x)[0], rtol=1e-4, atol=1e-4)
    assert proto.SerializeToString() == before


def test_two_convolutions_that_share_weights_fold_apart(graph_of, run_onnx, random, norm_constants):
    constants = {"w": random(3, 3, 1, 1), **norm_constants("n", 3), "other": 5 * random(3, seed=9)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c1"]),
        helper.make_node("BatchNormalization", ["c1", "n_scale", "n_shift", "n_mean", "n_var"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["c2"]),
        helper.make_node("BatchNormalization", ["c2", "other", "n_shift", "n_mean", "n_var"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 3, 4, 4]}, constants)
    editor = GraphEditor(proto)
    assert fold_batch_norm(editor) == 2
    x = random(2, 3, 4, 4)
    np.testing.assert_allclose(run_onnx(editor.model(), x=x)[0], run_onnx(proto, x=x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("also_read", ["node", "output"])
def test_batchnorm_stays_where_the_convolution_is_read_elsewhere(graph_of, run_onnx, random, norm_constants, also_read):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "n_scale", "n_shift", "n_mean", "n_var"], ["n"]),
        helper.make_node("Add", ["n", "c" if also_read == "node" else "n"], ["y"]),
    ]
    outputs = {"y": ["N", 3, 4, 4]} | ({"c": ["N", 3, 4, 4]} if also_read == "output" else {})
    proto = graph_of(nodes, {"x": ["N", 3, 4, 4]}, outputs, {"w": random(3, 3, 1, 1), **norm_constants("n", 3)})
    editor = GraphEditor(proto)
    assert fold_batch_norm(editor) == 0
    x = random(2, 3, 4, 4)
    for found, expected in zip(run_onnx(editor.model(), x=x), run_onnx(proto, x=x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
