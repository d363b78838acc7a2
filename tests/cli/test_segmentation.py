"""Whole commands on a network that segments: with masks and without, in all forms of its output."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import segmentation_project
from tests.once import made_once


@pytest.fixture(scope="session")
def maps_master(tmp_path_factory):
    return made_once(tmp_path_factory, "maps", segmentation_project.write_project)


@pytest.fixture
def maps(maps_master, tmp_path):
    """The project, to change at will."""
    return shutil.copytree(maps_master, tmp_path / "maps")


def report(project, folder="calib-out"):
    return json.loads((project / folder / "report.json").read_text())


def overlap_by_hand(project, names):
    """IoU by class of FP32's maps at the model's size, from pixels that Pillow and NumPy give."""
    import onnxruntime

    session = onnxruntime.InferenceSession(project / "model.onnx", providers=["CPUExecutionProvider"])
    both, either = np.zeros(3), np.zeros(3)
    for name in names:
        size = (segmentation_project.SIZE, segmentation_project.SIZE)
        image = Image.open(project / "images" / name).resize(size, Image.Resampling.BILINEAR)
        mask = np.asarray(Image.open(project / "masks" / name).resize(size, Image.Resampling.NEAREST))
        inputs = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        answer = session.run(None, {"input": inputs})[0][0].argmax(axis=0)
        for label in range(3):
            is_answer, is_there = (answer == label)[mask != 255], (mask == label)[mask != 255]
            both[label] += (is_answer & is_there).sum()
            either[label] += (is_answer | is_there).sum()
    return 100 * both / either


@pytest.mark.charts
def test_masks_beside_the_images_give_miou_with_an_interval(calib, maps):
    result = calib("run", "--classes", "classes.txt", cwd=maps)
    assert result.code == 0, result.err
    assert "masks: 24 files such as " in result.err and "with the numbers 0 to 2, 255" in result.err
    assert "task: segment (output 'out', scores of 3 classes for each pixel)" in result.err
    document = report(maps)
    assert (document["verdict"], document["decided_by"]) == ("pass", "miou")
    assert document["data"]["evaluation"]["labelled"]
    fp32, _, int8 = document["builds"]
    assert 85 < fp32["miou"] < 100
    assert int8["drop_miou"] == pytest.approx(fp32["miou"] - int8["miou"], abs=1e-3)
    assert int8["drop_miou_ci95"][0] <= int8["drop_miou"] <= int8["drop_miou_ci95"][1]
    found = document["segmentation"]
    assert [row["name"] for row in found["classes"]] == ["background", "red", "green"]
    assert all(row["drop_ci95"][2][0] <= row["drop"][2] <= row["drop_ci95"][2][1] for row in found["classes"])
    assert "points of mIoU (95 % CI" in result.out


def test_the_overlap_is_that_of_the_pixels(calib, maps):
    """All images are evaluated; their masks are stretched to the model's input, by the nearest pixel."""
    assert calib("run", "--precision", "fp32", "--data", ".", cwd=maps).code == 0
    names = [path.name for path in sorted((maps / "images").iterdir())]
    rows = report(maps)["segmentation"]["classes"]
    np.testing.assert_allclose([row["iou"][0] for row in rows], overlap_by_hand(maps, names), atol=1e-3)


def test_numbers_of_classes_count_as_the_scores_do(calib, maps):
    """They are never judged by the SQNR of class numbers, and no output is called unfit for it."""
    assert calib("run", "--precision", "fp32", "--data", ".", "--out", "scores", cwd=maps).code == 0
    segmentation_project.write_model(maps / "model.onnx", output="numbers")
    result = calib("run", "--eval", ".", cwd=maps)
    assert result.code == 0, result.err
    assert "the number of each pixel's class" in result.err
    document, scores = report(maps), report(maps, "scores")
    assert document["builds"][0]["miou"] == pytest.approx(scores["builds"][0]["miou"], abs=1e-6)
    assert document["builds"][2]["miou"] > 85
    assert document["builds"][2]["outputs"] == [] and document["builds"][2]["sqnr_db"] is None


@pytest.mark.parametrize(("output", "ends"), [("sigmoid", "a probability"), ("logit", "a logit")])
def test_one_channel_against_masks_of_0_and_255(calib, maps, output, ends):
    segmentation_project.write_model(maps / "model.onnx", output=output)
    for path in (maps / "masks").iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    result = calib("run", cwd=maps)
    assert result.code == 0, result.err
    assert f"{ends} for each pixel" in result.err
    assert "0 is the background and 255 the foreground" in result.err
    assert report(maps)["builds"][0]["miou"] > 80


def test_a_coarse_map_is_compared_at_the_input_s_size(calib, maps):
    segmentation_project.write_model(maps / "model.onnx", step=4)
    assert calib("run", "--precision", "fp32", cwd=maps).code == 0
    assert 60 < report(maps)["builds"][0]["miou"] < 95  # corners of the rectangles are rounder


