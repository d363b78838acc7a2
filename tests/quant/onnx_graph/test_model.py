import os
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.errors import ModelError
from quant.onnx_graph.batch_norm import fold_batch_norm
from quant.onnx_graph.editor import GraphEditor, sorted_nodes
from quant.onnx_graph.model import load_model
from quant.onnx_graph.tensor_types import activation_names


@pytest.fixture
def linear(graph_of):
    """y = x @ w + b with 3 inputs and 2 outputs."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    return graph_of(nodes, {"x": ["N", 3]}, {"y": ["N", 2]}, {"w": np.ones((3, 2), np.float32), "b": [1.0, 2.0]})


def write_external(proto, folder):
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)  # onnx moves the data out of what it is given
    onnx.save_model(copy, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return folder / "model.onnx"


def test_a_model_is_read_with_its_inputs_outputs_and_opset(saved, graph_of):
    proto = graph_of(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        {"ids": ["N", 4]},
        {"y": ["N", 4, 2]},
        {"table": np.ones((5, 2), np.float32)},
        kinds={"ids": TensorProto.INT64},
    )
    model = saved(proto)
    assert [(i.name, i.shape, i.dtype) for i in model.inputs] == [("ids", ("N", 4), "int64")]
    assert [(o.name, o.shape, o.dtype) for o in model.outputs] == [("y", ("N", 4, 2), "float32")]
    assert (model.opset, model.fixed_batch) == (17, None)


def test_a_file_name_need_not_be_utf8(saved, linear):
    if os.name != "posix":
        pytest.skip("file names are bytes on POSIX alone")
    assert saved(linear, os.fsdecode(b"\xff.onnx")).sha256 == saved(linear).sha256


def test_a_fixed_batch_is_seen_and_initializers_are_no_inputs(saved, graph_of):
    proto = graph_of([helper.make_node("Add", ["x", "b"], ["y"])], {"x": [4, 2]}, {"y": [4, 2]}, {"b": [1.0, 2.0]})
    proto.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [2]))
    model = saved(proto)
    assert model.fixed_batch == 4
    assert [info.name for info in model.inputs] == ["x"]


def test_the_hash_is_that_of_the_contents(saved, linear, tmp_path):
    first, copy = saved(linear), saved(linear, "copy.onnx")
    assert first.sha256 == copy.sha256
    linear.graph.name = "changed"
    assert saved(linear).sha256 != first.sha256


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "found a file without a graph|does not parse"),
        (b"This is a text, not a model.\n" * 20, "does not parse as one|without a graph|not a valid ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "does not parse as one|without a graph"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, contents, message):
    (tmp_path / "bad.onnx").write_bytes(contents)
    with pytest.raises(ModelError, match=rf"bad\.onnx: .*({message})") as caught:
        load_model(tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)


def test_nothing_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx: expected an ONNX model, found nothing; .*--model"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="expected an ONNX model, found a folder"):
        load_model(tmp_path)


def test_a_model_cut_anywhere_is_refused(tmp_path, linear):
    whole = linear.SerializeToString()
    for length in range(len(whole)):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.onnx: ") as caught:
            load_model(tmp_path / "cut.onnx")
        assert "\n" not in str(caught.value)


def test_an_unknown_opset_is_refused_with_the_newest_known(saved, linear):
    linear.opset_import[0].version = 999
    with pytest.raises(ModelError, match=rf"expected an opset up to {onnx.defs.onnx_opset_version()} .*found 999"):
        saved(linear)


def test_an_invalid_graph_is_refused(saved, linear):
    linear.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match=r"model\.onnx: not a valid ONNX model: .*export it again"):
        saved(linear)


def test_a_model_without_inputs_is_refused(saved, graph_of):
    proto = graph_of([helper.make_node("Relu", ["w"], ["y"])], {}, {"y": [2]}, {"w": [1.0, 2.0]})
    with pytest.raises(ModelError, match="expected a model with an input, found none"):
        saved(proto)


def test_external_data_is_read_and_hashed(tmp_path, linear, run_onnx, random):
    path = write_external(linear, tmp_path)
    model = load_model(path)
    (expected,) = run_onnx(linear, x=random(2, 3))
    np.testing.assert_array_equal(run_onnx(model.proto, x=random(2, 3))[0], expected)
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[2] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert load_model(path).sha256 != model.sha256


def test_missing_external_data_is_named(tmp_path, linear):
    path = write_external(linear, tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"expected the external data of 'w' in 'weights\.bin' beside the model"):
        load_model(path)


def test_truncated_external_data_is_refused(tmp_path, linear):
    path = write_external(linear, tmp_path)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[:10])
    with pytest.raises(ModelError, match=r"model\.onnx: .*export") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_activations_are_float_inputs_and_float_results_in_the_order_of_the_graph(graph_of):
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Shape", ["doubled"], ["shape"]),
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Dropout", ["doubled"], ["kept", "mask"]),
        helper.make_node("Add", ["kept", "w"], ["sum"]),
        helper.make_node("Add", ["sum", "floats"], ["y"]),
    ]
    kinds = {"ids": TensorProto.INT64, "shape": TensorProto.INT64}
    proto = graph_of(
        nodes, {"ids": ["N", 2], "x": ["N", 2]}, {"y": ["N", 2], "shape": [2]}, {"w": [1.0, 2.0]}, kinds=kinds
    )
    onnx.checker.check_model(proto, full_check=True)
    assert activation_names(proto) == ["x", "doubled", "floats", "kept", "sum", "y"]


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


def test_constants_are_folded_and_the_results_stay(graph_of, run_onnx, random):
    """Padding sizes and shapes computed out of constants, as PyTorch exports them."""

    def constant(name, value):
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))

    nodes = [
        constant("zeros", np.zeros(3, np.int64)),
        constant("last", np.array([2], np.int64)),
        helper.make_node("Concat", ["zeros", "last"], ["pairs"], axis=0),
        helper.make_node("Cast", ["pairs"], ["pads"], to=TensorProto.INT64),
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        constant("minus", np.float32(-1.5)),
        helper.make_node("Mul", ["minus", "w"], ["negative"]),
        helper.make_node("Mul", ["padded", "negative"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": ["N", 2]}, {"y": ["N", 4]}, {"w": [1.0, 2.0, 3.0, 4.0]})
    folded = GraphEditor(proto).model()
    onnx.checker.check_model(folded, full_check=True)
    assert [node.op_type for node in folded.graph.node] == ["Pad", "Mul"]
    x = random(3, 2)
    np.testing.assert_array_equal(run_onnx(folded, x=x)[0], run_onnx(proto, x=x)[0])


def test_constants_that_an_inner_graph_reads_stay(graph_of, run_onnx):
    def branch(factor):
        nodes = [helper.make_node("Mul", ["x", factor], [f"out_{factor}"])]
        return helper.make_graph(nodes, factor, [], [helper.make_tensor_value_info(f"out_{factor}", 1, None)])

    nodes = [
        helper.make_node("Add", ["a", "a"], ["twice"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch("twice"), else_branch=branch("a")),
    ]
    proto = graph_of(nodes, {"x": ["N"], "flag": []}, {"y": ["N"]}, {"a": [3.0]}, kinds={"flag": TensorProto.BOOL})
    folded = GraphEditor(proto).model()
    x = np.array([1, 2], np.float32)
    assert run_onnx(folded, x=x, flag=np.array(True))[0].tolist() == [6, 12]
    assert run_onnx(folded, x=x, flag=np.array(False))[0].tolist() == [3, 6]


def test_a_constant_that_is_an_output_stays_one(graph_of, run_onnx, random):
    nodes = [
        helper.make_node("Add", ["w", "w"], ["fixed"]),
        helper.make_node("Add", ["x", "fixed"], ["y"]),
    ]
    proto = graph_of(nodes, {"x": [2]}, {"y": [2], "fixed": [2]}, {"w": [1.0, 2.0]})
    found = run_onnx(GraphEditor(proto).model(), x=np.zeros(2, np.float32))
    assert [array.tolist() for array in found] == [[2, 4], [2, 4]]


def test_nodes_in_any_order_are_sorted(linear, run_onnx, random):
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(linear)
    nodes = list(shuffled.graph.node)[::-1]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(shuffled)
    ordered = sorted_nodes(shuffled)
    onnx.checker.check_model(ordered)
    x = random(2, 3)
    np.testing.assert_array_equal(run_onnx(ordered, x=x)[0], run_onnx(linear, x=x)[0])


def test_a_cycle_is_an_error(graph_of):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    with pytest.raises(ModelError, match=re.escape("cycle through node 'first'")):
        sorted_nodes(graph_of(nodes, {"x": [1]}, {"b": [1]}))
