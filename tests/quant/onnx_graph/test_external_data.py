"""Weights beside a model: wherever in it they are used, and whatever is wrong with their files."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.errors import ModelError
from quant.onnx_graph.light_model import release_pages, whole_model
from quant.onnx_graph.model import load_model
from quant.onnxruntime.session import OnnxRuntimeSession


def placed(tensor, **place):
    """A tensor whose values lie in another file."""
    result = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    result.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        result.external_data.add(key=key, value=str(value))
    return result


@pytest.fixture
def write(tmp_path, graph_of, random):
    """A product whose weights of 40 x 40 lie in weights.bin, after `before` other bytes; returns its file."""

    def make(before=0, *, dtype=np.float32, **place):
        weights = (random(40, 40) * 10).astype(dtype)
        nodes = [helper.make_node("Cast", ["w"], ["f"], to=1), helper.make_node("MatMul", ["x", "f"], ["y"])]
        proto = graph_of(nodes, {"x": ["N", 40]}, {"y": ["N", 40]}, {"w": weights})
        (tmp_path / "weights.bin").write_bytes(bytes(before) + weights.tobytes())
        place = {"location": "weights.bin", "offset": before, "length": weights.nbytes} | place
        place = {key: value for key, value in place.items() if value is not None}
        tensor = placed(proto.graph.initializer[0], **place)
        proto.graph.initializer[0].CopyFrom(tensor)
        (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
        return tmp_path / "model.onnx", weights

    return make


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.uint16, np.int64])
@pytest.mark.parametrize(
    "before", [0, 4096, 8, 3]
)  # three bytes are no place for most types, and are read all the same
def test_weights_are_found_wherever_they_begin(write, dtype, before):
    path, weights = write(before, dtype=dtype)
    model = load_model(path)
    np.testing.assert_array_equal(model.light.weights["w"], weights)
    assert model.light.weights["w"].dtype == dtype
    assert model.light.weights["w"].flags.aligned
    assert model.bytes == path.stat().st_size + before + weights.nbytes


def test_a_place_without_offset_and_length_is_the_whole_file(write):
    path, weights = write(offset=None, length=None)
    np.testing.assert_array_equal(load_model(path).light.weights["w"], weights)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"location": "../weights.bin"}, r"beside the model, found '\.\./weights\.bin'; export"),
        ({"location": "/etc/passwd"}, r"beside the model, found '/etc/passwd'; export"),
        ({"location": ""}, "in '' beside the model, found no such file; copy it there"),
        ({"location": "moved.bin"}, r"in 'moved\.bin' beside the model, found no such file; copy it there"),
        ({"offset": 8}, r"6,400 bytes of 'w' at byte 8 of 'weights\.bin', found 6,400 there and 6,400 in all"),
        ({"length": 6396}, r"6,400 bytes of 'w' at byte 0 of 'weights\.bin', found 6,396 there and 6,400 in all"),
        ({"offset": -4}, "at byte -4 of"),
        ({"offset": "start"}, r"expected numbers for the place of 'w' in 'weights\.bin', found \{"),
    ],
)
def test_what_is_wrong_with_a_place_is_one_line(write, place, said):
    path, _ = write(**place)
    with pytest.raises(ModelError, match=said) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)


def test_small_constants_branches_and_attributes_may_lie_there_too(tmp_path, graph_of, run_onnx, random):
    """Only the large weights of the graph itself are mapped; the others get their values."""
    small, inner, held = random(40), random(40, 40), random(50, 40)
    data = b"".join(array.tobytes() for array in (small, inner, held))
    tensors = [
        numpy_helper.from_array(array, name) for array, name in ((small, "small"), (inner, "inner"), (held, "v"))
    ]
    offsets = np.cumsum([0, small.nbytes, inner.nbytes])
    beside = [
        placed(tensor, location="w.bin", offset=offset, length=len(tensor.raw_data))
        for tensor, offset in zip(tensors, offsets, strict=True)
    ]

    def model(small, inner, held):
        branch = helper.make_graph(
            [helper.make_node("MatMul", ["x", "inner"], ["a"])],
            "then",
            [],
            [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 40])],
            [inner],
        )
        other = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["b"])],
            "else",
            [],
            [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 40])],
        )
        nodes = [
            helper.make_node("If", ["on"], ["c"], then_branch=branch, else_branch=other),
            helper.make_node("Add", ["c", "small"], ["d"]),
            helper.make_node("Constant", [], ["held"], value=held),
            helper.make_node("Gemm", ["d", "held"], ["y"], transB=1),
        ]
        proto = graph_of(nodes, {"x": ["N", 40]}, {"y": ["N", 50]}, {"on": np.array(True)})
        proto.graph.initializer.append(small)
        return proto

    (tmp_path / "w.bin").write_bytes(data)
    (tmp_path / "model.onnx").write_bytes(model(*beside).SerializeToString())
    loaded = load_model(tmp_path / "model.onnx")
    assert loaded.light.weights.keys() == {"held"}  # a large constant of a node is like any other weight
    assert "Constant" not in {node.op_type for node in loaded.graph.graph.node}
    x = random(3, 40, seed=5)
    (expected,) = run_onnx(model(*tensors), x=x)
    np.testing.assert_array_equal(run_onnx(whole_model(loaded.light), x=x)[0], expected)
    assert loaded.bytes == (tmp_path / "model.onnx").stat().st_size + len(data)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says which pages are in memory")
def test_pages_of_weights_are_given_back_and_read_again(write, tmp_path):
    path, weights = write()
    model = load_model(path).light

    def resident():
        lines = Path("/proc/self/smaps").read_text().splitlines()
        (start,) = (i for i, line in enumerate(lines) if line.endswith(str(tmp_path / "weights.bin")))
        return next(int(line.split()[1]) for line in lines[start:] if line.startswith("Rss:"))

    assert model.weights["w"].sum() == weights.sum()
    assert resident() > 0
    release_pages(model)
    assert resident() == 0
    np.testing.assert_array_equal(model.weights["w"], weights)
    np.testing.assert_array_equal(OnnxRuntimeSession(model).run({"x": np.eye(40, dtype=np.float32)})[0], weights)
    assert resident() == 0  # the session has them in a form of its own


def test_a_link_to_the_weights_is_followed(write, tmp_path):
    """As in caches of downloaded models, whose files are links."""
    path, weights = write()
    (tmp_path / "blob").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "blob" / "1a2b")
    (tmp_path / "weights.bin").symlink_to(tmp_path / "blob" / "1a2b")
    np.testing.assert_array_equal(load_model(path).light.weights["w"], weights)


@pytest.mark.parametrize(
    ("location", "said"),
    [("w" * 5000, r"found a name that cannot be opened \(File name too long\): 'w{100}'$"), (".", "no such file")],
)
def test_a_name_that_no_weights_can_have_is_named_with_the_model(write, location, said):
    path, _ = write(location=location)
    with pytest.raises(ModelError, match=rf"model\.onnx: expected the external data of 'w' .*{said}"):
        load_model(path)