@pytest.mark.parametrize("options", [("--data", "images", "--no-labels"), ("--data", "photos")])
def test_without_masks_the_pixels_agree_with_fp32(calib, maps, options):
    shutil.copytree(maps / "images", maps / "photos")
    result = calib("run", *options, cwd=maps)
    assert result.code == 0, result.err
    document = report(maps)
    int8 = document["builds"][2]
    assert (document["verdict"], document["decided_by"]) == ("unlabelled", None)
    assert not document["data"]["evaluation"]["labelled"]
    assert 98 < int8["agreement_pixels"] <= 100
    assert int8["agreement_pixels_ci95"][0] <= int8["agreement_pixels"] <= int8["agreement_pixels_ci95"][1]
    assert f"INT8's maps agree with FP32's to {int8['agreement_pixels']:.2f} % of the pixels (95 % CI" in result.out
    assert "miou" not in int8


def test_the_border_of_a_letterbox_does_not_agree(calib, maps):
    """Half of the input is border; pixels that no image shows are none that agree."""
    (maps / "preprocess.toml").write_text('preset = "yolo"\n')
    assert calib("run", "--no-labels", cwd=maps).code == 0
    rows = report(maps)["segmentation"]["classes"]
    assert sum(row["pixels"] for row in rows) == report(maps)["segmentation"]["images"] * 32 * 16
    assert calib("run", cwd=maps).code == 0
    counted = sum(row["pixels"] for row in report(maps)["segmentation"]["classes"])
    assert counted < report(maps)["segmentation"]["images"] * 32 * 16  # the rings of 255 do not count either


@pytest.mark.charts
def test_a_map_that_lost_its_classes_is_unfit_without_masks(calib, maps):
    """Most pixels are background, so that most agree where INT8 sees nothing else; the overlap tells."""
    result = calib("run", "--no-labels", "--algo", "percentile", "--percentile", "40", "--recover", "off", cwd=maps)
    int8 = report(maps)["builds"][2]
    assert int8["agreement_miou"] < 70
    assert (
        "INT8 is unfit: its maps agree with FP32's to" in result.out
        and "below the floor of an mIoU of 70" in result.out
    )


def test_int8_that_loses_too_much_is_recovered(calib, maps):
    options = ("--algo", "percentile", "--percentile", "40", "--classes", "classes.txt")
    assert calib("run", *options, "--recover", "off", "--out", "lost", cwd=maps).code in (0, 3)
    assert calib("run", *options, cwd=maps).code == 0
    lost, document = report(maps, "lost"), report(maps)
    assert lost["builds"][2]["drop_miou"] > 1 and lost["verdict"] == "fail"
    assert document["recovery"]["used"] and document["builds"][2]["drop_miou"] < lost["builds"][2]["drop_miou"]
    found = document["segmentation"]
    classes = [row["iou"][2] for row in found["classes"]]
    assert np.mean(classes) == pytest.approx(document["builds"][2]["miou"], abs=1e-3)


def test_a_wrong_preprocessing_shows_nothing(calib, maps):
    (maps / "preprocess.toml").write_text('preset = "unit"\nmean = [-1, 3, 0]\n')
    result = calib("run", "--precision", "fp32", cwd=maps)
    assert result.code == 4
    assert "the preprocessing is probably wrong (--preprocess), or the masks' numbers" in result.out


def test_masks_of_more_classes_are_refused(calib, maps):
    Image.fromarray(np.full((32, 64), 9, np.uint8)).save(maps / "masks/03.png")
    error = calib("run", "--quiet", "--precision", "fp32", cwd=maps).error
    assert (
        "masks/03.png: expected the numbers of the model's classes, 0 to 2 or 255, which is left out, found 9" in error
    )
    assert calib("run", "--quiet", "--precision", "fp32", "--ignore-index", "9", cwd=maps).code == 0


def test_a_model_that_does_not_segment_is_named(calib, colours):
    error = calib("run", "--quiet", "--task", "segment", "--preprocess", "unit", cwd=colours).error
    assert "expected a map of classes over the input of" in error and "'logits' [N, 3]" in error


def test_names_of_other_classes_are_refused(calib, maps):
    (maps / "classes.txt").write_text("a\nb\n")
    error = calib("run", "--quiet", "--classes", "classes.txt", "--precision", "fp32", cwd=maps).error
    assert "classes.txt: expected the names of the 3 classes that the model has, found 2" in error


def test_compare_and_sweep_take_masks_too(calib, maps):
    assert calib("run", cwd=maps).code == 0
    result = calib("compare", "model.onnx", "calib-out/model.int8.onnx", "--data", ".", cwd=maps)
    assert result.code == 0, result.err
    assert report(maps, "calib-compare")["decided_by"] == "miou"
    swept = calib("sweep", "--json", cwd=maps)
    document = json.loads(swept.out)
    assert document["metric"]["name"] == "mIoU" and document["decided_by"] == "metric"
    drops = [row["metric_drop"] for row in document["rows"]]
    assert drops == sorted(drops)
