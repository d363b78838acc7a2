"""Images, labels and preprocessing as people have them, in whole commands."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.outcome import calibration_images

SPLIT = 8  # of the 12 images of a class, those that are for training


@pytest.fixture
def flat(colours):
    """The colour project with its 36 images in one folder, `flat`, and their labels, 0 to 2."""
    (colours / "flat").mkdir()
    labels = {}
    for label, folder in enumerate(sorted(path for path in (colours / "imgs").iterdir())):
        for path in sorted(folder.iterdir()):
            name = f"{folder.name}_{path.name}"
            path.rename(colours / "flat" / name)
            labels[name] = label
    shutil.rmtree(colours / "imgs")
    return colours, labels


def report_of(project):
    return json.loads((project / "calib-out" / "report.json").read_text())


def fp32_of(project):
    return next(build for build in report_of(project)["builds"] if build["precision"] == "fp32")


def test_splits_are_calibrated_and_evaluated_apart(calib, colours):
    for split in ("train", "val"):
        for folder in sorted((colours / "imgs").iterdir()):
            target = colours / "ds" / split / folder.name
            target.mkdir(parents=True)
            for path in sorted(folder.iterdir())[slice(SPLIT) if split == "train" else slice(SPLIT, None)]:
                shutil.copy(path, target)
    result = calib("run", "--data", "ds", cwd=colours)
    assert result.code == 0, result.err
    assert {name.split("/")[0] for name in calibration_images(colours)} == {"train"}
    data = report_of(colours)["data"]
    assert (data["calibration"]["images"], data["evaluation"]["images"]) == (24, 12)
    assert fp32_of(colours)["top1"] == 100
    assert "ds: 24 images in 3 folders (train/blue 8, train/green 8, train/red 8); not read: 12 images of" in result.err
    assert "ds: 12 images in 3 folders (val/blue 4, val/green 4, val/red 4)" in result.err


def test_masks_beside_images_are_not_calibrated_on(calib, flat):
    project, _ = flat
    (project / "flat").rename(project / "images")
    (project / "ds").mkdir()
    (project / "images").rename(project / "ds/images")
    (project / "ds/masks").mkdir()
    for path in (project / "ds/images").iterdir():
        Image.new("L", (8, 8), 1).save(project / "ds/masks" / path.name)
    (project / "ds/clip.mp4").write_bytes(b"x")
    result = calib("run", "--data", "ds", cwd=project)
    assert result.code == 0, result.err
    assert {name.split("/")[0] for name in calibration_images(project)} == {"images"}
    assert "ds: 36 images in 1 folder (images 36); not read: 36 images of masks/, 1 .mp4" in result.err
    assert "2 classes" not in result.err


@pytest.mark.parametrize("form", ["val.txt", "no header, prefix", "tabs, other columns"])
def test_labels_of_any_form_are_used_and_their_reading_is_said(calib, flat, form):
    project, labels = flat
    rows = {
        "val.txt": [f"{name} {label}" for name, label in labels.items()],
        "no header, prefix": [f"/data/flat/{name},{label}" for name, label in labels.items()],
        "tabs, other columns": ["id\tsplit\tclass", *(f"{n[:-4]}\tval\t{label}" for n, label in labels.items())],
    }[form]
    (project / "labels.txt").write_text("\n".join(rows))
    result = calib("run", "--data", "flat", "--labels", "labels.txt", cwd=project)
    assert result.code == 0, result.err
    assert fp32_of(project)["top1"] == 100
    line = next(line for line in result.err.splitlines() if line.startswith("labels: labels.txt"))
    assert "36 of 36 images have one" in line


def test_images_without_a_label_are_told_and_not_evaluated(calib, flat):
    project, labels = flat
    kept = {name: label for i, (name, label) in enumerate(labels.items()) if i % 6}
    (project / "some.csv").write_text("file,label\n" + "".join(f"{name},{label}\n" for name, label in kept.items()))
    result = calib("run", "--data", "flat", "--labels", "some.csv", "--num-images", "12", cwd=project)
    assert result.code == 0, result.err
    said = "flat: 6 of 36 images have no label, 'blue_00.png' first; they may serve calibration, and are not evaluated"
    assert said in result.warnings
    calibrated = calibration_images(project)
    report = report_of(project)
    assert report["data"]["evaluation"]["images"] == len(set(kept) - set(calibrated))
    assert fp32_of(project)["top1"] == 100
    assert said in report["warnings"]
    error = calib("pack", "flat", "flat.h5", "--labels", "some.csv", cwd=project).error
    assert "flat: expected a label for each image, which a pack holds, found 36 images and 30 labels" in error


def test_labels_that_count_from_1_are_told(calib, flat):
    project, labels = flat
    (project / "l.csv").write_text("".join(f"{name},{label + 1}\n" for name, label in labels.items()))
    result = calib("run", "--quiet", "--data", "flat", "--labels", "l.csv", cwd=project)
    assert (
        "expected labels 0..2 as the model has 3 classes, found 3; they count from 1, so take 1 from each"
        in result.error
    )


def test_classes_that_calibration_uses_up_are_told(calib, colours):
    for path in sorted((colours / "imgs" / "green").iterdir())[1:]:
        path.unlink()
    result = calib("run", "--num-images", "12", cwd=colours)
    assert result.code == 0, result.err
    (line,) = [line for line in result.warnings if "so none of these is evaluated" in line]
    assert line.startswith(
        "imgs: calibration uses every image of 1 classes (green), so none of these is evaluated; give"
    )


def test_one_class_more_than_there_are_names_may_be_a_background(calib, colours):
    shutil.rmtree(colours / "imgs" / "green")
    (colours / "classes.txt").write_text("blue\nred\n")
    error = calib("run", "--quiet", "--classes", "classes.txt", cwd=colours).error
    assert "with --classes (the model has one more, which is often a background: it needs a line too)" in error


def test_pack_says_what_it_reads(calib, colours):
    (colours / "imgs/notes.gif").write_bytes(b"x")
    result = calib("pack", "imgs", "imgs.h5", cwd=colours)
    assert "imgs: 36 images in 3 folders (blue 12, green 12, red 12); not read: 1 .gif" in result.err


@pytest.mark.parametrize(
    ("options", "origin"),
    [
        ((), "from the default; --preprocess overrides it"),
        (("--preprocess", "unit"), "from the preset named; --preprocess overrides it"),
        (("--preprocess", "p.toml"), "from the file p.toml; --preprocess overrides it"),
    ],
)
def test_every_run_says_which_preprocessing_is_in_force_and_who_said_so(calib, colours, options, origin):
    config = colours / "calib.toml"
    config.write_text(config.read_text().replace('preprocess = "unit"\n', ""))
    (colours / "p.toml").write_text('preset = "unit"\ncolor = "bgr"\nantialias = false\n')
    result = calib("run", "--precision", "fp32", *options, cwd=colours)
    assert result.code in (0, 4), result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("preprocessing: ")]
    assert line.endswith(origin)
    assert "8x8" in line
    report = report_of(colours)
    assert report["preprocessing"]["size"] == [8, 8]
    assert origin.startswith(f"from {report['preprocessing_origin']};")
    assert report["preprocessing_origin"] in (colours / "calib-out/report.html").read_text()


def write_two_inputs(path):
    """The colour classifier whose logits are multiplied by a second input, `factor` [N, 1]."""
    model = onnx.load(path)
    graph = model.graph
    graph.node[-1].output[0] = "plain"
    graph.node.append(helper.make_node("Mul", ["plain", "factor"], ["logits"], name="times"))
    graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, ["N", 1]))
    onnx.save(model, path)


def test_inputs_that_are_the_same_for_every_image(calib, colours):
    write_two_inputs(colours / "model.onnx")
    error = calib("run", "--quiet", cwd=colours).error
    assert (
        "model.onnx: has 2 inputs (input, factor), but images provide only one; give those that are the same" in error
    )
    result = calib("run", "--input", "factor=[2.5]", cwd=colours)
    assert result.code == 0, result.err
    assert fp32_of(colours)["top1"] == 100
    statistics = json.loads((colours / "calib-out/calibration.json").read_text())
    assert "factor=[2.5]" in report_of(colours)["settings"]["input"]
    assert statistics["source"]["images"]
    # The report's command, and a comparison that takes its settings from the report, know the constant too.
    assert "--input 'factor=[2.5]'" in report_of(colours)["command"]
    assert calib("compare", "model.onnx", "calib-out", cwd=colours).code == 0
    for value, found in (("factor=[1,2]", "'factor' takes [1] of float32 for an image, found [1, 2]"),
                         ("fact=[1]", "expected one of the model's inputs (input, factor), found 'fact'"),
                         ("factor=x", "expected NAME=VALUE such as orig_size=[640,640], found 'factor=x'"),
                         ("factor", "expected NAME=VALUE such as orig_size=[640,640], found 'factor'")):  # fmt: skip
        assert found in calib("run", "--quiet", "--input", value, cwd=colours).error


def with_second_input(path, shape):
    """The colour classifier whose logits are multiplied by `factor`, which is put beside the classes."""
    model = onnx.load(path)
    graph = model.graph
    graph.node[-1].output[0] = "plain"
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 1]), "column"))
    graph.node.append(helper.make_node("Reshape", ["factor", "column"], ["factors"]))
    graph.node.append(helper.make_node("Mul", ["plain", "factors"], ["logits"], name="times"))
    graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, shape))
    onnx.save(model, path)


@pytest.mark.parametrize(("shape", "value"), [(["N"], "2.5"), (["N"], "[2.5]"), ([], "2.5")])
def test_a_constant_may_be_one_number_for_an_image_or_for_a_batch(calib, colours, shape, value):
    with_second_input(colours / "model.onnx", shape)
    result = calib("run", "--precision", "fp32", "--input", f"factor={value}", cwd=colours)
    assert result.code == 0, result.err
    assert fp32_of(colours)["top1"] == 100


@pytest.mark.parametrize(("shape", "value"), [([1], "2.5"), ([1, 1], "[2.5]")])
def test_an_input_without_a_place_for_the_images_of_a_batch_is_told(calib, colours, shape, value):
    with_second_input(colours / "model.onnx", shape)
    error = calib("run", "--quiet", "--input", f"factor={value}", cwd=colours).error
    assert f"input: 'factor' takes {shape}, which has no axis for the images of a batch; make it a constant" in error
    alone = calib(
        "run", "--precision", "fp32", "--batch-size", 1, "--max-drop", 100, "--input", f"factor={value}", cwd=colours
    )
    assert alone.code == 0, alone.err


def test_init_asks_for_the_inputs_that_images_are_not(calib, colours):
    (colours / "calib.toml").unlink()
    write_two_inputs(colours / "model.onnx")
    asked = "question: input: the model has 2 inputs (input, factor), and images are one: say those that are the same"
    assert asked in " ".join(calib("init", "--look", cwd=colours).out.split())


def test_constants_from_calib_toml(calib, colours):
    write_two_inputs(colours / "model.onnx")
    config = colours / "calib.toml"
    config.write_text(config.read_text() + 'input = ["factor=[[3]]"]\n')  # with the batch axis
    assert calib("run", "--precision", "fp32", cwd=colours).code == 0
    config.write_text(config.read_text().replace('["factor=[[3]]"]', '"factor=3"'))
    assert "calib.toml: input: expected a list of texts in quotes, found 'factor=3'" in calib("run", cwd=colours).error


def test_the_size_of_a_model_that_leaves_it_open(calib, colours, write_model):
    write_model(colours / "model.onnx", size="side")
    error = calib("run", "--quiet", cwd=colours).error
    assert "leaves the image size open; state it with --input-size HEIGHTxWIDTH" in error
    result = calib("run", "--precision", "fp32", "--input-size", "6x10", cwd=colours)
    assert result.code == 0, result.err
    assert "6x10" in next(line for line in result.err.splitlines() if line.startswith("preprocessing: "))
    assert report_of(colours)["preprocessing"]["size"] == [6, 10]
    assert "--input-size 6x10" in report_of(colours)["command"]
    wrong = calib("run", "--quiet", "--input-size", "6by10", cwd=colours).error
    assert "input_size: expected HEIGHTxWIDTH such as 224x224, found '6by10'" in wrong


@pytest.mark.parametrize("stated", [False, True])
def test_12_bits_in_16_are_warned_of_until_their_range_is_stated(calib, colours, write_model, stated):
    write_model(colours / "model.onnx", channels=1)
    shutil.rmtree(colours / "imgs")
    (colours / "imgs").mkdir()
    generator = np.random.default_rng(1)
    for i in range(12):
        pixels = generator.integers(0, 4096, (8, 8)).astype(np.uint16)
        pixels[0, 0] = 4095
        Image.fromarray(pixels).save(colours / "imgs" / f"{i:02}.png")
    (colours / "p.toml").write_text(f'preset = "unit"\ncolor = "grey"\n{"pixel_range = 4095" * stated}\n')
    result = calib("run", "--preprocess", "p.toml", "--recover", "off", cwd=colours)
    assert result.code in (0, 3), result.err
    warned = [line for line in result.warnings if "bits" in line]
    scales = (colours / "calib-out/calibration.cache").read_text().splitlines()
    scale = next(line.split(": ")[1] for line in scales if line.startswith("input: "))
    amax = np.frombuffer(bytes.fromhex(scale), ">f4")[0] * 127
    if stated:
        assert warned == []
        assert amax == pytest.approx(1, rel=1e-5)
    else:
        assert "the brightest pixel of 8 images is 4095" in warned[0]
        assert "say pixel_range = [0, 4095] in the TOML file of --preprocess" in warned[0]
        assert amax == pytest.approx(4095 / 65535, rel=1e-5)


OWN = """
from pathlib import Path
import numpy as np

