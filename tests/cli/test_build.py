"""`calib build`: engines of a named compute capability on a machine without a GPU, and what stops it."""

import hashlib
import json
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from calib.algorithms import MinMax
from calib.caches.cache import cache_from_amax, text_from_cache
from quant.onnx_graph.model import load_model
from quant.onnx_graph.tensor_types import activation_names
from quant.qdq.output_head import head_nodes
from quant.qdq.placement import Placement
from quant.qdq.writer import qdq_model_from_amax
from quant.tensorrt.bindings import TensorRTError, load_tensorrt, load_tensorrt_for_rtx
from tests import colour_project, detector_project

RTX = ("build", "--target", "tensorrt-rtx", "--compute-capability")


@pytest.fixture(scope="module")
def rtx():
    try:
        return load_tensorrt_for_rtx()
    except TensorRTError as error:
        pytest.skip(str(error))


def described(engine):
    return json.loads(engine.with_name(f"{engine.name}.json").read_text())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_and_its_cache_become_an_engine_for_each_capability(rtx, calib, finished):
    result = calib(*RTX, "8.6,8.9, 12.0", cwd=finished)
    assert result.code == 0, result.err
    out = finished / "calib-out"
    names = [f"model.int8.sm{number}.engine" for number in (86, 89, 120)]
    assert [line.split(":")[0] for line in result.out.splitlines()] == [f"calib-out/{name}" for name in names]
    assert all(line.endswith("; built, not measured") for line in result.out.splitlines())
    for name, capability in zip(names, ("8.6", "8.9", "12.0"), strict=True):
        found = described(out / name)
        assert found["measured"] is False
        assert found["engine"] == sha256(out / name)
        identity = found["identity"]
        assert identity["tensorrt"] == rtx.release
        assert (identity["gpu"], identity["compute_capability"], identity["precision"]) == ("", capability, "int8")
        assert identity["model"] == sha256(finished / "model.onnx")
        assert identity["batch"] == "8"
        assert found["details"]["explicit"] is True
    assert len({sha256(out / name) for name in names}) == 3
    assert not list(out.glob(".calib-*"))


def test_the_q_dq_model_of_a_run_is_built_as_it_is_and_listed_as_json(rtx, calib, finished):
    result = calib(*RTX, "8.9", "--model", "calib-out/model.int8.onnx", "--dynamic", "1:4:8", "--json", cwd=finished)
    assert result.code == 0, result.err
    document = json.loads(result.out)
    engine = finished / "calib-out" / "model.int8.sm89.engine"
    assert document["engines"] == [
        {
            "path": "calib-out/model.int8.sm89.engine",
            "precision": "int8",
            "compute_capability": "8.9",
            "tensorrt": rtx.release,
            "bytes": engine.stat().st_size,
            "sha256": sha256(engine),
            "measured": False,
        }
    ]
    identity = described(engine)["identity"]
    assert identity["model"] == sha256(finished / "calib-out" / "model.int8.onnx")
    assert (identity["scales"], identity["batch"]) == ("", "1:4:8")


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_other_precisions_need_no_scales(rtx, calib, colours, precision):
    result = calib(*RTX, "8.0", "--precision", precision, "--out", "engines", cwd=colours)
    assert result.code == 0, result.err
    written = {path.name for path in (colours / "engines").glob("model*")}
    assert written == {f"model.{precision}.sm80.engine", f"model.{precision}.sm80.engine.json"}


def test_the_size_of_an_open_model_comes_from_its_metadata_or_from_an_option(rtx, calib, tmp_path):
    detector_project.write_model(tmp_path / "model.onnx")
    options = ("--precision", "fp32", "--batch-size", 2)
    assert calib(*RTX, "8.9", *options, cwd=tmp_path).code == 0
    engine = tmp_path / "calib-out" / "model.fp32.sm89.engine"
    assert json.loads(described(engine)["identity"]["options"])["inputs"] == {"images": [3, 64, 64]}
    colour_project.write_model(tmp_path / "model.onnx", size=None)
    assert calib(*RTX, "8.9", *options, "--input-size", "12x20", cwd=tmp_path).code == 0
    assert json.loads(described(engine)["identity"]["options"])["inputs"] == {"input": [3, 12, 20]}
    (tmp_path / "p.toml").write_text('preset = "unit"\nsize = [16, 24]\n')
    assert calib(*RTX, "8.9", *options, "--preprocess", "p.toml", cwd=tmp_path).code == 0
    assert json.loads(described(engine)["identity"]["options"])["inputs"] == {"input": [3, 16, 24]}
    result = calib(*RTX, "8.9", *options, cwd=tmp_path)
    assert result.code == 1
    assert "input 'input': expected sizes on all axes but the batch, found axis 2 open; state the size" in result.error


