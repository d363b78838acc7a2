"""`calib sweep`: what it tries, what it keeps, and how it fails."""

import importlib.util
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from calib.caches.cache import read_cache
from quant.onnx_graph.model import load_model
from quant.qdq.reader import cache_from_qdq_model
from quant.report.views.sweep import text_from_sweep

NAMES = {"entropy", "minmax", "mse", "percentile 99.9", "percentile 99.99", "percentile 99.999"}


@pytest.fixture
def swept(calib, colours):
    """Runs a sweep in the colour project; returns its outcome and its document."""

    def run(*options, code=0):
        result = calib("sweep", *options, cwd=colours)
        assert result.code == code, result.err
        return result, json.loads((colours / "calib-out" / "sweep.json").read_text())

    return run


def test_all_algorithms_are_tried_and_the_best_comes_first(swept):
    result, document = swept()
    rows = document["rows"]
    assert {row["name"] for row in rows} == NAMES
    assert rows == sorted(rows, key=lambda row: (row["drop_top1"], -row["sqnr_db"]))
    assert (document["best"], document["worst"]) == (rows[0]["name"], rows[-1]["name"])
    assert document["decided_by"] == "top1"
    table = result.out.splitlines()
    assert [line.split("  ")[0] for line in table[1:7]] == [row["name"] for row in rows]
    assert f"best: {rows[0]['name']}, kept as calib-out/calibration.cache and calib-out/model.int8.onnx" in table
    assert f"worst: {rows[-1]['name']}" in table
    assert result.err.count("Evaluating") <= 1


def test_the_best_is_kept_and_serves_a_run(swept, calib, colours):
    _, document = swept("--json")
    out = colours / "calib-out"
    cache, model = read_cache(out / "calibration.cache"), load_model(out / "model.int8.onnx")
    for tensor, scale in cache_from_qdq_model(model.proto, "model").cache.scales.items():
        assert cache.scales[tensor] == scale
    arguments = document["again"].split()[1:]
    result = calib(*arguments, "--json", "--out", "calib-out", cwd=colours)
    assert json.loads(result.out)["calibration"]["how"] == "reused"


def test_a_report_of_another_build_does_not_stay_beside_the_one_that_is_kept(swept, calib, colours):
    """A set of files is one thing: the report holds the hash of a build that the sweep replaces."""
    assert calib("run", cwd=colours).code in (0, 3)
    out = colours / "calib-out"
    reports = [out / f"report.{end}" for end in ("json", "md", "html")]
    assert all(path.exists() for path in reports)
    result, _ = swept()
    assert not any(path.exists() for path in reports)
    assert "report.json, report.md, report.html of an earlier run are removed" in result.err


def test_json_prints_the_document_alone(swept):
    result, document = swept("--json", "--quiet")
    assert json.loads(result.out) == document


def test_the_plot_names_every_algorithm(swept, colours):
    swept()
    root = ET.parse(colours / "calib-out" / "sweep.svg").getroot()
    texts = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert texts >= NAMES
    assert any("Drop of top-1" in text for text in texts)


def test_the_images_are_calibrated_once(swept, calib, colours):
    """A second sweep reuses the statistics, and so does a run with any algorithm."""
    swept()
    result, _ = swept()
    assert "no image is read for calibration" in result.err or "from the same statistics" in result.err
    found = calib("run", "--algo", "mse", "--json", cwd=colours)
    calibration = json.loads(found.out)["calibration"]
    assert calibration["how"] in ("recomputed", "reused")
    assert calibration["reused"] is True


@pytest.fixture
def two_needs(tmp_path, write_model):
    """A project whose tensor `colours` has rare values that count, and `inner` rare, loud ones that nobody reads."""
    generator = np.random.default_rng(0)
    (tmp_path / "imgs").mkdir()
    for i in range(32):
        pixels = generator.integers(0, 9, (24, 24, 3), np.uint8)
        pixels[tuple(generator.integers(0, 24, 2))] = (255, 0, 0)
        Image.fromarray(pixels).save(tmp_path / "imgs" / f"{i:02}.png")
    loud_red = [[0, 1, 0], [0, 0, 1], [50, 0, 0]]
    constants = {
        "spread": np.reshape(loud_red, (3, 3, 1, 1)),
        "shift": [0, 0, -10],
        "read": np.diag([1, 1, 0]).reshape(3, 3, 1, 1),
    }
    after = [
        helper.make_node("Conv", ["input", "spread", "shift"], ["spreaded"], name="spread"),
        helper.make_node("Relu", ["spreaded"], ["inner"]),
        helper.make_node("Conv", ["inner", "read"], ["quiet"], name="read"),
        helper.make_node("Add", ["colours", "quiet"], ["features"]),
    ]
    write_model(tmp_path / "model.onnx", size=24, after=after, constants=constants)
    (tmp_path / "calib.toml").write_text('model = "model.onnx"\ndata = "imgs"\npreprocess = "unit"\nnum_images = 24\n')
    return tmp_path


