"""Whole commands on a detector: what is measured, what the head costs, what is said, with labels and without."""

import json
import shutil

import numpy as np
import onnx
import pytest

from quant.onnx_graph.metadata import ModelMetadata, metadata_from_model
from quant.tasks.detection.boxes import overlaps
from tests import detector_project
from tests.once import made_once


@pytest.fixture(scope="session")
def squares_master(tmp_path_factory):
    return made_once(tmp_path_factory, "squares", detector_project.write_project)


@pytest.fixture
def squares(squares_master, tmp_path):
    """The project, to change at will."""
    return shutil.copytree(squares_master, tmp_path / "squares")


def report(project, folder="calib-out"):
    return json.loads((project / folder / "report.json").read_text())


@pytest.mark.charts
def test_a_labelled_detector_gets_map_with_an_interval_and_a_verdict(calib, squares):
    result = calib("run", cwd=squares)
    assert result.code == 0, result.err
    assert "task: detect (one output [N, 4 + 2, A], boxes as" in result.err
    assert "preprocessing: yolo (letterbox 64x64, rgb, pixels times 0.00392157, nchw float32), from " in result.err
    assert "from the model's metadata (2 class names, size 64x64, task detect" in result.err
    document = report(squares)
    builds = {row["precision"]: row for row in document["builds"]}
    assert (document["verdict"], document["decided_by"]) == ("pass", "map")
    assert document["data"]["evaluation"] == {"path": "images/val", "images": 16, "labelled": True}
    assert 30 < builds["fp32"]["map"] < 100 == pytest.approx(builds["fp32"]["map50"], abs=1)
    int8 = builds["int8"]
    assert int8["drop_map"] == pytest.approx(builds["fp32"]["map"] - int8["map"], abs=1e-3)
    assert int8["drop_map_ci95"][0] <= int8["drop_map"] <= int8["drop_map_ci95"][1]
    assert abs(int8["drop_map"]) <= 1
    assert [row["name"] for row in document["detection"]["classes"]] == ["red", "green"]
    assert document["calibration"]["algo"] == "minmax"
    assert "points of mAP 50-95 (95 % CI" in result.out


def test_the_letterbox_is_undone(calib, squares):
    """FP32's boxes of squares that fill their cell lie on the labels to a fraction of a pixel."""
    calib("run", "--precision", "fp32", cwd=squares)
    found = report(squares)["detection"]
    assert found["builds"][0]["map50"] == pytest.approx(100, abs=1)
    assert found["builds"][0]["map_small"] == pytest.approx(found["builds"][0]["score"])  # 16 pixels in the images
    assert overlaps(np.array([[0.0, 0, 16, 16]]), np.array([[0.0, 8, 16, 24]])).item() < 0.5  # as much as the border


def test_a_detector_that_loses_too_much_is_recovered(calib, squares):
    """Nothing is within a drop of less than nothing, so every step is tried; the report is that of what was kept."""
    result = calib("run", "--head", "int8", "--max-drop", "-90", "--recover", "ranges,float", cwd=squares)
    found = report(squares)
    assert "INT8 loses too much" in result.err
    steps = [step["step"] for step in found["recovery"]["steps"]]
    assert steps[0] == "ranges"
    assert steps[-1] == "float"
    assert [row["precision"] for row in found["metric"]["builds"]] == ["fp32", "fp16", "int8"]
    assert all("mAP 50-95" in look or "cannot" in look for look in found["recovery"]["looks"])
    assert (found["detection"]["head_kept"] is None) == found["recovery"]["used"]
    assert len(found["detection"]["curves"]) == 3


def test_the_head_stays_float_and_the_other_way_is_measured_beside_it(calib, squares):
    assert calib("run", cwd=squares).code == 0
    kept = report(squares)["detection"]["head_kept"]
    assert (kept["kept"], kept["nodes"]) == ("float", ["boxes.conv", "scores.conv"])
    assert [row["head"] for row in kept["builds"]] == ["float", "int8"]
    assert all(row["latency_ms"] > 0 and row["score"] > 0 for row in kept["builds"])
    of_float = quantized_convolutions(squares)
    assert of_float == {"stem", "body"}
    assert calib("run", "--head", "int8", cwd=squares).code == 0
    other = report(squares)["detection"]["head_kept"]
    assert (other["kept"], other["nodes"]) == ("int8", [])
    assert [row["head"] for row in other["builds"]] == ["int8", "float"]
    for first, second in ((kept["builds"][0], other["builds"][1]), (kept["builds"][1], other["builds"][0])):
        assert first["score"] == pytest.approx(second["score"], abs=1e-6)
    assert quantized_convolutions(squares) == {"stem", "body", "boxes.conv", "scores.conv"}


