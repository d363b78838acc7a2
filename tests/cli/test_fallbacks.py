"""What is chosen when INT8 loses too much or cannot be built, and with which exit code."""

import struct
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.outcome import quick_enough

MODELS = {"model.int8.onnx", "model.fp16.onnx", "model.fp32.onnx"}


def written_models(project, out="calib-out"):
    return {path.name for path in (project / out).iterdir()} & MODELS


@pytest.fixture
def crushed(finished, scales, tmp_path):
    """A project whose cache, trusted, makes INT8 useless: every tensor is cut off near zero."""
    cache = tmp_path / "crushed.cache"
    cache.write_bytes((finished / "calib-out" / "calibration.cache").read_bytes())
    tiny = struct.pack(">f", 1e-6).hex()
    scales(cache, lambda digits: tiny)
    return finished, cache


def test_int8_that_loses_too_much_falls_back_to_fp16(calib, crushed, report):
    project, cache = crushed
    result = calib("run", "--cache", cache, "--trust-cache", cwd=project)
    assert result.code == 0, result.err
    found = report(project)
    assert (found["verdict"], found["chosen"], found["exit_code"]) == ("fail", "fp16", 0)
    assert found["calibration"]["how"] == "trusted"
    int8 = found["builds"][-1]
    assert int8["drop_top1"] > 1
    low, high = int8["drop_ci95"]
    assert low <= int8["drop_top1"] <= high
    assert f"INT8 loses {int8['drop_top1']:.2f} points of top-1, more than the allowed 1.0" in found["reason"]
    assert found["reason"] in result.out
    assert "use FP16" in result.out
    assert written_models(project) == {"model.int8.onnx", "model.fp16.onnx"}


def test_a_generous_max_drop_accepts_int8(calib, crushed, report):
    project, cache = crushed
    assert calib("run", "--cache", cache, "--trust-cache", "--max-drop", 100, cwd=project).code == 0
    assert (report(project)["verdict"], report(project)["chosen"]) == ("pass", quick_enough(report(project)))


def test_when_nothing_meets_max_drop_fp32_is_chosen_with_exit_3(calib, colours, report):
    result = calib("run", "--max-drop", -0.5, cwd=colours)  # only a gain of half a point would be accepted
    assert result.code == 3
    found = report(colours)
    assert (found["verdict"], found["chosen"], found["exit_code"]) == ("fail", "fp32", 3)
    assert "INT8 loses 0.00 points" in found["reason"]
    assert "FP16 loses 0.00 points" in found["reason"]
    assert "FP32" in found["reason"]
    assert "use FP32" in result.out


def test_json_keeps_the_exit_code(calib, colours):
    result = calib("run", "--json", "--max-drop", -0.5, "--precision", "fp16", cwd=colours)
    assert result.code == 3
    assert '"chosen": "fp32"' in result.out


@pytest.fixture
def unquantizable(finished, save_graph):
    """A project after a run, whose model was then replaced by one that has nothing to quantize."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pool",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
    )
    save_graph(graph, finished / "model.onnx")
    (finished / "classes.txt").write_text("red\ngreen\nblue\n")  # the order of the channels
    return finished


def test_a_model_with_nothing_to_quantize_falls_back_to_fp16_and_says_why(calib, unquantizable, report):
    result = calib("run", "--quiet", "--classes", "classes.txt", "--out", "new", cwd=unquantizable)
    assert result.code == 0, result.err
    found = report(unquantizable, "new")
    assert (found["verdict"], found["chosen"]) == ("fail", "fp16")
    assert "INT8 cannot be built (the model has no Conv" in found["reason"]
    assert found["failed_builds"][0]["precision"] == "int8"
    assert found["failed_builds"][0]["reason"] in result.warnings[0]
    assert [build["precision"] for build in found["builds"]] == ["fp32", "fp16"]
    assert found["builds"][0]["top1"] == 100
    assert written_models(unquantizable, "new") == {"model.fp16.onnx"}


def test_a_build_of_an_earlier_run_does_not_pass_for_one_that_could_not_be_made(calib, unquantizable, report):
    out = unquantizable / "calib-out"
    for name in ("model.int8.engine", "model.int8.engine.json", "model.fp32.engine", "notes.txt"):
        (out / name).write_text("older")
    result = calib("run", "--quiet", "--classes", "classes.txt", cwd=unquantizable)
    assert result.code == 0, result.err
    gone = "model.int8.onnx, model.int8.engine, model.int8.engine.json"
    said = f"calib-out: {gone} of an earlier run is removed, because int8 cannot be built"
    assert said in result.warnings
    assert said in report(unquantizable)["warnings"]
    assert written_models(unquantizable) == {"model.fp16.onnx"}
    assert not list(out.glob("model.int8*"))
    assert (out / "model.fp32.engine").read_text() == (out / "notes.txt").read_text() == "older"


def test_a_run_that_fails_where_int8_cannot_be_built_removes_nothing(calib, unquantizable, snapshot):
    (unquantizable / "calib-out" / "report.md").unlink()
    (unquantizable / "calib-out" / "report.md").mkdir()
    older = snapshot(unquantizable / "calib-out")
    result = calib("run", "--quiet", "--classes", "classes.txt", cwd=unquantizable)
    assert result.code == 1
    assert "calib-out: could not be written: 'report.md' is a folder there" in result.err
    kept = {path: state for path, state in snapshot(unquantizable / "calib-out").items() if path in older}
    assert {path for path in kept if path.name.startswith("model")} == {Path("model.int8.onnx")}
    assert kept[Path("model.int8.onnx")] == older[Path("model.int8.onnx")]
    assert kept[Path("report.json")] == older[Path("report.json")]


def test_a_build_that_is_a_baseline_now_replaces_that_of_an_earlier_run(calib, finished, write_model, report):
    assert calib("run", "--precision", "fp16", cwd=finished).code == 0
    older = (finished / "calib-out" / "model.fp16.onnx").read_bytes()
    write_model(finished / "model.onnx", opset=16)
    assert calib("run", cwd=finished).code == 0
    assert report(finished)["chosen"] == quick_enough(report(finished))
    assert {build["precision"]: build["file"] for build in report(finished)["builds"]} == {
        "fp32": "model.onnx",
        "fp16": "model.fp16.onnx",
        "int8": "model.int8.onnx",
    }
    assert (finished / "calib-out" / "model.fp16.onnx").read_bytes() != older
    assert onnx.load(finished / "calib-out" / "model.fp16.onnx").opset_import[0].version == 16
