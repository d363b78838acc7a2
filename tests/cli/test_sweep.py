"""`calib sweep`: what it tries, what it keeps, and how it fails."""

import importlib.util
import json
import xml.etree.ElementTree as ET

import pytest

from calib.cache import read_cache
from quant.graph import load_model
from quant.qdq_reader import cache_from_qdq_model
from quant.sweep_report import text_from_sweep

NAMES = {"entropy", "minmax", "mse", "percentile 99.9", "percentile 99.99", "percentile 99.999"}


@pytest.fixture
def swept(calib, colours):
    """Runs a sweep in the colour project; its outcome and its document."""

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
    """A second sweep uses the statistics again, and so does a run of any algorithm."""
    swept()
    result, _ = swept()
    assert "no image is read for calibration" in result.err or "from the same statistics" in result.err
    found = calib("run", "--algo", "mse", "--json", cwd=colours)
    assert json.loads(found.out)["calibration"]["how"] in ("recomputed", "reused")


def test_per_tensor_is_one_more_row_and_tells_its_choice(swept):
    result, document = swept("--per-tensor")
    drops = {row["name"]: row["drop_top1"] for row in document["rows"]}
    assert set(drops) == {*NAMES, "per-tensor"}
    choice = document["per_tensor"]
    assert set(choice["algorithms"].values()) <= NAMES
    assert choice["changed"] == sum(name != choice["start"] for name in choice["algorithms"].values())
    assert choice["sqnr_db"] >= choice["start_sqnr_db"]
    assert choice["as_good_as_best"] == (drops["per-tensor"] <= min(drops[name] for name in NAMES))
    assert len([line for line in result.out.splitlines() if line.startswith("per-tensor: ")]) == 1


def test_a_choice_by_tensor_that_loses_is_said_to(swept, tmp_path):
    _, document = swept("--per-tensor")
    algorithms = {"a": "entropy", "b": "mse", "c": "entropy"}
    none = "no other algorithm serves a tensor better beyond chance; the same as entropy"
    behind = "; behind minmax on the evaluated images, and not kept"
    for changed, as_good, expected in (
        (0, True, none),
        (0, False, none + behind),
        (1, True, "1 of 3 tensors differ from entropy"),
        (1, False, "1 of 3 tensors differ from entropy" + behind),
    ):
        choice = {"start": "entropy", "changed": changed, "as_good_as_best": as_good, "algorithms": algorithms}
        text = text_from_sweep({**document, "best": "minmax", "per_tensor": choice}, tmp_path)
        assert f"per-tensor: {expected}" in text.splitlines()


def test_a_choice_by_tensor_that_is_kept_serves_a_run(calib, colours, monkeypatch):
    from quant.sweep import PER_TENSOR, SweepRow

    rank = SweepRow.rank.fget
    monkeypatch.setattr(SweepRow, "rank", property(lambda row: (row.name != PER_TENSOR, *rank(row))))
    document = json.loads(calib("sweep", "--per-tensor", "--json", cwd=colours).out)
    assert document["best"] == PER_TENSOR
    result = calib(*document["again"].split()[1:], "--out", "calib-out", "--json", cwd=colours)
    assert json.loads(result.out)["calibration"]["how"] == "trusted"


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