def test_products_that_a_file_leaves_in_float_have_no_pairs(rtx, calib, finished):
    (finished / "precision.toml").write_text('[[float]]\nnodes = ["conv"]\n')
    layers = []
    for options in ((), ("--precisions", "precision.toml")):
        assert calib(*RTX, "8.9", *options, cwd=finished).code == 0
        layers.append(described(finished / "calib-out" / "model.int8.sm89.engine")["details"]["network_layers"])
    assert layers[1] < layers[0]


def test_what_has_no_pair_computes_in_fp16_where_that_is_asked_for(rtx, calib, finished):
    """Capability 7.5 has no matrix products in FP32, so it shows the type."""
    (finished / "precision.toml").write_text('[[float]]\nnodes = ["fc*"]\n')
    options = ("--precisions", "precision.toml")
    assert "FP32 GEMM is not supported" in calib(*RTX, "7.5", *options, cwd=finished).error
    result = calib(*RTX, "7.5", *options, "--float-type", "fp16", cwd=finished)
    assert result.code == 0, result.err
    identity = described(finished / "calib-out" / "model.int8.sm75.engine")["identity"]
    assert json.loads(identity["options"])["float_type"] == "fp16"


@pytest.mark.parametrize(
    ("options", "same", "kept"),
    [((), True, 2), (("--head", "int8"), False, 0), (("--task", "none"), False, 0), (("--task", "detect"), True, 2)],
)
def test_the_head_of_a_detector_stays_float_as_in_a_run(rtx, calib, tmp_path, options, same, kept):
    detector_project.write_model(tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx")
    amax = dict.fromkeys(activation_names(model.graph), 4.0)
    (tmp_path / "a.cache").write_text(text_from_cache(cache_from_amax(amax, MinMax())))
    result = calib(*RTX, "8.9", "--cache", "a.cache", "--batch-size", 1, *options, cwd=tmp_path)
    assert result.code == 0, result.err
    assert (f"{kept} products of the detector's head stay float" in result.err) is same
    expected = qdq_model_from_amax(
        model.proto, amax, Placement(float_nodes=head_nodes(model.light) if same else frozenset())
    )
    onnx.save(expected, tmp_path / "pairs.onnx")
    found = described(tmp_path / "calib-out" / "model.int8.sm89.engine")["details"]["network_layers"]
    assert calib(*RTX, "8.9", "--model", "pairs.onnx", "--batch-size", 1, cwd=tmp_path).code == 0
    assert found == described(tmp_path / "calib-out" / "model.int8.sm89.engine")["details"]["network_layers"]


def test_a_number_of_channels_that_is_open_is_said(rtx, calib, tmp_path):
    colour_project.write_model(tmp_path / "model.onnx", size=None)
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "c"
    onnx.save(model, tmp_path / "model.onnx")
    result = calib(*RTX, "8.9", "--precision", "fp32", "--input-size", "8x8", cwd=tmp_path)
    assert result.code == 1
    assert "expected sizes on all axes but the batch, found axis 1 open" in result.error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((*RTX, "9.0"), "builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1, found '9.0'"),
        ((*RTX, "8.9,sm86"), "compute_capability: expected numbers such as 8.6,8.9, found 'sm86'"),
        ((*RTX, " , "), "compute_capability: expected those of the GPUs to build for, such as 8.6,8.9, found none"),
        (("build", "--compute-capability", "8.9"), "TensorRT builds for the GPU that is here; use --target"),
        (("build", "--float-type", "fp16"), "float_type: only INT8 for tensorrt-rtx has one"),
        ((*RTX, "8.9", "--cache", "no.cache"), "no.cache: cannot be read"),
        ((*RTX, "8.9", "--out", "new"), "new/calibration.cache: expected scales for INT8, found none; give --cache"),
        ((*RTX, "8.9", "--model", "calib-out/model.int8.onnx", "--precision", "fp16"), "holds its own scales"),
        ((*RTX, "8.9", "--model", "none.onnx"), "none.onnx: "),
        ((*RTX, "8.9", "--model", "other.onnx"), "was made from another model than other.onnx; recalibrate"),
        ((*RTX, "8.9", "--model", "odd.onnx", "--precision", "fp32"), "node 'odd' (Det): UNSUPPORTED_NODE"),
        ((*RTX, "8.9", "--input-size", "4x4", "--precision", "fp32", "--model", "half.onnx"), "of which one side is 8"),
    ],
)
def test_what_stops_it_is_one_line_and_nothing_is_written(rtx, calib, finished, snapshot, arguments, part):
    colour_project.write_model(finished / "other.onnx", before=[helper.make_node("Abs", ["input"], ["pixels"])])
    colour_project.write_model(finished / "half.onnx", size=None)
    half = onnx.load(finished / "half.onnx")
    half.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 8
    onnx.save(half, finished / "half.onnx")
    write_odd_model(finished / "odd.onnx")
    before = snapshot(finished)
    result = calib(*arguments, cwd=finished)
    assert result.code == 1
    assert part in result.error
    assert snapshot(finished) == before


