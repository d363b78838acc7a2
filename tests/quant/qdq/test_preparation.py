import numpy as np
import onnx
import pytest
from onnx import helper

from quant.errors import BuildError
from quant.onnx_graph.editor import GraphEditor
from quant.qdq.preparation import fold_batch_norm, prepared_for_quantization


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


@pytest.fixture
def gemm_of(graph_of, random):
    """y = Gemm(x, w, b) with its attributes; x is [2, 3] or its transpose, w gives 4 columns."""

    def make(*, bias=True, weight="constant", addend="constant", **attributes):
        constants = {
            "w": random(*((4, 3) if attributes.get("transB") else (3, 4)), seed=1),
            "b": random(4, seed=2),
        }
        inputs = {"x": [3, 2] if attributes.get("transA") else [2, 3]}
        inputs |= {"w": list(constants.pop("w").shape)} if weight == "input" else {}
        inputs |= {"b": list(constants.pop("b").shape)} if addend == "input" else {}
        node = helper.make_node("Gemm", ["x", "w", "b"] if bias else ["x", "w"], ["y"], name="fc", **attributes)
        return graph_of([node], inputs, {"y": [2, 4]}, constants)

    return make


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 3.0}])
def test_a_gemm_with_constants_becomes_a_product_and_a_sum(gemm_of, run_onnx, random, bias, attributes):
    proto = gemm_of(bias=bias, **attributes)
    prepared = prepared_for_quantization(proto).model()
    onnx.checker.check_model(prepared, full_check=True)
    assert [node.op_type for node in prepared.graph.node] == (["MatMul", "Add"] if bias else ["MatMul"])
    x = random(2, 3)
    np.testing.assert_allclose(run_onnx(prepared, x=x)[0], run_onnx(proto, x=x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"transA": 1}, {"weight": "input"}, {"addend": "input"}])
def test_another_gemm_stays(gemm_of, options):
    prepared = prepared_for_quantization(gemm_of(**options)).model()
    assert [(node.op_type, node.name) for node in prepared.graph.node] == [("Gemm", "fc")]


@pytest.mark.parametrize("kind", ["QuantizeLinear", "DynamicQuantizeLinear"])
def test_a_model_that_is_quantized_already_is_refused(graph_of, kind):
    if kind == "QuantizeLinear":
        node = helper.make_node(kind, ["x", "scale", "zero"], ["q"])
    else:
        node = helper.make_node(kind, ["x"], ["q", "scale", "zero"])
    nodes = [node, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"])]
    constants = {"scale": np.float32(0.5), "zero": np.uint8(0)} if kind == "QuantizeLinear" else {}
    with pytest.raises(BuildError, match="already quantized"):
        prepared_for_quantization(graph_of(nodes, {"x": [2]}, {"y": [2]}, constants))


@pytest.mark.parametrize(("opset", "prepared_opset"), [(9, 13), (12, 13), (13, 13), (17, 17)])
def test_an_older_opset_is_brought_to_13_and_a_later_one_stays(graph_of, run_onnx, random, opset, prepared_opset):
    # ReduceSum's axes became an input in opset 13.
    axes = {"axes": [1]} if opset < 13 else {}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("ReduceSum", ["r"] if axes else ["r", "axes"], ["y"], keepdims=0, **axes),
    ]
    constants = {} if axes else {"axes": np.array([1])}
    proto = graph_of(nodes, {"x": [2, 3]}, {"y": [2]}, constants, opset=opset)
    prepared = prepared_for_quantization(proto).model()
    assert [entry.version for entry in prepared.opset_import] == [prepared_opset]
    x = random(2, 3)
    np.testing.assert_allclose(run_onnx(prepared, x=x)[0], np.maximum(x, 0).sum(1), rtol=1e-6)


def test_an_opset_that_cannot_be_converted_is_refused_with_what_to_do(graph_of):
    node = helper.make_node("Affine", ["x"], ["y"], alpha=1.0, beta=1.0)  # of no opset since 9
    proto = graph_of([node], {"x": [2]}, {"y": [2]}, opset=7)
    with pytest.raises(BuildError, match="opset 7 cannot be converted to 13") as caught:
        prepared_for_quantization(proto)
    assert "\n" not in str(caught.value)
