"""`calib compare`: two models on the same data, and the report of it."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

INT8 = "calib-out/model.int8.onnx"


@pytest.fixture
def compared(calib, finished):
    """Compares, and gives the outcome and report.json."""

    def run(*arguments, code=0):
        result = calib("compare", *arguments, cwd=finished)
        assert result.code == code, result.err
        return result, json.loads((finished / "calib-compare" / "report.json").read_text())

    return run


def test_int8_against_fp32_on_all_images(compared, finished):
    result, document = compared("model.onnx", INT8)
    assert [build["precision"] for build in document["builds"]] == ["fp32", "int8"]
    assert document["data"]["evaluation"]["images"] == 36  # nothing calibrates: none is held back
    assert document["builds"][1]["drop_top1"] == 0
    assert document["builds"][1]["file"] == INT8
    assert [entry["found"] for entry in document["compared"]] == ["fp32", "int8"]
    assert (document["verdict"], document["chosen"], document["calibration"]) == ("pass", "int8", None)
    assert "pass: INT8 loses 0.00 points" in result.out
    assert {path.name for path in (finished / "calib-compare").iterdir()} >= {"report.md", "report.html"}


def test_the_figures_are_those_of_the_run_on_the_same_images(compared, calib, finished):
    _, document = compared("model.onnx", INT8)
    run = json.loads(calib("run", "--eval", "imgs", "--json", cwd=finished).out)
    ran = next(build for build in run["builds"] if build["precision"] == "int8")
    for key in ("top1", "drop_top1", "drop_ci95", "agreement", "sqnr_db", "cosine", "lost", "won"):
        assert document["builds"][1][key] == ran[key], key


def test_a_report_stands_for_the_model_that_its_run_built(compared):
    _, document = compared("model.onnx", "calib-out/report.json")
    assert document["compared"][1]["path"] == INT8


def test_two_int8_models_and_the_warning_about_the_baseline(compared, calib, finished):
    assert calib("run", "--algo", "mse", "--out", "other", cwd=finished).code == 0
    _, document = compared("calib-out/report.json", "other/report.json")
    assert [entry["path"] for entry in document["compared"]] == [INT8, "other/model.int8.onnx"]
    assert document["warnings"] == [f"{INT8} is int8, not fp32: 'fp32' in this report stands for it"]


@pytest.fixture
def worse(finished):
    """The model with the order of its classes turned round and its tensors renamed."""
    model = onnx.load(finished / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "identity":
            tensor.CopyFrom(numpy_helper.from_array(np.eye(3, dtype=np.float32)[::-1].copy(), "identity"))
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "input" else name for name in node.input]
    model.graph.input[0].name = "picture"
    onnx.save(model, finished / "worse.onnx")


def test_a_worse_model_is_told_apart_whatever_its_tensors_are_called(compared, worse):
    _, document = compared("model.onnx", "worse.onnx", code=3)
    assert [build["precision"] for build in document["builds"]] == ["fp32", "candidate"]
    assert (document["verdict"], document["chosen"]) == ("fail", "fp32")
    assert document["builds"][1]["top1"] == pytest.approx(100 / 3, abs=0.01)  # green, in the middle, stays right
    _, document = compared("model.onnx", "worse.onnx", "--max-drop", 70)
    assert document["verdict"] == "pass"


def test_a_metric_is_compared_too(compared, finished):
    (finished / "m.py").write_text("def largest(outputs, labels):\n    return outputs['logits'].max(1)\n")
    _, document = compared("model.onnx", INT8, "--metric", "m.py:largest")
    assert [build["precision"] for build in document["metric"]["builds"]] == ["fp32", "int8"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("model.onnx", "none.onnx"), "none.onnx: expected an ONNX model, found nothing"),
        (("model.onnx", "none.json"), "none.json: cannot be read: No such file"),
        (("model.onnx", "calib-out/calibration.json"), "calibration.json: expected the report.json of a run"),
        (("model.onnx", INT8, "--data", "nowhere"), "nowhere: no such file or folder"),
        (("model.onnx", "two.onnx"), "two.onnx: expected the inputs of model.onnx (input float32), found"),
    ],
)
def test_it_fails_with_one_line_and_writes_no_report(calib, finished, arguments, part):
    model = onnx.load(finished / "model.onnx")
    model.graph.input.extend([onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])])
    onnx.save(model, finished / "two.onnx")
    result = calib("compare", *arguments, "--quiet", cwd=finished)
    assert result.code == 1
    assert part in result.error
    assert not (finished / "calib-compare" / "report.json").exists()
