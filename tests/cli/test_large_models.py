"""Whole runs of a model whose weights lie beside it and count as large: the limits are lowered, the rest is real."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib.files import sha256_of_files
from quant import build, load_model, run
from quant.onnx_graph import made_model, model_file
from quant.onnxruntime import resident
from quant.settings.calib_toml import settings_from_options
from tests.once import plain_reports

PIXELS, WIDTH = 3 * 8 * 8, 640


@pytest.fixture(scope="module")
def wide():
    """A classifier of colours, of 2.5 MB: two wide products, and one with the brightness of blue, green and red."""
    random = np.random.default_rng(0)
    first = random.normal(0, 0.01, (PIXELS, WIDTH))
    for channel in range(3):
        first[channel * 64 : (channel + 1) * 64, 2 - channel] += 1 / 64
    second = random.normal(0, 0.002, (WIDTH, WIDTH)) + np.eye(WIDTH)
    weights = {"w1": first, "w2": second.T, "b2": np.zeros(WIDTH), "w3": np.eye(WIDTH, 3)}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w1"], ["m1"], name="m1"),
        helper.make_node("Relu", ["m1"], ["r1"]),
        helper.make_node("Gemm", ["r1", "w2", "b2"], ["m2"], name="m2", transB=1),
        helper.make_node("MatMul", ["m2", "w3"], ["logits"], name="m3"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "wide", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def project_master(colours_master, wide, tmp_path_factory):
    """The colour project with that model, whose weights lie beside it."""
    project = shutil.copytree(colours_master, tmp_path_factory.mktemp("large") / "project")
    copy = onnx.ModelProto()
    copy.CopyFrom(wide)  # `save` takes the weights out of what it is given
    onnx.save(copy, project / "model.onnx", save_as_external_data=True, location="weights.bin")
    assert (project / "model.onnx").stat().st_size < 20_000 < (project / "weights.bin").stat().st_size
    return project


@pytest.fixture
def project(project_master, tmp_path):
    """A copy of it, nothing run in it yet."""
    return shutil.copytree(project_master, tmp_path / "project")


def lower_limits(patch):
    """INT8's weights (0.5 MB) no longer fit into one file, nor two sessions into memory."""
    patch.setattr(model_file, "LARGEST_FILE", 1 << 18)
    patch.setattr(resident, "ROOM", 1 << 20)
    patch.setattr(made_model, "_KEPT", 0)


@pytest.fixture
def low_limits(monkeypatch):
    lower_limits(monkeypatch)


@pytest.fixture(scope="module")
def done_master(project_master, tmp_path_factory):
    """The project after a run with low limits."""
    project = shutil.copytree(project_master, tmp_path_factory.mktemp("done") / "project")
    with pytest.MonkeyPatch.context() as patch, plain_reports():
        lower_limits(patch)
        patch.chdir(project)
        assert run(settings_from_options({}))["verdict"] == "pass"
    return project


@pytest.fixture
def done(done_master, tmp_path):
    return shutil.copytree(done_master, tmp_path / "done")


def figures(document):
    """What a report says of the builds, but for times and sizes."""
    kept = ("precision", "top1", "drop_top1", "drop_ci95", "agreement", "sqnr_db", "cosine")
    return [{name: row.get(name) for name in kept} for row in document["builds"]]


def run_file(model):
    """What ONNX Runtime alone makes of a file, or of a model's bytes."""
    given = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)})[0]


def size_of(path):
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def test_a_large_model_gets_the_figures_of_a_small_one(calib, done, report):
    assert calib("run", "--out", "small", cwd=done).code == 0
    assert not (done / "small" / "model.int8.onnx.data").exists()
    large, small = report(done), report(done, "small")
    assert figures(large) == figures(small)
    assert large["layers"] == small["layers"]
    assert large["builds"][0]["bytes"] == size_of(done / "model.onnx") + (done / "weights.bin").stat().st_size


def test_int8_is_written_with_its_weights_beside_it(done, report, wide):
    path = done / "calib-out" / "model.int8.onnx"
    data = path.with_name("model.int8.onnx.data")
    assert path.stat().st_size < 40_000 < data.stat().st_size
    assert report(done)["builds"][-1]["bytes"] == size_of(path)
    onnx.checker.check_model(str(path), full_check=True)
    np.testing.assert_allclose(run_file(path), run_file(wide.SerializeToString()), atol=0.1)
    assert load_model(path).sha256 == sha256_of_files(path, data)


def test_fp16_is_written_with_its_weights_beside_it(calib, project, report, low_limits, wide):
    assert calib("run", "--precision", "fp16", cwd=project).code == 0
    path = project / "calib-out" / "model.fp16.onnx"
    assert path.stat().st_size < 40_000 < path.with_name("model.fp16.onnx.data").stat().st_size
    assert report(project)["builds"][-1]["bytes"] == size_of(path)
    np.testing.assert_allclose(run_file(path), run_file(wide.SerializeToString()), atol=0.01)


def test_an_older_file_of_weights_goes_with_its_model(calib, done):
    data = done / "calib-out" / "model.int8.onnx.data"
    assert data.exists()
    assert calib("run", cwd=done).code == 0
    assert not data.exists()
    assert load_model(done / "calib-out" / "model.int8.onnx").light.weights


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda data: data.unlink(), "in 'model.int8.onnx.data' beside the model, found no such file; copy it there"),
        (lambda data: data.write_bytes(data.read_bytes()[:9000]), " of 'model.int8.onnx.data', found "),
    ],
)
def test_weights_that_are_missing_or_cut_off_are_one_line(calib, done, harm, said):
    moved = shutil.copytree(done / "calib-out", done / "moved")
    harm(moved / "model.int8.onnx.data")
    result = calib("compare", "model.onnx", "moved/model.int8.onnx", "--data", "imgs", cwd=done)
    assert result.code == 1
    assert "moved/model.int8.onnx: expected " in result.err
    assert said in result.err
    assert "Traceback" not in result.err


def test_a_sweep_and_a_comparison_take_large_models(calib, project, low_limits):
    assert calib("sweep", "--out", "swept", "--per-tensor", cwd=project).code == 0
    rows = json.loads((project / "swept" / "sweep.json").read_text())["rows"]
    assert {row["top1"] for row in rows} == {100.0}
    assert (project / "swept" / "model.int8.onnx.data").exists()
    assert calib("compare", "model.onnx", "swept/model.int8.onnx", "--data", "imgs", cwd=project).code == 0


def test_a_model_built_in_python_is_written_and_known_by_its_contents(project, low_limits):
    made = build(project / "model.onnx", project / "imgs", num_images=8)
    path = made.write(project / "model.int8.onnx")
    data = project / "model.int8.onnx.data"
    assert made.model.sha256 == load_model(path).sha256 == sha256_of_files(path, data)
    assert made.model.bytes == path.stat().st_size + data.stat().st_size


def test_scales_go_into_a_large_model_and_come_out_of_it(calib, done, low_limits):
    made = calib("cache", "convert", "calib-out/calibration.cache", "big.onnx", "--model", "model.onnx", cwd=done)
    assert made.code == 0
    assert (done / "big.onnx.data").exists()
    assert calib("cache", "convert", "big.onnx", "again.cache", cwd=done).code == 0
    assert (done / "again.cache").read_bytes() == (done / "calib-out" / "calibration.cache").read_bytes()
