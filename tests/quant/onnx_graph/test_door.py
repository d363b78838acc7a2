"""What a model must be before anything is done with it."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant.errors import ModelError
from quant.onnx_graph.model import check_sizes, load_model


def model_of(*, shape=("N", 3, 8, 8), name="input", kind=TensorProto.FLOAT):
    nodes = [
        helper.make_node("Conv", [name, "weight"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info(name, kind, shape)]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], 2, *shape[2:]])]
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "weight")
    graph = helper.make_graph(nodes, "graph", inputs, outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def refusal(tmp_path):
    """Loads a model, or the bytes of one, and returns why it is refused."""

    def load(model):
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        with pytest.raises(ModelError) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return load


@pytest.mark.parametrize(
    ("text", "spoiled"),
    [(b"weight", b"weig\xff\xfe"), (b"Relu", b"\xc3lu\xff"), (b"graph", b"gr\x80ph"), (b"output", b"out\xffut")],
)
def test_a_name_that_is_no_text_is_told(refusal, text, spoiled):
    data = model_of().SerializeToString().replace(text, spoiled)
    assert "model.onnx: expected names and texts in UTF-8, found b'" in refusal(data)


def test_a_name_deep_inside_is_read_too(refusal):
    model = model_of()
    inner = helper.make_graph([helper.make_node("Relu", ["conv"], ["innermost"])], "then", [], [])
    model.graph.node.append(helper.make_node("If", ["conv"], ["x"], then_branch=inner, else_branch=inner))
    data = model.SerializeToString()
    assert "found b'inner\\xffost'" in refusal(data.replace(b"innermost", b"inner\xffost"))


def test_a_model_without_an_output_or_an_input_is_told(refusal):
    model = model_of()
    del model.graph.output[:]
    assert "expected a model with an output, found none" in refusal(model)
    model = model_of()
    del model.graph.input[:]
    assert "expected a model with an input, found none" in refusal(model)


@pytest.mark.parametrize("where", ["input", "output"])
def test_a_type_that_nobody_knows_is_told(refusal, where):
    model = model_of()
    getattr(model.graph, where)[0].type.tensor_type.elem_type = 1000
    assert f"expected an {where} '{where}' of a type that onnx" in refusal(model)
    assert "found number 1000" in refusal(model)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("N", 3, 10**6, 10**6), "of at most 268,435,456 values for an image, found 3,000,000,000,000 (3 x 1000000 x"),
        (("N", 3, 2**62, 8), "of at most 268,435,456 values for an image"),
        ((2**20, 3, 8, 8), "expected a batch of at most 4,096, found one fixed at 1,048,576 (input 'input')"),
        ((4096, 3, 512, 512), "expected a batch of at most 682, found one fixed at 4,096"),
    ],
)
def test_sizes_that_nobody_can_run_are_told(refusal, shape, message):
    assert message in refusal(model_of(shape=shape))


def test_large_batches_and_images_that_are_meant_stay_possible(tmp_path):
    for shape in ((4096, 3, 32, 32), ("N", 3, 8192, 8192), (1, 3, 4096, 4096)):
        onnx.save(model_of(shape=shape), tmp_path / "model.onnx")
        assert load_model(tmp_path / "model.onnx").inputs[0].shape[1:] == shape[1:]


@pytest.mark.parametrize(
    ("operator", "inputs", "sizes"),
    [
        ("Expand", "(input, sizes)", "<int64[4] sizes = {1, 3, 33554432, 8}>"),
        ("Tile", "(input, sizes)", "<int64[4] sizes = {1, 1, 1048576, 4096}>"),
        ("Resize", "(input, , scales)", "<float[4] scales = {1, 1, 8192, 8192}>"),
    ],
)
def test_a_node_whose_result_nobody_can_hold_is_told_before_it_runs(refusal, operator, inputs, sizes):
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 1, 8] input) => (float[N, 3, H, W] output) {sizes}
        {{ [grown] large = {operator} {inputs} output = Relu(large) }}"""
    )
    assert f"expected tensors of at most 536,870,912 values, found 'large' of {operator} 'grown' with" in refusal(model)


@pytest.mark.parametrize(("name", "value"), [("strides", [0, 2]), ("dilations", [1, -1]), ("group", 0)])
def test_what_libraries_divide_by_is_positive(refusal, name, value):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 8, 8] input) => (float[N, 4, H, W] output)
        <float[4, 3, 1, 1] weight> { [c] output = Conv(input, weight) }"""
    )
    model.graph.node[0].attribute.append(onnx.helper.make_attribute(name, value))
    shown = value if isinstance(value, list) else [value]
    assert f"expected positive {name} in node 'c' (Conv), found {shown}" in refusal(model)


@pytest.mark.parametrize("place", ["pipe", "device"])
def test_what_is_no_file_is_told_without_opening_it(tmp_path, no_file, place):
    path = no_file(tmp_path / "model.onnx", place)
    with pytest.raises(ModelError, match=f"expected an ONNX model, found a {place}; give the file with --model"):
        load_model(path)


def test_a_file_that_protobuf_cannot_hold_is_not_read(tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(ModelError, match=r"below 2 GiB, found a file of 1024\.0 GiB; export it with its weights in a"):
        load_model(path)


def wide(shape, channels=64):
    """Two convolutions and a sum, whose tensors have so many channels."""
    sizes = ", ".join(map(str, shape))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[{sizes}] input) => (float[B, {channels}, H, W] output)
        {{ a = Conv(input, first) b = Relu(a) [c] c = Conv(b, second) output = Add(a, c) }}"""
    )
    for name, inner in (("first", 3), ("second", channels)):
        weights = np.zeros((channels, inner, 1, 1), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return model


def test_a_model_that_holds_too_much_at_a_time_is_told_with_the_way_to_allow_it(refusal, tmp_path, monkeypatch):
    side = 1448  # 134,189,056 values in each of a, b and c, which are held together
    message = refusal(wide(("N", 3, side, side)))
    assert "holds at most 268,435,456 values at a time for an image, found 402,567,168 (1.5 GiB as float32)" in message
    assert "at Conv 'c'; export it for smaller images, or set CALIB_MAX_LIVE_VALUES=402567168" in message
    assert "at most 1,073,741,824 values at a time for a batch of 12" in refusal(wide((12, 3, 700, 700)))
    onnx.save(wide(("N", 3, side, side)), tmp_path / "model.onnx")
    monkeypatch.setenv("CALIB_MAX_LIVE_VALUES", "402567168")
    assert load_model(tmp_path / "model.onnx").outputs[0].name == "output"
    monkeypatch.setenv("CALIB_MAX_LIVE_VALUES", "1 GB")
    assert refusal(wide(("N", 3, 8, 8))).startswith("CALIB_MAX_LIVE_VALUES: expected a number of values, such as")


def test_open_sizes_count_as_those_of_the_images(tmp_path):
    onnx.save(wide(("N", 3, "H", "W")), tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx")
    check_sizes(model, {"input": (3, 1024, 1024)})
    with pytest.raises(ModelError, match=r"found 402,567,168 .* at Conv 'c'"):
        check_sizes(model, {"input": (3, 1448, 1448)})


def test_what_is_no_longer_read_is_no_longer_held(tmp_path):
    lines = " ".join(f"t{i + 1} = Relu(t{i})" for i in range(50))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 16, 2048, 2048] t0) => (float[N, 16, 2048, 2048] t50)
        {{ {lines} }}"""
    )
    onnx.save(model, tmp_path / "model.onnx")  # 67 million values in each tensor, of which two are held
    assert len(load_model(tmp_path / "model.onnx").graph.graph.node) == 50
