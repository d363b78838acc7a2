import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quant.errors import ModelError
from quant.onnx_graph.model import load_model


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
