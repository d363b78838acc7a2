"""`calib run`, the main job, on the embedded sample: what it prints, what it writes."""

import json
import os

import pytest

from quant.report.views.terminal.summary import text_from_timings
from tests.outcome import calibration_images, quick_enough

FILES = {
    "calibration.cache",
    "calibration.json",
    "calibration.h5",
    "model.int8.onnx",
    "report.json",
    "report.md",
    "report.html",
}


@pytest.mark.charts
def test_the_literal_line_works_in_a_demo_folder(tmp_path, start_calib, finish, report):
    made = finish(start_calib("demo", "digits", cwd=tmp_path))
    assert made.code == 0
    assert "899" in made.out
    demo = tmp_path / "digits"

    result = finish(start_calib("run", "--data", "imgs/", "--algo", "entropy", cwd=demo))

    assert result.code == 0, result.err
    assert {path.name for path in (demo / "calib-out").iterdir()} - {".lock"} == FILES
    lines = result.out.splitlines()
    assert lines[0].split()[0] == "Build"
    assert [line.split()[0] for line in lines[1:4]] == ["fp32", "fp16", "int8"]
    assert lines[-1] == "report: calib-out/report.html"
    assert "back end" not in result.out
    said = [line.split(":")[0] for line in result.err.splitlines()]
    assert said[:6] == ["calib run", "model", "imgs", "images", "preprocessing", "back end"]

    found = report(demo)
    assert (found["verdict"], found["chosen"], found["exit_code"]) == ("pass", quick_enough(found), 0)
    assert found["data"]["calibration"]["images"] == 512
    assert found["data"]["evaluation"] == {"path": "imgs", "images": 899 - 512, "labelled": True}
    fp32, _, int8 = found["builds"]
    assert fp32["top1"] > 95  # a trained network on its own kind of digits
    assert int8["drop_top1"] == pytest.approx(fp32["top1"] - int8["top1"], abs=0.001)
    assert int8["bytes"] == (demo / "calib-out" / "model.int8.onnx").stat().st_size


def test_the_report_has_all_keys_of_schema_1(finished, report):
    found = report(finished)
    assert found["schema"] == 1
    assert {"verdict", "chosen", "preprocessing", "quarantined", "peak_rss_mb"} <= set(found)
    assert {"path", "sha256"} <= set(found["model"])
    assert {"name", "version", "device"} <= set(found["backend"])
    assert {"path", "images", "sha256"} <= set(found["data"]["calibration"])
    assert {"path", "images", "labelled"} <= set(found["data"]["evaluation"])
    assert {"algo", "images", "tensors", "seconds", "images_per_second", "reused", "cache"} <= set(found["calibration"])
    every = {"precision", "top1", "top5", "latency_ms", "images_per_second", "bytes"}
    reduced = every | {"drop_top1", "drop_ci95", "agreement", "sqnr_db", "speedup"}
    assert [build["precision"] for build in found["builds"]] == ["fp32", "fp16", "int8"]
    assert every <= set(found["builds"][0])
    assert all(reduced <= set(build) for build in found["builds"][1:])


def test_the_report_says_where_the_time_went(finished, report):
    seconds = report(finished)["timings"]
    passes = ["start-up", "waiting for images", "forward pass (threads)", "counting (threads)"]
    stages = ["build fp32", "calibration", *(f"calibration: {stage}" for stage in passes), "build fp16", "build int8"]
    assert [stage for stage in seconds if not stage.startswith(("evaluation", "recovery"))] == stages
    assert {"evaluation", "evaluation: fp32", "evaluation: int8", "evaluation: latency"} <= set(seconds)
    assert all(value >= 0 for value in seconds.values())
    assert sum(seconds[f"evaluation: {name}"] for name in ("fp32", "int8", "latency")) <= seconds["evaluation"] + 0.01
    lines = text_from_timings(report(finished)).splitlines()
    assert len(lines) == len(seconds) + 1
    assert lines[2].endswith("  calibration")
    assert lines[3].endswith("    start-up")


def test_the_report_names_no_built_file_that_is_not_there(finished, report):
    files = {build["precision"]: build["file"] for build in report(finished)["builds"]}
    assert files == {"fp32": "model.onnx", "fp16": None, "int8": "model.int8.onnx"}
    assert (finished / "calib-out" / files["int8"]).is_file()


