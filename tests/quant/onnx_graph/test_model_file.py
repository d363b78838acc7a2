"""Models as files: in one, or with the weights in another, the same model either way."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib.errors import OutputError
from calib.files import Transaction, sha256_of_files
from quant.errors import BuildError
from quant.onnx_graph import model_file
from quant.onnx_graph.light_model import LightModel, light_model, whole_model
from quant.onnx_graph.model import load_model
from quant.onnx_graph.model_file import bytes_of_model, serialized, sha256_of_model, stage_model


@pytest.fixture
def product(graph_of, random):
    """A product with large weights, transposed as a view, and a table of bytes; small constants beside them."""

    def make(name="w"):
        nodes = [
            helper.make_node("MatMul", ["x", name], ["p"]),
            helper.make_node("Gather", ["table", "place"], ["t"], axis=0),
            helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["p", "f"], ["y"]),
        ]
        constants = {
            name: random(40, 50),
            "table": np.arange(2000, dtype=np.uint8).reshape(40, 50),
            "place": np.array(3),
        }
        proto = graph_of(nodes, {"x": ["N", 40]}, {"y": ["N", 50]}, constants)
        proto.metadata_props.add(key="kept", value="yes")
        proto.graph.doc_string = "what it is"
        return proto

    return make


@pytest.mark.parametrize("length", [1, 100, 130, 20_000])
def test_the_size_of_one_file_is_what_protobuf_writes(product, length):
    """Lengths of fields are written in groups of seven bits, so a longer name changes more than its own bytes."""
    proto = product("w" * length)
    assert bytes_of_model(light_model(proto), "model.onnx") == len(proto.SerializeToString())


def test_a_small_model_is_one_file_with_the_very_bytes_of_protobuf(product, tmp_path):
    proto = product()
    with Transaction(tmp_path) as files:
        stage_model(files, "model.onnx", light_model(proto))
    assert (tmp_path / "model.onnx").read_bytes() == proto.SerializeToString()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert sha256_of_model(light_model(proto), "model.onnx") == sha256_of_files(tmp_path / "model.onnx")


@pytest.fixture
def large(product, tmp_path, monkeypatch):
    """The product as it was written with its weights in a file of their own."""
    monkeypatch.setattr(model_file, "LARGEST_FILE", 4000)
    proto = product()
    light = light_model(proto)
    turned = LightModel(light.proto, {**light.weights, "w": np.asfortranarray(light.weights["w"])})
    with Transaction(tmp_path) as files:
        stage_model(files, "model.onnx", turned)
    return proto, turned, tmp_path / "model.onnx", tmp_path / "model.onnx.data"


def test_a_large_model_has_its_weights_at_pages_of_another_file(large, run_onnx, random):
    proto, light, path, data = large
    found = onnx.load(path)
    assert run_onnx(found, x=random(3, 40))[0].tolist() == run_onnx(proto, x=random(3, 40))[0].tolist()
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }
    assert places == {
        "w": {"location": "model.onnx.data", "offset": "0", "length": "8000"},
        "table": {"location": "model.onnx.data", "offset": "8192", "length": "2000"},
    }
    assert data.stat().st_size == 10_192
    assert bytes_of_model(light, "model.onnx") == path.stat().st_size + data.stat().st_size
    assert sha256_of_model(light, "model.onnx") == sha256_of_files(path, data) == load_model(path).sha256
    assert {entry.key: entry.value for entry in found.metadata_props} == {"kept": "yes"}
    onnx.checker.check_model(str(path), full_check=True)


def test_what_is_read_again_is_the_same_model_and_is_mapped_from_the_file(large):
    proto, _, path, _ = large
    model = load_model(path)
    assert whole_model(model.light).SerializeToString() == proto.SerializeToString()
    assert all(isinstance(array.base, np.memmap) for array in model.light.weights.values())
    assert not any(array.flags.writeable for array in model.light.weights.values())


def test_a_failure_leaves_neither_file(product, tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "LARGEST_FILE", 4000)
    proto = product()
    with Transaction(tmp_path) as files:
        stage_model(files, "model.onnx", proto)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((40, 50), np.float32), "w"))
    with pytest.raises(RuntimeError), Transaction(tmp_path) as files:
        stage_model(files, "model.onnx", proto)
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_older_graph_never_lies_beside_new_weights(large, monkeypatch):
    """The last rename does not happen: the older pair stays, or there is no graph."""
    proto, _, path, data = large
    before = data.read_bytes()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((40, 50), np.float32), "w"))
    original = Path.replace

    def cut(self, target):
        if self.name == target.name == path.name:
            raise OSError("power cut")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(OutputError), Transaction(path.parent) as files:
        stage_model(files, path.name, proto)
    assert data.read_bytes() == before or not path.exists()


@pytest.mark.parametrize("replaces", [True, False])
def test_weights_of_an_older_model_go_only_where_the_name_is_ours(product, tmp_path, replaces):
    (tmp_path / "model.onnx.data").write_bytes(b"older")
    with Transaction(tmp_path) as files:
        stage_model(files, "model.onnx", product(), replaces=replaces)
    assert (tmp_path / "model.onnx.data").exists() != replaces


def test_a_graph_that_protobuf_cannot_write_is_one_line(monkeypatch):
    class TooLarge:
        def SerializeToString(self):
            raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB")

    with pytest.raises(
        BuildError, match=r"^model\.onnx: expected a graph below 2 GiB, which one ONNX file holds; split"
    ):
        serialized(TooLarge(), "model.onnx")
