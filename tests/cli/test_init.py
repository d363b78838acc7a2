"""`calib init`: a folder with a model and images, nothing else, becomes a project; what cannot be seen is asked."""

import json

import numpy as np
import onnx
import pytest
from PIL import Image

from calib.sample_project import write_sample_project
from datasets import Preprocessing


@pytest.fixture
def bare(colours):
    """The colour project without settings."""
    (colours / "calib.toml").unlink()
    return colours


def described(folder):
    return Preprocessing.from_toml(folder / "preprocess.toml")


def test_a_model_and_labelled_images_alone_become_a_run_that_is_right(calib, demo, report):
    for name in ("calib.toml", "preprocess.toml"):
        (demo / name).unlink()
    result = calib("init", cwd=demo)
    assert result.code == 0, result.err
    assert result.out.splitlines()[-2:] == ["wrote preprocess.toml, calib.toml", "next: calib run"]
    assert "preprocess: preprocess.toml (sure: FP32 answers " in result.out
    assert [line.split()[1] for line in result.out.splitlines() if line.startswith("question: ")] == ["resize:"]
    assert described(demo).color == "grey"
    ran = calib("run", "--precision", "fp32", cwd=demo)
    assert ran.code == 0, ran.err
    assert report(demo)["builds"][0]["top1"] > 95  # the demo's own settings give 98
    assert "# Of 128 labelled images, FP32 answers right:" in (demo / "preprocess.toml").read_text()


def test_the_model_s_input_may_have_any_name(calib, bare):
    model = onnx.load(bare / "model.onnx")
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels in"
    onnx.save(model, bare / "model.onnx")
    result = calib("init", cwd=bare)
    assert result.code == 0, result.err
    assert "FP32 answers 36 of 36 labelled images right with it" in result.out
    assert calib("run", "--precision", "fp32", cwd=bare).code == 0


def test_the_preset_that_fp32_answers_right_with_is_taken_and_those_as_good_are_named(calib, bare, report):
    """Pale colours, see test_preset_trial: imagenet's means hide them, a common scale for all channels does not."""
    for folder in (bare / "imgs").iterdir():
        channel = ("red", "green", "blue").index(folder.name)
        for i, image in enumerate(sorted(folder.iterdir())):
            pixels = np.full((8, 8, 3), 100, np.uint8)
            pixels[..., channel] += 10
            pixels[0, 0] = i
            Image.fromarray(pixels).save(image)
    result = calib("init", cwd=bare)
    assert result.code == 0, result.err
    assert "(likely: FP32 answers 36 of 36 labelled images right with it; as good within chance: " in result.out
    assert len(set(described(bare).mean)) == 1
    assert calib("run", "--precision", "fp32", cwd=bare).code == 0
    assert report(bare)["builds"][0]["top1"] == 100


def test_without_labels_the_preprocessing_is_asked(calib, bare):
    for image in list((bare / "imgs").rglob("*.png")):
        image.rename(bare / "imgs" / f"{image.parent.name}{image.name}")
    for name in ("blue", "green", "red"):
        (bare / "imgs" / name).rmdir()
    result = calib("init", cwd=bare)
    assert result.code == 0
    questions = [line.split()[1] for line in result.out.splitlines() if line.startswith("question: ")]
    assert questions == ["preprocess:", "resize:"]
    assert "labels: (sure: none" in result.out
    assert "# A question: nothing tells" in (bare / "preprocess.toml").read_text()
    assert calib("run", "--precision", "fp32", cwd=bare).code == 0


def test_images_of_the_model_s_size_do_not_tell_how_others_are_fitted_and_that_is_asked(calib, bare):
    asked = "resize: {} (a question: every image has the model's size, 8x8, so nothing shows how others are fitted"
    result = calib("init", cwd=bare)
    taken = described(bare).resize
    assert any(line.startswith(asked.format(taken)) for line in result.out.splitlines())
    assert "# A question, resize: every image has the model's size" in (bare / "preprocess.toml").read_text()
    for name in ("calib.toml", "preprocess.toml"):
        (bare / name).unlink()
    for image in sorted((bare / "imgs").rglob("*.png")):  # now they differ, and FP32's answers tell
        with Image.open(image) as opened:
            opened.resize((12, 10)).save(image)
    result = calib("init", cwd=bare)
    assert "resize:" not in result.out
    assert "A question, resize" not in (bare / "preprocess.toml").read_text()


@pytest.fixture
def dated(bare):
    """The colours in a folder for each of four days, which are no classes; returns name and colour of each image."""
    rows = []
    for i, image in enumerate(sorted((bare / "imgs").rglob("*.png"))):
        colour, day = image.parent.name, bare / "imgs" / f"day {i % 4}" / "ü"
        day.mkdir(parents=True, exist_ok=True)
        rows.append((image.rename(day / f"{colour[0]} {i}.png").name, colour))
    for colour in ("red", "green", "blue"):
        (bare / "imgs" / colour).rmdir()
    return bare, rows