def write_odd_model(path):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"], name="odd")], "g", [value("x", 1, ["N", 3, 3])], [value("y", 1, ["N"])]
    )
    colour_project.save_graph(graph, path)


def test_a_cache_that_lacks_a_scale_is_refused(rtx, calib, finished, snapshot):
    shutil.copy(finished / "calib-out" / "calibration.cache", finished / "part.cache")
    header, *lines = (finished / "part.cache").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("input:")]
    (finished / "part.cache").write_text("\n".join([header, *kept]) + "\n")
    before = snapshot(finished)
    result = calib(*RTX, "8.9", "--cache", "part.cache", cwd=finished)
    assert result.code == 1
    assert "1 are missing, 'input' first" in result.error
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("tensorrt_rtx_bindings", (*RTX, "8.9"), "TensorRT for RTX is not installed; pip install 'calib-int8[rtx]'"),
        (
            "tensorrt",
            ("build",),
            "pip install 'calib-int8[tensorrt]', or build with --target tensorrt-rtx, which needs",
        ),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(
    calib, finished, monkeypatch, snapshot, module, arguments, words
):
    before = snapshot(finished)
    monkeypatch.setitem(sys.modules, module, None)
    for load in (load_tensorrt, load_tensorrt_for_rtx):
        load.cache_clear()
    result = calib(*arguments, cwd=finished)
    for load in (load_tensorrt, load_tensorrt_for_rtx):
        load.cache_clear()
    assert result.code == 1
    assert words in result.error
    assert snapshot(finished) == before


def test_an_engine_for_another_gpu_is_not_taken_for_one_that_runs_here(rtx, calib, finished):
    assert calib(*RTX, "8.9", cwd=finished).code == 0
    result = calib("compare", "model.onnx", "calib-out/model.int8.sm89.engine", "--data", "imgs", cwd=finished)
    assert result.code == 1
    expected = f"expected a GPU of compute capability 8.9 to run this engine of TensorRT {rtx.release}, found none: "
    assert f"model.int8.sm89.engine: {expected}" in result.error


def test_a_model_for_onnx_runtime_has_the_numbers_of_its_kernels(calib, finished):
    for option, bits in (("yes", 7), ("no", 8)):
        result = calib("build", "--target", "onnxruntime", "--reduce-range", option, cwd=finished)
        assert result.code == 0, result.err
        path = finished / "calib-out" / "model.int8.onnxruntime.onnx"
        assert result.out.startswith("calib-out/model.int8.onnxruntime.onnx: INT8 for ONNX Runtime, weights of ")
        assert f"weights of {bits} bits" in result.out
        model = onnx.load(path)
        onnx.checker.check_model(model)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        weights = [value for name, value in constants.items() if name.endswith("_quantized") and value.dtype == np.int8]
        assert max(int(np.abs(value).max()) for value in weights) == (63 if bits == 7 else 127)
        expected, found = outputs_of(finished / "model.onnx"), outputs_of(path)
        assert np.abs(expected - found).max() < 0.25 * np.abs(expected).max()