def test_per_tensor_begins_with_the_best_and_changes_what_gains(calib, two_needs):
    result = calib("sweep", "--per-tensor", cwd=two_needs)
    document = json.loads((two_needs / "calib-out" / "sweep.json").read_text())
    best, second = document["rows"][:2]
    assert {row["name"] for row in document["rows"]} == {*NAMES, "per-tensor"}
    assert document["best"] == best["name"] == "per-tensor"
    assert best["sqnr_db"] > second["sqnr_db"] + 1
    choice = document["per_tensor"]
    assert choice["start"] == second["name"]
    assert choice["algorithms"]["inner"] != choice["algorithms"]["colours"]
    changed = [name for name in choice["algorithms"].values() if name != choice["start"]]
    assert choice["changed"] == len(changed) > 0
    assert choice["sqnr_db"] > choice["start_sqnr_db"] + 1
    assert choice["confirmed_sqnr_db"] > choice["confirmed_start_sqnr_db"] + 1
    tensors = len(choice["algorithms"])
    assert f"per-tensor: {len(changed)} of {tensors} tensors differ from {choice['start']}" in result.out.splitlines()


def test_a_choice_by_tensor_that_is_kept_serves_a_run(calib, two_needs):
    document = json.loads(calib("sweep", "--per-tensor", "--json", cwd=two_needs).out)
    assert document["best"] == "per-tensor"
    out = two_needs / "calib-out"
    cache, model = read_cache(out / "calibration.cache"), load_model(out / "model.int8.onnx")
    for tensor, scale in cache_from_qdq_model(model.proto, "model").cache.scales.items():
        assert cache.scales[tensor] == scale
    result = calib(*document["again"].split()[1:], "--out", "calib-out", "--json", cwd=two_needs)
    assert json.loads(result.out)["calibration"]["how"] == "trusted"


def test_the_choice_by_tensor_is_scored_by_the_metric_on_the_same_images(calib, two_needs):
    (two_needs / "m.py").write_text("def blue(outputs, labels):\n    return outputs['logits'][:, 0]\n")
    alone, document = (
        json.loads(calib("sweep", "--metric", "m.py:blue", "--json", *options, cwd=two_needs).out)
        for options in ([], ["--per-tensor"])
    )
    assert document["metric"] == alone["metric"]
    drops = {row["name"]: row["metric_drop"] for row in document["rows"]}
    assert document["per_tensor"]["changed"] > 0
    assert drops == {**{row["name"]: row["metric_drop"] for row in alone["rows"]}, "per-tensor": drops["per-tensor"]}


def test_where_nothing_is_confirmed_per_tensor_is_the_best_single_algorithm(calib, two_needs):
    """Of four images, one is for the trials, and a single image shows nothing."""
    result = calib("sweep", "--per-tensor", "--num-images", "4", cwd=two_needs)
    document = json.loads((two_needs / "calib-out" / "sweep.json").read_text())
    best, second = document["rows"][:2]
    assert second == {**best, "name": "per-tensor"}
    assert document["best"] == document["per_tensor"]["start"] == best["name"]
    assert set(document["per_tensor"]["algorithms"].values()) == {best["name"]}
    same = f"per-tensor: no other algorithm improves a tensor by more than chance; the same as {best['name']}"
    assert same in result.out.splitlines()


def test_a_choice_by_tensor_that_loses_is_said_to(swept, tmp_path):
    _, document = swept()
    choice = {"start": "minmax", "changed": 1, "as_good_as_best": False, "algorithms": dict.fromkeys("abc", "mse")}
    text = text_from_sweep({**document, "best": "minmax", "per_tensor": choice}, tmp_path)
    expected = "per-tensor: 1 of 3 tensors differ from minmax; worse on the evaluated images, and not kept"
    assert expected in text.splitlines()


def test_without_labels_the_sqnr_decides(calib, colours):
    for i, path in enumerate(sorted((colours / "imgs").rglob("*.png"))):
        path.rename(colours / "imgs" / f"{i}.png")
    for folder in ("blue", "green", "red"):
        (colours / "imgs" / folder).rmdir()
    document = json.loads(calib("sweep", "--json", cwd=colours).out)
    assert document["decided_by"] == "sqnr"
    assert all(row["drop_top1"] is None for row in document["rows"])
    values = [row["sqnr_db"] for row in document["rows"]]
    assert values == sorted(values, reverse=True)
    assert "SQNR of the outputs" in (colours / "calib-out" / "sweep.svg").read_text()


def test_settings_of_calib_toml_that_do_not_count_do_not_disturb(calib, colours):
    with (colours / "calib.toml").open("a") as file:
        file.write('precision = "fp16"\ncache = "elsewhere.cache"\n')
    assert calib("sweep", cwd=colours).code == 0
    assert not (colours / "elsewhere.cache").exists()


def test_tensorrt_by_name_that_is_not_there_stops_the_sweep(calib, colours):
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    result = calib("sweep", "--backend", "tensorrt", "--quiet", cwd=colours)
    assert result.code == 1
    assert result.error.startswith("calib: error: TensorRT is not installed; pip install")
    assert not (colours / "calib-out" / "sweep.json").exists()


def test_tensorrt_s_own_calibration_in_calib_toml_is_said_not_to_be_swept(swept, colours):
    with (colours / "calib.toml").open("a") as file:
        file.write('calibrator = "tensorrt"\n')
    _, document = swept()
    assert document["warnings"] == [
        "calibrator tensorrt: a sweep compares the toolkit's own algorithms; TensorRT's is not among them"
    ]
    assert document["backend"]["name"] == "onnxruntime"
    assert document["kept"] == "model.int8.onnx"


def test_a_model_with_nothing_to_quantize(calib, colours, snapshot):
    (colours / "model.onnx").write_bytes(b"nonsense")
    before = snapshot(colours)
    result = calib("sweep", cwd=colours)
    assert result.code == 1
    assert "model.onnx: expected an ONNX model" in result.error
    assert snapshot(colours) == before
