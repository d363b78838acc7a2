"""What is chosen when INT8 loses too much or cannot be built, and with which exit code."""

import struct

import pytest
from onnx import TensorProto, helper

MODELS = {"model.int8.onnx", "model.fp16.onnx", "model.fp32.onnx"}


def written_models(project):
    return {path.name for path in (project / "calib-out").iterdir()} & MODELS


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
    assert (report(project)["verdict"], report(project)["chosen"]) == ("pass", "int8")


def test_when_nothing_meets_max_drop_fp32_is_chosen_with_exit_3(calib, colours, report):
    result = calib("run", "--max-drop", -0.5, cwd=colours)  # only a gain of half a point would do
    assert result.code == 3
    found = report(colours)
    assert (found["verdict"], found["chosen"], found["exit_code"]) == ("fail", "fp32", 3)
    assert "INT8 loses 0.00 points" in found["reason"]
    assert "FP16 loses 0.00 points" in found["reason"]
    assert "FP32" in found["reason"]
    assert "use FP32" in result.out


def test_json_keeps_the_exit_code(calib, colours):
    result = calib("run", "--json", "--max-drop", -0.5, cwd=colours)
    assert result.code == 3
    assert '"chosen": "fp32"' in result.out


def test_a_model_with_nothing_to_quantize_falls_back_to_fp16_and_says_why(calib, colours, report, save_graph):
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
    save_graph(graph, colours / "model.onnx")
    (colours / "classes.txt").write_text("red\ngreen\nblue\n")  # the order of the channels
    result = calib("run", "--quiet", "--classes", "classes.txt", cwd=colours)
    assert result.code == 0, result.err
    found = report(colours)
    assert (found["verdict"], found["chosen"]) == ("fail", "fp16")
    assert "INT8 cannot be built (the model has no Conv" in found["reason"]
    assert found["failed_builds"][0]["precision"] == "int8"
    assert found["failed_builds"][0]["reason"] in result.warnings[0]
    assert [build["precision"] for build in found["builds"]] == ["fp32", "fp16"]
    assert found["builds"][0]["top1"] == 100
    assert written_models(colours) == {"model.fp16.onnx"}


def test_a_model_that_is_quantized_already_remains_as_it_is_with_exit_3(calib, finished, report):
    (finished / "calib-out" / "model.int8.onnx").rename(finished / "model.onnx")
    result = calib("run", "--quiet", cwd=finished)
    assert result.code == 3
    found = report(finished)
    assert "INT8 cannot be built (the model is quantized already; give the FP32 model)" in found["reason"]
    assert "FP16 cannot be built" in found["reason"]
    assert found["chosen"] == "fp32"
    assert [item["precision"] for item in found["failed_builds"]] == ["fp16", "int8"]
