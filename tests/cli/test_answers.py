"""Whole commands on networks that answer with embeddings, numbers, keypoints, several labels or pictures."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from tests import answer_projects

COLOURS = np.random.default_rng(7).integers(20, 236, (40, 3))
OPTIONS = ("--model", "model.onnx", "--preprocess", "unit", "--num-images", "16", "--batch-size", "8", "--algo",
           "minmax", "--backend", "onnxruntime")  # fmt: skip


@pytest.fixture
def run(calib, tmp_path):
    """Runs in a folder, and gives the outcome and the report."""

    def started(*options):
        result = calib("run", *OPTIONS, *options, cwd=tmp_path)
        path = tmp_path / "calib-out/report.json"
        return result, json.loads(path.read_text()) if path.exists() else None

    return started


def means(colours=COLOURS):
    return np.asarray(colours) / 255


def write_table(path, header, rows):
    lines = [",".join([f"{i:03}.png", *(f"{value:g}" for value in np.atleast_1d(row))]) for i, row in enumerate(rows)]
    path.write_text("\n".join([header, *lines]) + "\n")


@pytest.mark.parametrize("whole", [False, True])
def test_ages_are_regressed_and_no_classes(run, tmp_path, whole):
    """Numbers with a point, and whole ones, which could be taken for classes where there are none."""
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", [[40], [20], [10]], output="age")
    ages = means() @ [40, 20, 10] + 3  # the network answers three years less
    write_table(tmp_path / "ages.csv", "file,label", np.round(ages) if whole else ages)
    result, document = run("--data", "imgs", "--labels", "ages.csv")
    assert result.code == 0, result.err
    assert "task: regress (output 'age', 1 number an image)" in result.err
    assert document["decided_by"] == "error" and document["data"]["evaluation"]["labelled"]
    fp32, _, int8 = document["builds"]
    assert fp32["score"] == pytest.approx(3, abs=0.35)
    assert int8["drop_score"] == pytest.approx(int8["score"] - fp32["score"], abs=1e-5)
    assert "agreement" not in int8 or int8["agreement"] is None
    assert "the mean absolute error (95 % CI" in result.out and "the error of a constant" in result.out


def test_several_numbers_have_an_error_each(run, tmp_path):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", [[9, 0, 1], [0, 5, 1], [0, 0, 2]])
    truth = means() @ [[9, 0, 1], [0, 5, 1], [0, 0, 2]] + [0.5, 0, -1]
    write_table(tmp_path / "many.csv", "file,length,width,angle", truth)
    result, document = run("--data", "imgs", "--labels", "many.csv")
    assert result.code == 0, result.err
    rows = document["scores"]["parts"]["rows"]
    assert [row["name"] for row in rows] == ["length", "width", "angle"]
    assert [row["values"][0] for row in rows] == pytest.approx([0.5, 0, 1], abs=0.03)


@pytest.mark.parametrize("header", ["file,x1,y1,x2,y2", "file,nose_x,nose_y,chin_x,chin_y", "file,a,b,c,d"])
def test_columns_of_coordinates_are_keypoints(run, tmp_path, header):
    weights = [[8, 2, 3, 1], [1, 9, 2, 4], [0, 1, 8, 6]]
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", weights, output="coords")
    write_table(tmp_path / "points.csv", header, means() @ weights + [0, 0, 1.6, 0])  # the second is off by 10 %
    asked = ("--task", "keypoints") if header.startswith("file,a") else ()
    result, document = run("--data", "imgs", "--labels", "points.csv", *asked)
    assert result.code == 0, result.err
    assert "task: keypoints (output 'coords', 2 points)" in result.err
    assert document["builds"][0]["score"] == pytest.approx(5, abs=0.2)
    assert [row["values"][0] for row in document["scores"]["parts"]["rows"]] == pytest.approx([0, 10], abs=0.4)
    assert "to the keypoint distance" in result.out or "off the keypoint distance" in result.out


@pytest.mark.parametrize(("width", "name"), [(4, "coords"), (4, "y"), (32, "embedding"), (1, "age")])
def test_the_argmax_of_numbers_is_not_taken_for_an_answer(run, tmp_path, width, name):
    """Coordinates and embeddings of images without labels: no agreement of their largest number."""
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(
        tmp_path / "model.onnx", np.abs(np.random.default_rng(0).normal(0, 9, (3, width))), output=name
    )
    result, document = run("--data", "imgs")
    assert result.code == 0, result.err
    assert "agrees with FP32 on" not in result.out
    assert document["builds"][2]["agreement"] is None
    assert document["verdict"] == "unlabelled"


def normalised(output):
    return [helper.make_node("LpNormalization", ["z"], [output], axis=1, p=2)]


def identities(folder, each=6):
    """Eight people, told by their colours, of whom each has so many images."""
    rng = np.random.default_rng(1)
    people = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220], [200, 200, 30], [30, 200, 200], [200, 30, 200]])
    people = np.concatenate([people, [[30, 30, 30], [225, 225, 225]]])
    colours = (people[:, None] + rng.normal(0, 9, (8, each, 3))).reshape(-1, 3)
    names = [f"person_{i // each}/{i % each}.png" for i in range(8 * each)]
    answer_projects.write_images(folder, colours, names)


@pytest.mark.parametrize("width", [16, 8])
def test_identities_in_folders_are_verified(run, tmp_path, width):
    """Eight folders are no classes of the model, and no error, whether it gives sixteen numbers or just eight."""
    identities(tmp_path / "faces")
    weights = np.random.default_rng(3).normal(0, 1, (3, width))
    answer_projects.write_model(tmp_path / "model.onnx", weights, -0.4 * weights.sum(axis=0), end=normalised("y"))
    result, document = run("--data", "faces", "--eval", "faces")
    assert result.code == 0, result.err
    assert f"task: embed (output 'y', an embedding of {width} numbers)" in result.err
    assert (document["verdict"], document["decided_by"]) == ("pass", "tar")
    assert document["scores"]["score"] == "TAR at a FAR of 1 %"  # of 1,128 pairs, 1,008 are of others
    fp32, _, int8 = document["scores"]["builds"]
    assert fp32["accuracy"] > 90 and fp32["cosine"] == 1
    assert 0.99 < int8["lowest"] <= int8["cosine"] <= 1
    assert document["scores"]["worst"][0]["value"] == pytest.approx(int8["lowest"], abs=1e-6)
    assert "points of TAR at a FAR of 1 %" in result.out


def test_without_identities_the_cosine_tells(run, tmp_path):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    weights = np.random.default_rng(3).normal(0, 1, (3, 16))
    answer_projects.write_model(tmp_path / "model.onnx", weights, end=normalised("y"))
    result, document = run("--data", "imgs")
    assert result.code == 0, result.err
    assert "INT8's embeddings agree with FP32's to a mean cosine of" in result.out
    assert document["builds"][2]["agreement_score"] > 0.99
    values = [row["value"] for row in document["scores"]["worst"]]
    assert values == sorted(values) and len(values) == 24


def test_embeddings_of_another_kind_are_unfit(run, tmp_path):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    weights = np.random.default_rng(3).normal(0, 1, (3, 16))
    answer_projects.write_model(tmp_path / "model.onnx", weights, -0.5 * weights.sum(axis=0), end=normalised("y"))
    result, document = run("--data", "imgs", "--algo", "percentile", "--percentile", "3", "--recover", "off")
    assert document["builds"][2]["agreement_score"] < 0.9
    assert "INT8 is unfit: its embeddings agree with FP32's to" in result.out
    assert "below the floor of a mean cosine of 0.9" in result.out


WEIGHTS = 30 * np.eye(3) @ [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("ends_in", ["sigmoid", "logits"])
@pytest.mark.parametrize("form", ["columns", "cells"])
def test_several_labels_an_image(run, tmp_path, form, ends_in):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    end = [helper.make_node("Sigmoid", ["z"], ["y"])] if ends_in == "sigmoid" else ()
    answer_projects.write_model(tmp_path / "model.onnx", WEIGHTS, np.full(3, -15.0), end=end)
    truth = (means() > 0.47).astype(int)  # a little less than the network asks for
    if form == "columns":
        write_table(tmp_path / "tags.csv", "file,red,green,blue", truth)
    else:
        (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
        names = np.array(["red", "green", "blue"])
        cells = [f"{i:03}.png,{' '.join(names[row > 0])}" for i, row in enumerate(truth)]
        (tmp_path / "tags.csv").write_text("\n".join(["file,tags", *cells]) + "\n")
    order = ("--classes", "names.txt") if form == "cells" else ()
    result, document = run("--data", "imgs", "--labels", "tags.csv", *order)
    assert result.code == 0, result.err
    assert "task: multilabel" in result.err and "3 labels, each for itself" in result.err
    assert document["decided_by"] == "multilabel_map"
    assert document["builds"][0]["score"] > 95
    rows = document["scores"]["parts"]["rows"]
    assert [row["name"] for row in rows] == ["red", "green", "blue"]
    assert sum(row["images"] for row in rows) > 0 and all(80 < row["values"][0] <= 100 for row in rows)


def test_several_labels_without_labels_agree_one_by_one(run, tmp_path):
    """Of sigmoid outputs, the largest one says little: every decision counts."""
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    end = [helper.make_node("Sigmoid", ["z"], ["y"])]
    answer_projects.write_model(tmp_path / "model.onnx", WEIGHTS, np.full(3, -15.0), end=end)
    result, document = run("--data", "imgs")
    assert result.code == 0, result.err
    assert "INT8's labels agree with FP32's to" in result.out and "of the decisions (95 % CI" in result.out
    assert document["builds"][2]["agreement_score"] > 90


def test_pictures_are_held_against_fp32_s(run, tmp_path):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_enlarger(tmp_path / "model.onnx")
    result, document = run("--data", "imgs")
    assert result.code == 0, result.err
    assert "task: image (output 'picture', a picture with values over a range of 1)" in result.err
    fp32, _, int8 = document["scores"]["builds"]
    assert (fp32["psnr"], fp32["ssim"]) == (100, 1)
    assert 35 < int8["lowest"] <= int8["psnr"] < 60 and 0.8 < int8["ssim"] < 1
    assert "INT8's pictures agree with FP32's to a PSNR of" in result.out


@pytest.mark.parametrize("task", ["embed", "multilabel", "regress", "keypoints", "image"])
def test_a_task_that_the_outputs_do_not_fit_is_named(run, tmp_path, task):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", np.eye(3), end=[
        helper.make_node("Cast", ["z"], ["i"], to=6), helper.make_node("Cast", ["i"], ["y"], to=1),
    ])  # fmt: skip
    if task in ("embed", "multilabel", "regress"):
        write_table(tmp_path / "l.csv", "file,a,b,c,d,e", np.arange(200).reshape(40, 5) * 1.5)
        options = ("--labels", "l.csv") if task != "embed" else ()
        answer_projects.write_enlarger(tmp_path / "model.onnx")
    else:
        options = ()
    result, _ = run("--quiet", "--data", "imgs", "--task", task, *options)
    assert result.code == 1
    assert "expected " in result.error and "found '" in result.error


METRICS = """
import numpy as np
import onnx