def test_the_known_accuracy_is_reported(finished, report):
    assert report(finished)["builds"][0]["top1"] == 100  # one colour a class, and the model takes the mean colour


def test_json_prints_the_report_alone(calib, colours):
    result = calib("run", "--json", "--precision", "fp32", cwd=colours)
    assert result.code == 0
    assert result.out == (colours / "calib-out" / "report.json").read_text()
    assert json.loads(result.out)["schema"] == 1


def test_quiet_leaves_the_result_and_the_warnings_of_which_the_same_images_evaluated_is_one(calib, colours, report):
    result = calib("run", "--quiet", "--num-images", 36, cwd=colours)
    assert result.code == 0
    assert result.out.endswith("report: calib-out/report.html\n")
    assert len(result.warnings) == len(result.err.splitlines()) == 1
    assert "the same ones are evaluated" in result.warnings[0]
    found = report(colours)
    assert found["warnings"] == result.warnings
    assert found["data"]["calibration"]["images"] == found["data"]["evaluation"]["images"] == 36


def held_out(project, report):
    """Names of the images that calibrated, and how many others were evaluated."""
    return set(calibration_images(project)), report(project)["data"]["evaluation"]["images"]


def test_a_part_of_few_images_is_held_out_and_the_run_says_so(calib, colours, report):
    config = (colours / "calib.toml").read_text()
    (colours / "calib.toml").write_text(config.replace("num_images = 24\n", ""))
    result = calib("run", cwd=colours)
    assert result.code == 0, result.err
    line = "images: imgs (36, labelled, 3 classes): 27 calibrate, 9 are held out and evaluated"
    assert line in result.err.splitlines()
    assert result.warnings == []
    used, evaluated = held_out(colours, report)
    assert (len(used), evaluated) == (27, 9)
    assert {name.split("/")[0] for name in used} == {"blue", "green", "red"}  # each class has its share
    assert report(colours)["data"]["calibration"]["images"] == 27

    asked = calib("run", "--num-images", 512, cwd=colours)  # as the example of calib.toml does
    assert "512 calibration images were asked for, 36 are there; 27 calibrate and 9 are held out" in asked.warnings[0]
    assert "fits and is used again" in asked.err  # the same images, so the same calibration
    assert held_out(colours, report) == (used, evaluated)

    calib("run", "--eval", "imgs", cwd=colours)  # other images to evaluate, so that all may calibrate
    assert [len(part) if isinstance(part, set) else part for part in held_out(colours, report)] == [36, 36]


def test_what_calibration_leaves_over_is_evaluated(finished, report):
    found = report(finished)["data"]
    assert (found["calibration"]["images"], found["evaluation"]["images"]) == (24, 12)


def test_other_images_can_be_evaluated(calib, colours, report):
    (colours / "imgs" / "red").rename(colours / "red")
    for name in ("blue", "green", "red"):
        (colours / "test" / name).mkdir(parents=True)
    for image in (colours / "red").iterdir():
        image.rename(colours / "test" / "red" / image.name)
    (colours / "classes.txt").write_text("blue\ngreen\nred\n")
    result = calib(
        "run", "--eval", "test", "--classes", "classes.txt", "--precision", "fp32", "--json", cwd=colours
    )  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["data"]["evaluation"] == {"path": "test", "images": 12, "labelled": True}
    assert found["builds"][0]["top1"] == 100