def written_table(path, rows, separator, header=None):
    lines = [] if header is None else [header]
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in [*lines, *rows]), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "separator", "header", "said"),
    [
        ("Klassen.csv", ";", ("Bild", "Klasse"), "images in 'Bild', labels in 'Klasse', semicolons between"),
        ("val.txt", " ", None, "images in column 1, labels in column 2"),
        ("imgs/truth.tsv", "\t", None, "images in column 1, labels in column 2, tabs between (no header)"),
    ],
)
def test_a_table_of_the_images_gives_labels_where_folders_are_no_classes(
    calib, dated, report, name, separator, header, said
):
    folder, rows = dated
    if separator == " ":
        for image in (folder / "imgs").rglob("*.png"):
            image.rename(image.with_name(image.name.replace(" ", "")))
        rows = [(image.replace(" ", ""), colour) for image, colour in rows]
    written_table(folder / name, rows, separator, header)
    (folder / "README.txt").write_text("Nothing about images.\n")
    result = calib("init", cwd=folder)
    assert result.code == 0, result.err
    assert f"labels: {name} (sure: {said}" in " ".join(result.out.split())
    assert "36 of 36 images have one" in " ".join(result.out.split())
    assert calib("run", "--precision", "fp32", cwd=folder).code == 0
    assert report(folder)["builds"][0]["top1"] == 100


def test_labels_that_are_not_the_model_s_are_a_question(calib, dated):
    folder, rows = dated
    folders = calib("init", "--look", cwd=folder)
    asked = "labels: (a question: imgs: expected labels of the 3 classes that the model has, found 4 (day 0, "
    assert asked in " ".join(folders.out.split())
    written_table(folder / "labels.csv", [(name, 1 + ("blue", "green", "red").index(c)) for name, c in rows], ",")
    table = " ".join(calib("init", cwd=folder).out.split())
    assert (
        "labels: labels.csv (a question: imgs: expected labels 0..2 as the model has 3 classes, found 3; they" in table
    )
    assert "question: labels: imgs: expected labels 0..2" in table
    assert 'labels = "labels.csv"' in (folder / "calib.toml").read_text()
    assert "they count from 1, so take 1 from each" in calib("run", cwd=folder).error


def test_folders_that_are_the_model_s_classes_win_over_tables(calib, bare):
    names = [path.name for path in sorted((bare / "imgs").rglob("*.png"))]
    written_table(bare / "sizes.csv", [(name, i % 3) for i, name in enumerate(names)], ",", ("file", "label"))
    assert "labels: (sure: folders of imgs are 3 classes)" in calib("init", "--look", cwd=bare).out


def with_metadata(path, **values):
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {key: str(value) for key, value in values.items()})
    onnx.save(model, path)


def test_the_metadata_of_an_export_decides(calib, bare):
    with_metadata(bare / "model.onnx", task="detect", imgsz=[8, 8], names={0: "a", 1: "b"})
    result = calib("init", cwd=bare)
    assert (
        "preprocess: preprocess.toml (sure: the model's metadata (2 class names, size 8x8, task detect))" in result.out
    )
    assert described(bare).resize == "letterbox"


def test_the_order_of_the_classes_comes_from_the_metadata(calib, bare, report):
    with_metadata(bare / "model.onnx", names={0: "red", 1: "green", 2: "blue"})
    for one, other in (("red", "blue"),):  # the model's first answer is the brightest blue
        (bare / "imgs" / one).rename(bare / "imgs" / "now")
        (bare / "imgs" / other).rename(bare / "imgs" / one)
        (bare / "imgs" / "now").rename(bare / "imgs" / other)
    result = calib("init", cwd=bare)
    assert result.code == 0, result.err
    assert (bare / "classes.txt").read_text() == "red\ngreen\nblue\n"
    assert calib("run", "--precision", "fp32", cwd=bare).code == 0
    assert report(bare)["builds"][0]["top1"] == 100


def test_a_preprocessor_config_beside_the_model_decides(calib, bare):
    config = {
        "do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224},
        "resample": 3, "do_rescale": True, "rescale_factor": 0.5, "do_normalize": True, "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
    }  # fmt: skip
    (bare / "preprocessor_config.json").write_text(json.dumps(config))
    assert "preprocessor_config.json beside the model" in calib("init", cwd=bare).out
    found = described(bare)
    assert (found.resize, found.crop_fraction, found.interpolation) == ("crop", 0.875, "bicubic")
    assert (found.scale, found.mean, found.std) == (0.5, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"do_normalize": true}', '{"size": 3, "image_mean": "x"}', "[" * 9999]
)
def test_another_file_of_that_name_does_no_harm(calib, bare, text):
    (bare / "preprocessor_config.json").write_text(text)
    assert calib("init", cwd=bare).code == 0


@pytest.mark.parametrize("name", ["calib.toml", "preprocess.toml"])
def test_nothing_is_overwritten(calib, bare, snapshot, name):
    (bare / name).write_text("# precious\n")
    before = snapshot(bare)
    error = calib("init", cwd=bare).error
    assert f"{name}: is there already, and init overwrites nothing" in error
    assert snapshot(bare) == before


