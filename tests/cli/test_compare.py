"""`calib compare`: two models, engines or runs on the same data, and its report."""

import importlib.util
import json
import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

INT8 = "calib-out/model.int8.onnx"


@pytest.fixture
def compared(calib, finished):
    """Runs a comparison; returns the outcome and report.json."""

    def run(*arguments, code=0):
        result = calib("compare", *arguments, cwd=finished)
        assert result.code == code, result.err
        out = arguments[arguments.index("--out") + 1] if "--out" in arguments else "calib-compare"
        return result, json.loads((finished / out / "report.json").read_text())

    return run


def test_int8_against_fp32_on_all_images(compared, finished):
    result, document = compared("model.onnx", INT8)
    assert [build["precision"] for build in document["builds"]] == ["fp32", "int8"]
    assert document["data"]["evaluation"]["images"] == 36  # nothing is calibrated, so no image is held back
    assert document["builds"][1]["drop_top1"] == 0
    assert document["builds"][1]["file"] == INT8
    assert [entry["found"] for entry in document["compared"]] == ["fp32", "int8"]
    assert (document["verdict"], document["chosen"], document["calibration"]) == ("pass", "candidate", None)
    assert "pass, use INT8: INT8 loses 0.00 points" in result.out
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


def test_two_int8_models_go_by_their_files(compared, calib, finished):
    assert calib("run", "--algo", "mse", "--out", "other", cwd=finished).code == 0
    result, document = compared("calib-out/report.json", "other/report.json")
    assert [entry["path"] for entry in document["compared"]] == [INT8, "other/model.int8.onnx"]
    assert [build["precision"] for build in document["builds"]] == ["int8", "int8"]
    assert document["warnings"] == []
    assert "other/model.int8.onnx loses 0.00 points of top-1 (95 % CI -" in result.out
    assert f"against {INT8} on" in result.out
    assert "fp32" not in result.out.lower()


@pytest.fixture
def worse(finished):
    """The model with the order of its classes reversed and its tensors renamed."""
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
    assert [build["precision"] for build in document["builds"]] == ["fp32", "fp32"]
    assert (document["verdict"], document["chosen"]) == ("fail", "baseline")
    assert document["builds"][1]["top1"] == pytest.approx(100 / 3, abs=0.01)  # green, in the middle, is still right
    _, document = compared("model.onnx", "worse.onnx", "--max-drop", 70)
    assert document["verdict"] == "pass"


METRICS = """
def negative_error(outputs, labels):
    return -abs(outputs['logits'][:, 2] - (labels == 2))

def red(outputs, labels):
    return outputs['logits'][:, 2]
"""