def outputs_of(path):
    """Outputs of a model, as ONNX Runtime runs a file by itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    images = np.random.default_rng(0).random((64, *given.shape[1:]), np.float32)
    return session.run(None, {given.name: images})[0]


def test_auto_asks_the_processor(calib, finished, monkeypatch):
    for missing, bits in (("AVX-512 VNNI", 7), ("", 8)):
        monkeypatch.setattr("quant.jobs.engines.build.missing_instructions", lambda missing=missing: missing)
        result = calib("build", "--target", "onnxruntime", "--json", cwd=finished)
        (built,) = json.loads(result.out)["engines"]
        assert built["weight_bits"] == bits
        assert built["sha256"] == sha256(finished / "calib-out" / "model.int8.onnxruntime.onnx")
        assert ("this processor has no AVX-512 VNNI" in result.err) is (bits == 7)


def test_the_cache_comes_back_from_a_model_for_onnx_runtime(calib, finished):
    assert calib("build", "--target", "onnxruntime", cwd=finished).code == 0
    result = calib("cache", "convert", "calib-out/model.int8.onnxruntime.onnx", "back.cache", cwd=finished)
    assert result.code == 0, result.err
    assert (finished / "back.cache").read_text() == (finished / "calib-out" / "calibration.cache").read_text()


def test_cache_convert_writes_the_same_model_for_onnx_runtime(calib, finished):
    assert calib("build", "--target", "onnxruntime", cwd=finished).code == 0
    convert = ("cache", "convert", "calib-out/calibration.cache", "--for", "onnxruntime")
    result = calib(*convert, "own.onnx", "--model", "model.onnx", cwd=finished)
    assert result.code == 0, result.err
    assert sha256(finished / "own.onnx") == sha256(finished / "calib-out" / "model.int8.onnxruntime.onnx")
    refused = calib(*convert, "own.cache", cwd=finished)
    assert "own.cache: expected a name ending in .onnx, because onnxruntime reads models" in refused.error


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--model", "calib-out/model.int8.onnx"), "expected the FP32 model for --target onnxruntime"),
        (("--compute-capability", "8.9"), "compute_capability: expected none for onnxruntime"),
        (("--precision", "fp16"), "precision: expected int8 for onnxruntime, found 'fp16'"),
        (("--out", "new"), "expected scales for INT8, found none"),
    ],
)
def test_what_stops_a_model_for_onnx_runtime(calib, finished, snapshot, options, part):
    before = snapshot(finished)
    result = calib("build", "--target", "onnxruntime", *options, cwd=finished)
    assert (result.code, part in result.error) == (1, True), result.err
    assert snapshot(finished) == before


def test_only_models_for_onnx_runtime_have_a_reduced_range(calib, finished):
    result = calib(*RTX, "8.9", "--reduce-range", "yes", cwd=finished)
    assert "reduce_range: only models for onnxruntime have one" in result.error


def test_engines_for_ranges_of_height_and_width(rtx, calib, tmp_path):
    colour_project.write_model(tmp_path / "model.onnx", size=None)
    options = ("--precision", "fp32", "--dynamic", "1:2:4,8:16:32,8:24:48")
    result = calib(*RTX, "8.9", *options, cwd=tmp_path)
    assert result.code == 0, result.err
    identity = described(tmp_path / "calib-out" / "model.fp32.sm89.engine")["identity"]
    assert identity["batch"] == "1:2:4,8:16:32,8:24:48"
    sizes = json.loads(identity["options"])["inputs"]["input"]
    assert sizes[0] == 3
    assert not any(isinstance(side, int) for side in sizes[1:])
    # Another range is another engine, and one that the model cannot have is refused by the builder.
    other = calib(*RTX, "8.9", "--precision", "fp32", "--dynamic", "1:2:4,8,8:24:48", cwd=tmp_path)
    assert other.code == 0, other.err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--dynamic", "1:2:4,8:16:32,8:16:32", "--input-size", "8x8"), "dynamic: expected ranges of height and width"),
        (("--dynamic", "1:2:4,8:16"), "dynamic batch: expected MIN:OPT:MAX"),
        (("--dynamic", "1:2:4,8:16:32,8:4:32"), "dynamic size: expected 1 <= MIN <= OPT <= MAX"),
        (("--dynamic", "1:2:4,8:16:32,8:16:32", "--model", "fixed.onnx"), "has the fixed height"),
    ],
)
def test_ranges_that_make_no_sense_are_one_line(rtx, calib, tmp_path, options, part):
    colour_project.write_model(tmp_path / "model.onnx", size=None)
    colour_project.write_model(tmp_path / "fixed.onnx")
    given = ("--model", "model.onnx") if "--model" not in options else ()
    result = calib(*RTX, "8.9", "--precision", "fp32", *given, *options, cwd=tmp_path)
    assert (result.code, part in result.error) == (1, True), result.err


def test_a_run_has_ranges_of_the_batch_alone(calib, tmp_path):
    colour_project.write_model(tmp_path / "model.onnx", size=None)
    result = calib("run", "--data", ".", "--dynamic", "1:2:4,8:16:32,8:16:32", cwd=tmp_path)
    assert "dynamic: expected MIN:OPT:MAX of the batch" in result.error