def test_labels_can_come_from_a_csv(calib, colours, report):
    rows = []
    for path in sorted((colours / "imgs").rglob("*.png")):
        label = path.parent.name
        path.rename(colours / "imgs" / f"{label}-{path.name}")
        rows.append(f"{label}-{path.name},{label}")
    (colours / "labels.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    for name in ("blue", "green", "red"):
        (colours / "imgs" / name).rmdir()
    result = calib("run", "--labels", "labels.csv", "--precision", "fp32", cwd=colours)
    assert result.code == 0, result.err
    assert report(colours)["builds"][0]["top1"] == 100


def test_without_labels_the_verdict_is_unlabelled(calib, colours, report):
    for path in list((colours / "imgs").rglob("*.png")):
        path.rename(colours / "imgs" / f"{path.parent.name}{path.name}")
    for name in ("blue", "green", "red"):
        (colours / "imgs" / name).rmdir()
    result = calib("run", cwd=colours)
    assert result.code == 0
    found = report(colours)
    assert found["verdict"] == "unlabelled"
    assert not found["data"]["evaluation"]["labelled"]
    int8 = found["builds"][-1]
    assert int8["top1"] is None
    assert int8["drop_top1"] is None
    assert int8["agreement"] == 100
    assert int8["sqnr_db"] > 20


def test_a_pack_calibrates_and_a_folder_is_evaluated_with_the_classes_in_the_model_s_order(calib, colours, report):
    (colours / "turned.txt").write_text("red\ngreen\nblue\n")
    assert calib("pack", "imgs", "imgs.h5", "--classes", "turned.txt", "--quiet", cwd=colours).code == 0
    (colours / "classes.txt").write_text("blue\ngreen\nred\n")
    classes = ("--classes", "classes.txt", "--quiet")
    for data, evaluated, precision in (
        ("imgs.h5", "imgs", "int8"),
        ("imgs", "imgs.h5", "fp32"),
        ("imgs.h5", "imgs.h5", "fp32"),
    ):
        result = calib("run", "--data", data, "--eval", evaluated, "--precision", precision, *classes, cwd=colours)
        assert result.code == 0, result.err
        assert report(colours)["data"]["evaluation"] == {"path": evaluated, "images": 36, "labelled": True}
        assert report(colours)["builds"][0]["top1"] == 100


def test_a_pack_of_other_classes_is_told_by_name(calib, colours):
    assert calib("pack", "imgs", "imgs.h5", "--quiet", cwd=colours).code == 0
    (colours / "classes.txt").write_text("blue\ngreen\nyellow\n")
    result = calib("run", "--data", "imgs.h5", "--classes", "classes.txt", "--quiet", cwd=colours)
    assert result.code == 1
    assert "imgs.h5: class 'red' is not one of the 3 classes given" in result.error


def test_shuffled_classes_get_a_warning_of_accuracy_near_chance(calib, colours):
    (colours / "classes.txt").write_text("red\nblue\ngreen\n")
    result = calib("run", "--quiet", "--classes", "classes.txt", "--precision", "fp32", cwd=colours)
    assert result.code == 4  # nothing was shown
    warning = next(line for line in result.warnings if "near chance" in line)
    assert "0.00 %" in warning
    assert "33.33 %" in warning
    assert "--preprocess" in warning
    assert "--classes" in warning


def test_a_wrong_preprocessing_gets_a_warning_of_accuracy_near_chance(calib, colours):
    (colours / "dark.toml").write_text('preset = "unit"\nscale = 1e-20\nmean = [0.5, 0.5, 0.4]\n')  # always one class
    result = calib("run", "--quiet", "--preprocess", "dark.toml", "--precision", "fp32", cwd=colours)
    assert [line for line in result.warnings if "near chance" in line and "preprocessing is probably wrong" in line]
    assert "near chance" in (colours / "calib-out" / "report.md").read_text()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_one_precision_alone_is_built_without_calibrating(calib, colours, report, precision):
    result = calib("run", "--precision", precision, cwd=colours)
    assert result.code == 0
    found = report(colours)
    assert found["calibration"] is None
    assert found["chosen"] == precision
    assert [build["precision"] for build in found["builds"]] == list(dict.fromkeys(["fp32", precision]))
    assert found["data"]["evaluation"]["images"] == 36
    written = {path.name for path in (colours / "calib-out").iterdir()} - {".lock"}
    assert written == {"report.json", "report.md", "report.html"} | {"model.fp16.onnx"} - (
        {"model.fp16.onnx"} if precision == "fp32" else set()
    )


def test_a_name_that_is_no_utf8_is_reported(calib, colours, report):
    bad = os.fsencode(colours / "imgs" / "red") + b"/bad\xff.png"
    with open(bad, "wb") as file:  # noqa: PTH123 - a path in bytes
        file.write(b"no image")
    result = calib("run", "--max-bad", 0.2, cwd=colours)
    assert result.code == 0, result.err
    assert "bad" in report(colours)["quarantined"][0]["file"]
    assert "udcff" in (colours / "calib-out" / "report.md").read_text()