def test_a_look_writes_nothing(calib, colours, snapshot):
    before = snapshot(colours)
    result = calib("init", "--look", cwd=colours)
    assert result.code == 0
    assert "model: model.onnx (sure: the only *.onnx here)" in result.out
    assert "wrote" not in result.out
    assert snapshot(colours) == before


def test_what_several_files_leave_open_is_an_error_that_lists_them(calib, bare, write_model):
    write_model(bare / "other.onnx")
    assert "expected one float *.onnx in" in calib("init", cwd=bare).error
    assert calib("init", "--model", "other.onnx", "--look", cwd=bare).code == 0
    (bare / "more").mkdir()
    Image.new("RGB", (8, 8)).save(bare / "more" / "a.png")
    error = calib("init", "--model", "other.onnx", cwd=bare).error
    assert "found 2: imgs, more; give --data" in error


def test_what_calibrates_and_what_is_evaluated_are_told_by_their_names(calib, bare, report):
    (bare / "imgs").rename(bare / "calib-images")  # which is no folder of ours, though it is called like calib-out
    for image in list((bare / "calib-images").rglob("*.png"))[::3]:
        target = bare / "val" / image.parent.name
        target.mkdir(parents=True, exist_ok=True)
        image.rename(target / image.name)
    result = calib("init", cwd=bare)
    assert "data: calib-images (likely: by its name)" in result.out
    assert "eval: val (likely: by its name)" in result.out
    assert calib("run", "--precision", "fp32", cwd=bare).code == 0
    assert report(bare)["data"]["evaluation"]["path"] == "val"


def test_int8_models_of_earlier_runs_are_not_taken_for_the_model(calib, finished):
    (finished / "calib.toml").unlink()
    (finished / "calib-out" / "model.int8.onnx").rename(finished / "model.int8.onnx")
    assert "model: model.onnx (sure: " in calib("init", "--look", cwd=finished).out


@pytest.fixture
def scenes(tmp_path):
    """The detection sample without settings: a grey detector, imgs/, and labels/ with YOLO's text files; 24 of them."""
    folder = tmp_path / "scenes"
    write_sample_project(folder, "detect")
    for name in ("calib.toml", "preprocess.toml"):
        (folder / name).unlink()
    for image in sorted((folder / "imgs").iterdir())[24:]:
        image.unlink()
        (folder / "labels" / f"{image.stem}.txt").unlink(missing_ok=True)
    return folder


def test_a_grey_detector_with_boxes_beside_its_images_becomes_a_run(calib, scenes, report):
    result = calib("init", cwd=scenes)
    assert result.code == 0, result.err
    assert "labels: labels (sure: boxes: YOLO text files such as labels/" in result.out
    assert (described(scenes).color, described(scenes).resize) == ("grey", "letterbox")
    ran = calib("run", "--precision", "fp32", cwd=scenes)
    assert ran.code == 0, ran.err
    assert report(scenes)["builds"][0]["map50"] > 90
    for name in ("calib.toml", "preprocess.toml"):
        (scenes / name).unlink()
    bare = calib("run", "--data", "imgs", "--labels", "labels", "--precision", "fp32", cwd=scenes)
    assert bare.code == 0, bare.err
    assert "preprocessing: yolo (letterbox 96x96, grey, " in bare.err  # what nobody named fits the model's channels
    named = calib("run", "--data", "imgs", "--preprocess", "yolo", cwd=scenes)
    assert "set color = 'grey'" in named.error


def test_a_data_yaml_in_the_images_folder_is_the_data(calib, scenes):
    for kind, source in (("images", "imgs"), ("labels", "labels")):
        for i, file in enumerate(sorted((scenes / source).iterdir())):
            target = scenes / "set" / kind / ("train" if i % 4 else "val")
            target.mkdir(parents=True, exist_ok=True)
            file.rename(target / file.name)
        (scenes / source).rmdir()
    names = ", ".join(f"{i}: d{i}" for i in range(10))
    (scenes / "set" / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {{{names}}}\n")
    result = calib("init", cwd=scenes)
    assert "data: set/data.yaml (sure: the only images here)" in result.out
    assert "eval: (sure: the val of set/data.yaml is evaluated)" in result.out
    assert 'data = "set/data.yaml"' in (scenes / "calib.toml").read_text()


def test_coco_s_json_beside_the_images_is_found(calib, scenes):
    images = [
        {"id": i, "file_name": path.name, "width": 96, "height": 72}
        for i, path in enumerate(sorted((scenes / "imgs").iterdir()))
    ]
    box = {"id": 1, "image_id": 0, "category_id": 3, "bbox": [1, 2, 30, 30], "area": 900, "iscrowd": 0}
    coco = {"images": images, "annotations": [box], "categories": [{"id": 3, "name": "d3"}]}
    for file in (scenes / "labels").iterdir():
        file.unlink()
    (scenes / "labels").rmdir()
    (scenes / "other.json").write_text("{}")
    (scenes / "annotations").mkdir()
    (scenes / "annotations" / "instances.json").write_text(json.dumps(coco))
    assert "labels: annotations/instances.json (sure: boxes: " in calib("init", "--look", cwd=scenes).out
