"""The SQNR that a report states is that of the INT8 file executed as it is written, without any fused kernel."""

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from calib.sample_project import write_sample_project
from quant import run
from quant.calibration.run_data import open_data
from quant.onnx_graph.model import load_model
from quant.progress import RecordingConsole
from quant.settings.run_settings import RunSettings
from tests.int8_oracle import run_exactly, sqnr_db

n = helper.make_node


def folder_of_noise(folder):
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def tokens(rest):
    """Patches of 2x2 pixels as 16 tokens of 16 features; `rest` makes `z` [N, 16, 16] out of `t`; five classes."""
    return [
        n("Conv", ["x", "patch"], ["c"], strides=[2, 2]),
        n("Reshape", ["c", "flat"], ["f"]),
        n("Transpose", ["f"], ["t"], perm=[0, 2, 1]),
        *rest,
        n("ReduceMean", ["z"], ["m"], axes=[1], keepdims=0),
        n("MatMul", ["m", "head"], ["y"]),
    ]


def attention():
    return [
        n("MatMul", ["t", "wq"], ["q"]), n("MatMul", ["t", "wk"], ["k"]), n("MatMul", ["t", "wv"], ["v"]),
        n("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        n("MatMul", ["q", "kt"], ["products"]), n("Mul", ["products", "quarter"], ["scaled"]),
        n("Softmax", ["scaled"], ["weights"], axis=-1),
        n("MatMul", ["weights", "v"], ["mixed"]), n("MatMul", ["mixed", "wo"], ["out"]), n("Add", ["t", "out"], ["z"]),
    ]  # fmt: skip


def mixer():
    return [
        n("Transpose", ["t"], ["tt"], perm=[0, 2, 1]),
        n("MatMul", ["tt", "wq"], ["a"]), n("Relu", ["a"], ["ar"]), n("MatMul", ["ar", "wk"], ["b"]),
        n("Transpose", ["b"], ["bt"], perm=[0, 2, 1]), n("Add", ["t", "bt"], ["s"]),
        n("MatMul", ["s", "wv"], ["d"]), n("Relu", ["d"], ["dr"]), n("MatMul", ["dr", "wo"], ["e"]),
        n("Add", ["s", "e"], ["z"]),
    ]  # fmt: skip


def image_net(graph_of, random, rest):
    constants = {name: random(16, 16, seed=i) / 4 for i, name in enumerate(("wq", "wk", "wv", "wo"), 2)}
    constants |= {"patch": random(16, 3, 2, 2, seed=1) / 2, "head": random(16, 5, seed=9) / 4}
    constants |= {"flat": np.array([0, 16, 16]), "quarter": np.float32(0.25)}
    return graph_of(tokens(rest), {"x": ["N", 3, 8, 8]}, {"y": ["N", 5]}, constants)


@pytest.mark.parametrize("kind", ["attention", "mixer", "sample"])
def test_the_reports_sqnr_is_that_of_a_session_that_fuses_nothing(tmp_path, graph_of, random, kind):
    if kind == "sample":
        write_sample_project(tmp_path / "demo")
        model, images, preprocess = tmp_path / "demo" / "model.onnx", tmp_path / "demo" / "imgs", "preprocess.toml"
        preprocess = str(tmp_path / "demo" / preprocess)
    else:
        model, images, preprocess = tmp_path / "model.onnx", folder_of_noise(tmp_path / "imgs"), "unit"
        onnx.save(image_net(graph_of, random, {"attention": attention, "mixer": mixer}[kind]()), model)
    settings = RunSettings(
        model=model, data=images, preprocess=preprocess, num_images=16, backend="onnxruntime", out=tmp_path / "out"
    )
    document = run(settings, RecordingConsole())
    (stated,) = [build["sqnr_db"] for build in document["builds"] if build["precision"] == "int8"]
    given = load_model(model)
    written = load_model(tmp_path / "out" / "model.int8.onnx").proto
    pairs = []
    for batch in open_data(settings, given, RecordingConsole()).evaluation_stream(settings):
        found, expected = run_exactly(written, batch.inputs), run_exactly(given.proto, batch.inputs)
        pairs.append((found[given.outputs[0].name], expected[given.outputs[0].name]))
    assert stated == pytest.approx(sqnr_db(*map(np.concatenate, zip(*pairs, strict=True))), abs=0.1)