Path("executed").touch()

def unit(image):
    return image.transpose(2, 0, 1)[np.newaxis] / np.float32(255)

def wrong(image):
    return image

def fails(image):
    raise KeyError("what a file\\nraises")
"""


@pytest.fixture
def own(colours):
    (colours / "own.py").write_text(OWN)
    return colours


def test_a_function_of_ones_own_gives_the_inputs(calib, own):
    described = calib("run", "--preprocess", "unit", "--out", "a", cwd=own)
    result = calib("run", "--preprocess", "own.py:unit", "--out", "b", cwd=own)
    assert described.code == result.code == 0, result.err
    assert (own / "a/calibration.cache").read_text() == (own / "b/calibration.cache").read_text()
    assert f"preprocess: executes {own / 'own.py'}\n" in result.err
    assert "preprocessing: own.py:unit, which gives [3, 8, 8] of float32, from the function named" in result.err
    # Another text of the file is another preprocessing.
    again = calib("run", "--preprocess", "own.py:unit", "--out", "b", cwd=own)
    assert "no image is read for calibration" in again.err
    (own / "own.py").write_text(OWN + "# changed\n")
    changed = calib("run", "--preprocess", "own.py:unit", "--out", "b", cwd=own)
    assert "calibration.cache: was made from other preprocessing" in changed.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong", "own.py:wrong: expected an array [3, 8, 8] of float32, found [8, 8, 3] of uint8"),
        ("fails", "own.py:fails: line 14: KeyError: 'what a file\\nraises'"),
        ("none", "own.py has no callable 'none'; it has "),
    ],
)
def test_a_function_that_does_not_do_is_told_in_a_line(calib, own, name, said):
    assert said in calib("run", "--quiet", "--preprocess", f"own.py:{name}", cwd=own).error


@pytest.mark.parametrize("command", [("run",), ("sweep",), ("compare", "model.onnx", "model.onnx")])
def test_a_function_that_only_the_folder_names_is_not_executed(calib, own, command):
    config = own / "calib.toml"
    config.write_text(config.read_text().replace('preprocess = "unit"', 'preprocess = "own.py:unit"'))
    error = calib(*command, cwd=own).error
    assert "calib.toml: preprocess: would execute own.py with your rights" in error
    assert "--allow-code, or --preprocess own.py:unit" in error
    assert not (own / "executed").exists()


def test_a_report_does_not_make_compare_execute_a_function(calib, own):
    assert calib("run", "--quiet", "--preprocess", "own.py:unit", cwd=own).code == 0
    (own / "executed").unlink()
    error = calib("compare", "model.onnx", "calib-out", cwd=own).error
    assert "report.json: preprocess: would execute own.py with your rights" in error
    assert not (own / "executed").exists()
    assert calib("compare", "model.onnx", "calib-out", "--allow-code", cwd=own).code == 0
    assert (own / "executed").exists()