def quantized_convolutions(project):
    graph = onnx.load(project / "calib-out/model.int8.onnx").graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name for node in graph.node if node.op_type == "Conv" and node.input[0] in dequantized}


@pytest.mark.charts
def test_without_labels_fp32s_detections_are_the_truth(calib, squares):
    result = calib("run", "--data", "images", "--no-labels", cwd=squares)
    assert result.code == 0, result.err
    document = report(squares)
    builds = {row["precision"]: row for row in document["builds"]}
    assert (document["verdict"], document["decided_by"]) == ("unlabelled", None)
    assert builds["fp32"]["agreement_map50"] == pytest.approx(100)
    assert builds["int8"]["agreement_map50"] >= 95
    assert "map" not in builds["fp32"] and "drop_map" not in builds["int8"]
    assert "INT8's detections agree with FP32's to an mAP 50 of" in result.out
    assert document["detection"]["against"] == "fp32"
    assert not document["data"]["evaluation"]["labelled"]


def test_a_build_that_detects_elsewhere_is_unfit(calib, squares):
    """A head whose scores all fall below the threshold: without labels, too, it must not be recommended."""
    model = onnx.load(squares / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bc")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(2, -30, np.float32), "bc"))
    onnx.save(model, squares / "spoiled.onnx")
    result = calib("compare", "model.onnx", "spoiled.onnx", "--data", "images", "--no-labels", cwd=squares)
    assert result.code == 3
    assert "the candidate is unfit: its detections agree with FP32's to an mAP 50 of 0.0" in result.out


@pytest.mark.charts
def test_confidence_tells_which_threshold_keeps_the_recall(calib, squares):
    assert calib("run", cwd=squares).code == 0
    rows = report(squares)["detection"]["confidence"]
    assert [row["precision"] for row in rows] == ["fp32", "fp16", "int8"]
    for row in rows:
        assert row["usual"]["threshold"] == 0.25
        assert row["keeping"]["recall"] >= rows[0]["usual"]["recall"] - 1e-3
        assert len(row["f1"]) == len(row["histogram"]) == 20
    text = (squares / "calib-out/report.md").read_text()
    for title in ("## mAP 50-95", "by class, worst first", "Confidence before and after", "The head in float"):
        assert title in text
    html = (squares / "calib-out/report.html").read_text()
    assert 'id="pr-value.curve.fp32"' in html and 'id="f1-value.f1.build"' in html


def test_a_comparison_and_a_sweep_of_detectors(calib, squares):
    assert calib("run", cwd=squares).code == 0
    mine = {row["precision"]: row for row in report(squares)["builds"]}
    result = calib("compare", "model.onnx", "calib-out/model.int8.onnx", "--data", "data.yaml", cwd=squares)
    assert result.code == 0, result.err
    compared = report(squares, "calib-compare")["builds"]
    for row, precision in zip(compared, ("fp32", "int8"), strict=True):
        assert row["map"] == pytest.approx(mine[precision]["map"], abs=1e-3)
    assert compared[1]["drop_map_ci95"] == pytest.approx(mine["int8"]["drop_map_ci95"], abs=1e-3)
    swept = json.loads(calib("sweep", "--json", cwd=squares).out)
    assert swept["metric"]["name"] == "mAP 50-95"
    assert swept["metric"]["fp32"] == pytest.approx(mine["fp32"]["map"], abs=1e-3)
    drops = [row["metric_drop"] for row in swept["rows"]]
    assert drops == sorted(drops)


def test_coco_labels_give_the_same_figures_as_texts(calib, squares):
    assert calib("run", "--precision", "fp32", cwd=squares).code == 0
    images, annotations = [], []
    for number, path in enumerate(sorted((squares / "labels/val").glob("*.txt"))):
        images.append({"id": number + 10, "file_name": f"val/{path.stem}.png"})
        for line in path.read_text().splitlines():
            label, x, y, width, height = (float(word) for word in line.split())
            box = [(x - width / 2) * 128, (y - height / 2) * 64, width * 128, height * 64]
            annotations.append(
                {"id": len(annotations), "image_id": number + 10, "category_id": 7 - int(label), "bbox": box}
            )
    categories = [{"id": 6, "name": "green"}, {"id": 7, "name": "red"}]  # in another order than the model's
    (squares / "val.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    result = calib(
        "run", "--data", "images/train", "--eval", "images/val", "--labels", "val.json", "--precision", "fp32",
        "--out", "coco", cwd=squares,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert report(squares, "coco")["builds"][0]["map"] == pytest.approx(report(squares)["builds"][0]["map"], abs=1e-4)


def test_two_outputs_without_any_metadata(calib, squares):
    detector_project.write_model(squares / "model.onnx", metadata={}, outputs=2)
    (squares / "p.toml").write_text('preset = "yolo"\nsize = 64\n')
    result = calib("run", "--preprocess", "p.toml", cwd=squares)
    assert result.code == 0, result.err
    assert "task: detect (outputs for boxes (cxcywh in pixels) and scores of 2 classes)" in result.err
    assert report(squares)["verdict"] == "pass"


@pytest.mark.charts
def test_fp32_that_detects_nothing_shows_nothing(calib, squares):
    (squares / "classes.txt").write_text("green\nred\n")  # not the model's order
    result = calib("run", "--classes", "classes.txt", "--precision", "fp32", cwd=squares)
    assert result.code == 4
    assert "FP32's mAP 50 is 0.0" in result.out and "next to nothing: the preprocessing is probably wrong" in result.out
    (squares / "dark.toml").write_text('preset = "yolo"\nsize = 64\nscale = 0.00001\n')
    unlabelled = calib("run", "--preprocess", "dark.toml", "--data", "images", "--no-labels", cwd=squares)
    assert unlabelled.code == 0
    assert any("FP32 detects nothing with a score of at least 0.05" in line for line in unlabelled.warnings)


def test_labels_of_other_classes_are_refused(calib, squares):
    (squares / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: red, 1: cyan, 2: blue}\n")
    error = calib("run", "--quiet", cwd=squares).error
    assert "expected boxes of at most the 2 classes" in error or "expected boxes of the model's 2 classes" in error


def test_labels_that_count_further_than_the_model_are_refused(calib, squares):
    (squares / "labels/val/03.txt").write_text("2 0.5 0.5 0.1 0.1\n")
    error = calib("run", "--quiet", "--data", "images/val", cwd=squares).error
    assert "03.png: expected boxes of the classes 0..1, as the model has 2, found class 2" in error


def test_a_detector_without_metadata_or_labels_is_told_what_detectors_usually_take(calib, squares):
    detector_project.write_model(squares / "model.onnx", metadata={})
    shutil.rmtree(squares / "labels")
    model = onnx.load(squares / "model.onnx")
    for place in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_value = 64
    onnx.save(model, squares / "model.onnx")
    warnings = calib("run", "--data", "images/val", "--precision", "fp32", cwd=squares).warnings
    assert any("detectors usually take --preprocess yolo" in line for line in warnings)


def test_a_model_that_detects_nothing_of_its_kind_is_named(calib, colours):
    error = calib("run", "--quiet", "--task", "detect", "--preprocess", "unit", cwd=colours).error
    assert "expected the outputs of a detector" in error and "'logits' [N, 3]" in error


def test_tasks_and_no_labels(calib, colours):
    for options, said in ((("--task", "none"), "task: none"), (("--no-labels",), "task: none"), ((), "task: classify")):
        result = calib("run", "--precision", "fp32", *options, cwd=colours)
        assert result.code == 0, result.err
        assert said in result.err
        labelled = report(colours)["data"]["evaluation"]["labelled"]
        assert labelled is (not options)
    usage = calib("run", "--no-labels", "--task", "detect", cwd=colours)
    assert usage.code == 2 and "--no-labels is --task none" in usage.err


def test_metadata_of_the_file_survives_in_the_builds(squares, calib):
    assert calib("run", cwd=squares).code == 0
    for precision in ("int8", "fp16"):
        path = squares / f"calib-out/model.{precision}.onnx"
        if path.exists():
            assert metadata_from_model(onnx.load(path)) == ModelMetadata("detect", ("red", "green"), (64, 64), 8)


def test_a_function_as_preprocessing_does_for_agreement_and_is_refused_with_boxes(calib, squares):
    (squares / "own.py").write_text(
        "import numpy as np\nfrom PIL import Image\ndef unit(image):\n"
        "    small = np.asarray(Image.fromarray(image).resize((64, 64)))\n"
        "    return small.transpose(2, 0, 1) / np.float32(255)\n"
    )
    error = calib("run", "--quiet", "--preprocess", "own.py:unit", cwd=squares).error
    assert "--preprocess own.py:unit: a function does not tell where an image lies in the model's input" in error
    result = calib("run", "--no-labels", "--preprocess", "own.py:unit", cwd=squares)
    assert result.code == 0, result.err
    assert "task: detect" in result.err
    assert "mAP 50-95" in result.out.splitlines()[0]