def test_a_metric_decides_in_place_of_top_1(compared, finished):
    """Half the brightness: top-1 stays 100 %, the red channel's average halves."""
    (finished / "m.py").write_text(METRICS)
    model = onnx.load(finished / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "identity":
            tensor.CopyFrom(numpy_helper.from_array(np.eye(3, dtype=np.float32) / 2, "identity"))
    onnx.save(model, finished / "dim.onnx")
    assert compared("model.onnx", "dim.onnx")[1]["verdict"] == "pass"
    result, document = compared("model.onnx", "dim.onnx", "--metric", "m.py:red", "--max-drop", 49, code=3)
    assert (document["verdict"], document["chosen"], document["decided_by"]) == ("fail", "baseline", "metric")
    full, half = document["metric"]["builds"]
    assert half["drop"] == pytest.approx(full["score"] / 2, rel=1e-5)
    assert document["metric"]["allowed_drop"] == pytest.approx(0.49 * full["score"])
    assert document["builds"][1]["drop_top1"] == 0
    assert re.search(
        r"fail: dim\.onnx loses \S+ of red \(95 % CI .*above the allowed .* \(49 % of model\.onnx's", result.out
    )
    assert compared("model.onnx", "dim.onnx", "--metric", "m.py:red", "--max-drop", 51)[1]["verdict"] == "pass"


def test_with_a_metric_there_is_a_verdict_without_labels(compared, finished):
    (finished / "m.py").write_text(METRICS)
    for i, path in enumerate(sorted((finished / "imgs").rglob("*.png"))):
        path.rename(finished / "imgs" / f"{i}.png")
    for folder in ("blue", "green", "red"):
        (finished / "imgs" / folder).rmdir()
    assert compared("model.onnx", INT8)[1]["verdict"] == "unlabelled"
    document = compared("model.onnx", INT8, "--metric", "m.py:red", "--max-drop", 5)[1]
    assert document["verdict"] == "pass"
    assert [build["precision"] for build in document["metric"]["builds"]] == ["fp32", "int8"]


def test_what_report_json_holds(compared, finished):
    """The keys of a run's report, without those that only a calibration has, and what was compared."""
    _, document = compared("model.onnx", "calib-out")
    run = json.loads((finished / "calib-out" / "report.json").read_text())
    assert set(document) == {*run, "compared"}
    assert set(document["builds"][1]) == set(run["builds"][-1])
    assert document["compared"] == [
        {
            "role": "baseline",
            "precision": "fp32",
            "path": "model.onnx",
            "sha256": run["model"]["sha256"],
            "found": "fp32",
            "report": None,
        },
        {
            "role": "candidate",
            "precision": "int8",
            "path": INT8,
            "sha256": document["compared"][1]["sha256"],
            "found": "int8",
            "report": "calib-out/report.json",
        },
    ]
    assert document["model"] == {"path": "model.onnx", "sha256": run["model"]["sha256"]}
    assert document["layers"] == run["layers"]
    assert (document["calibration"], document["data"]["calibration"], document["tensors"]) == (None, None, [])
    for name in ("per_class", "flips", "confusion", "reliability", "preprocessing", "classes"):
        assert document[name] == run[name], name


def test_a_sweep_stands_for_the_model_that_it_kept(compared, calib, finished):
    assert calib("sweep", "--out", "swept", cwd=finished).code == 0
    _, document = compared("calib-out", "swept")
    assert document["compared"][1] | {"sha256": ""} == {
        "role": "candidate", "precision": "int8", "path": "swept/model.int8.onnx", "sha256": "", "found": "int8",
        "report": "swept/sweep.json",
    }  # fmt: skip
    assert document["warnings"] == []
    assert document["data"]["evaluation"]["images"] == 12  # what neither calibrated on, as with two runs

    shutil.copy(finished / "calib-out" / "report.json", finished / "swept")  # a run was there before the sweep
    _, document = compared("model.onnx", "swept", "--out", "again")
    assert document["compared"][1]["report"] == "swept/sweep.json"

    shutil.copy(finished / "model.onnx", finished / "swept" / "model.int8.onnx")
    (finished / "swept" / "report.json").unlink()
    assert "is not the file that swept/sweep.json describes" in calib("compare", "swept", INT8, cwd=finished).error


@pytest.fixture
def bare(finished):
    """The finished project without its calib.toml: only the reports know the data."""
    (finished / "calib.toml").unlink()
    return finished


def test_reports_bring_their_images_and_preprocessing(compared, calib, bare):
    """A run evaluates what its calibration left over, 12 of 36 images; so does the comparison of its report."""
    run = json.loads((bare / "calib-out" / "report.json").read_text())
    _, document = compared("model.onnx", "calib-out")
    assert document["data"]["evaluation"] == run["data"]["evaluation"] | {
        "path": document["data"]["evaluation"]["path"]
    }
    assert document["data"]["evaluation"]["images"] == 12
    for key in ("top1", "drop_top1", "drop_ci95", "agreement", "sqnr_db", "lost", "won"):
        assert document["builds"][1][key] == run["builds"][-1][key], key
    again = calib(*document["command"].split()[1:], "--json", cwd=bare)
    assert json.loads(again.out)["builds"][1]["sqnr_db"] == document["builds"][1]["sqnr_db"]


def test_two_reports_are_compared_on_what_neither_calibrated_on(compared, calib, bare):
    options = ("--data", "imgs", "--preprocess", "unit", "--num-images", 24, "--batch-size", 8, "--algo", "minmax")
    assert calib("run", "--model", "model.onnx", *options, "--seed", 1, "--out", "other", cwd=bare).code == 0
    _, document = compared("calib-out/report.json", "other")
    assert [row["found"] for row in document["compared"]] == ["int8", "int8"]
    assert 0 < document["data"]["evaluation"]["images"] < 12  # two samples of 24 leave fewer than one
    _, document = compared("calib-out", "other", "--data", "imgs")
    assert document["data"]["evaluation"]["images"] == 36
    assert re.search(
        r"imgs: \d\d of 36 images were used for calibration, so the measured drop may", document["warnings"][0]
    )


def test_a_calibration_that_is_another_by_now_is_said(calib, bare):
    options = ("--model", "model.onnx", "--data", "imgs", "--preprocess", "unit", "--num-images", 20, "--seed", 5)
    shutil.copytree(bare / "calib-out", bare / "older")
    cache = ("--cache", "calib-out/calibration.cache", "--algo", "minmax", "--batch-size", 8)
    assert calib("run", *options, *cache, "--out", "newer", cwd=bare).code == 0
    found = calib("compare", "model.onnx", "calib-out", "--quiet", cwd=bare)
    assert found.code == 1
    assert "its calibration images are no longer known" in found.error
    assert "has since been made from other images; run again, or use --data to give images" in found.error


def test_a_comparison_s_own_report_stands_for_what_was_held_against(compared, bare):
    options = ("--data", "imgs", "--preprocess", "unit")
    compared("model.onnx", "calib-out", *options)
    _, document = compared("model.onnx", "calib-compare", *options, "--out", "again")
    assert document["compared"][1]["path"] == INT8


without_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)