def spells(outputs, labels):
    # each image says its own name
    assert labels.dtype.kind == "U" and labels.ndim == 1
    return [float(text.startswith("text")) for text in labels]

def boxes(outputs, labels, names):
    assert labels.shape == (len(names), 4) and labels.dtype == np.float64
    return [float(row[0] == int(name[:3]) + 0.5) for row, name in zip(labels, names)]

class Accuracy:
    def per_image(self, outputs, labels, names):
        return [(row.argmax(), name) for row, name in zip(outputs["y"], names)]

    def score(self, records):
        return float(np.mean([answer >= 0 for answer, _ in records]))
"""


def test_a_metric_gets_the_texts_of_a_table(run, tmp_path):
    """Forty texts, no classes of a model of three numbers: no error about them, no numbers in alphabetical order."""
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", np.eye(3))
    (tmp_path / "mine.py").write_text(METRICS)
    lines = [f"{i:03}.png,text {i}" for i in range(40)]
    (tmp_path / "texts.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    result, document = run("--data", "imgs", "--labels", "texts.csv", "--metric", "mine.py:spells")
    assert result.code == 0, result.err
    assert [row["score"] for row in document["metric"]["builds"]] == [1, 1, 1]
    assert not any("expected labels" in line for line in result.warnings)


def test_a_metric_gets_all_columns_and_the_images_names(run, tmp_path):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", np.eye(3))
    (tmp_path / "mine.py").write_text(METRICS)
    write_table(tmp_path / "boxes.csv", "file,left,top,right,bottom", np.arange(40)[:, None] + [0.5, 2, 3, 4])
    result, document = run("--data", "imgs", "--labels", "boxes.csv", "--metric", "mine.py:boxes")
    assert result.code == 0, result.err
    assert [row["score"] for row in document["metric"]["builds"]] == [1, 1, 1]


def test_a_metric_of_a_whole_set_decides(run, calib, tmp_path):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", np.eye(3))
    (tmp_path / "mine.py").write_text(METRICS)
    result, document = run("--data", "imgs", "--metric", "mine.py:Accuracy")
    assert result.code == 0, result.err
    assert document["decided_by"] == "metric" and document["metric"]["resamples"] == 200
    assert "Score of mine.py:Accuracy over 24 images" in (tmp_path / "calib-out/report.md").read_text().replace(
        "\\", ""
    )
    swept = calib("sweep", *OPTIONS[:8], "--data", "imgs", "--metric", "mine.py:Accuracy", "--json", cwd=tmp_path)
    assert json.loads(swept.out)["decided_by"] == "metric"


def test_fp32_that_answers_with_nan_shows_nothing(run, tmp_path):
    answer_projects.write_images(tmp_path / "imgs", COLOURS)
    answer_projects.write_model(tmp_path / "model.onnx", [[40], [20], [10]], end=[
        helper.make_node("Sub", ["z", "b1"], ["zz"]), helper.make_node("Sqrt", ["zz"], ["y"]),
    ], bias=np.full(1, 30.0), shape=[1])  # fmt: skip
    model = onnx.load(tmp_path / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b1")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(1, 65.0, np.float32), "threshold"))
    next(node for node in model.graph.node if node.op_type == "Sub").input[1] = "threshold"
    assert bias.dims == [1]
    onnx.save(model, tmp_path / "model.onnx")
    write_table(tmp_path / "ages.csv", "file,label", means() @ [4, 2, 1])
    result, document = run("--data", "imgs", "--labels", "ages.csv")
    assert result.code == 4, result.err
    assert document["verdict"] == "invalid" and "NaN" in document["reason"]