@without_tensorrt
@pytest.mark.parametrize("side", [0, 1])
def test_an_engine_without_tensorrt_says_what_to_install(calib, finished, side):
    (finished / "model.int8.engine").write_bytes(b"an engine")
    pair = ["model.onnx", "model.onnx"]
    pair[side] = "model.int8.engine"
    found = calib("compare", *pair, "--quiet", cwd=finished)
    assert found.code == 1
    assert found.error == (
        "calib: error: model.int8.engine: an engine runs only on TensorRT and a GPU: TensorRT is not installed; "
        "pip install 'calib-int8[tensorrt]'"
    )


@without_tensorrt
def test_tensorrt_by_name_needs_tensorrt(calib, finished):
    found = calib("compare", "model.onnx", INT8, "--backend", "tensorrt", "--quiet", cwd=finished)
    assert found.error.startswith("calib: error: TensorRT is not installed; pip install")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("model.onnx", "none.onnx"), "none.onnx: expected an ONNX model, found nothing"),
        (("model.onnx", "none.json"), "none.json: cannot be read: No such file"),
        (("model.onnx", "none.engine"), "none.engine: cannot be read: No such file"),
        (
            ("model.onnx", "imgs"),
            "imgs: expected a model, an engine or the folder of a run or a sweep, found neither report.json nor",
        ),
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


def test_a_model_that_is_not_the_one_of_its_report_is_refused(calib, finished):
    """As a kill between the model and its report could leave it, or an edit."""
    model = finished / INT8
    model.write_bytes((finished / "model.onnx").read_bytes())
    error = calib("compare", "model.onnx", "calib-out", "--data", "imgs", cwd=finished).error
    assert "model.int8.onnx: is not the file that calib-out/report.json describes (SHA-256 " in error
    assert calib("compare", "model.onnx", INT8, "--data", "imgs", "--quiet", cwd=finished).code == 0


def test_a_report_of_an_earlier_version_is_taken_with_a_warning(calib, finished):
    path = finished / "calib-out" / "report.json"
    document = json.loads(path.read_text())
    for row in document["builds"]:
        assert len(row.pop("sha256") or 64 * "0") == 64
    path.write_text(json.dumps(document))
    result = calib("compare", "model.onnx", "calib-out", "--data", "imgs", cwd=finished)
    assert result.code == 0, result.err
    assert any("is of an earlier version and does not say which file it describes" in line for line in result.warnings)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(builds=5),
        lambda d: d.update(chosen=[]),
        lambda d: d.update(settings={"seed": "x"}),
        lambda d: d.update(settings={"data": "a\0b"}),
        lambda d: d.update(working_folder=5),
        lambda d: d.update(working_folder="a\0b"),
        lambda d: d["builds"][-1].update(file="a\0b"),
        lambda d: d["builds"][-1].update(file="\ud800"),
        lambda d: d["data"].update(evaluation={"images": "many"}),
        lambda d: d.update(calibration={"cache": 5}),
        lambda d: d.update(model=None),
    ],
)
def test_a_report_with_other_values_is_refused_in_one_line(calib, finished, change):
    path = finished / "calib-out" / "report.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    error = calib("compare", "model.onnx", "calib-out", cwd=finished).error
    assert "calib-out/report.json: expected the report.json of a run, found " in error


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "", "5", "null", "\x00"])
def test_a_report_that_is_none_is_refused_in_one_line(calib, finished, text):
    (finished / "calib-out" / "report.json").write_text(text)
    error = calib("compare", "model.onnx", "calib-out", cwd=finished).error
    assert "calib-out/report.json: expected the report.json of a run, found something else" in error
