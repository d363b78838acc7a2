"""What a comparison is given: which model a report stands for, on which images, with which settings."""

import json
import re
import shutil
from pathlib import Path

import pytest

from datasets import open_source
from quant import run
from quant.errors import QuantError
from quant.jobs.compare_sides import compared_from_path, comparison_settings, uncalibrated_images
from quant.progress import RecordingConsole
from quant.settings.calib_toml import settings_from_options


@pytest.fixture
def project(finished, monkeypatch):
    """The finished project as working folder, without its calib.toml: only reports tell of the data."""
    (finished / "calib.toml").unlink()
    monkeypatch.chdir(finished)
    return finished


OUT = {"out": Path("calib-compare")}


def sides_of(*paths):
    return [compared_from_path(Path(path)) for path in paths]


def edited(project, name, change):
    """A copy of the run's folder, its report changed."""
    folder = Path(shutil.copytree(project / "calib-out", project / name))
    document = json.loads((folder / "report.json").read_text())
    document["working_folder"] = str(project)
    change(document)
    (folder / "report.json").write_text(json.dumps(document))
    return name


def calibrated(project):
    """Names of the images that calibrated, in the order of the folder."""
    document = json.loads((project / "calib-out" / "calibration.json").read_text())
    return sorted(row[0] for row in document["source"]["images"])


@pytest.fixture
def left():
    """Names of the images that a comparison of reports is made on, and the warnings."""

    def look(*paths, data="imgs", of_reports=True):
        console, source = RecordingConsole(), open_source(data)
        found = uncalibrated_images(sides_of(*paths), source, console, of_reports=of_reports)
        return None if found is None else [source.names[i] for i in found], console.warnings

    return look


def test_a_model_stands_for_itself():
    (side,) = sides_of("some/model.onnx")
    assert (side.path, side.report_path, side.report) == (Path("some/model.onnx"), None, None)


@pytest.mark.parametrize("given", ["calib-out", "calib-out/report.json"])
def test_a_report_or_its_folder_stands_for_the_int8_model_of_its_run(project, given):
    (side,) = sides_of(given)
    assert (side.path, side.report_path) == (Path("calib-out/model.int8.onnx"), Path("calib-out/report.json"))
    assert (side.report.evaluated, side.report.settings.preprocess) == (Path("imgs"), "unit")


def test_without_int8_a_report_stands_for_what_was_chosen(project):
    def half(document):
        document["builds"] = [row for row in document["builds"] if row["precision"] != "int8"]
        document["builds"][1]["file"] = "model.fp16.onnx"
        document["chosen"] = "fp16"

    (project / edited(project, "half", half) / "model.fp16.onnx").write_bytes(b"")
    assert [side.path for side in sides_of("half")] == [Path("half/model.fp16.onnx")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("imgs", "imgs: expected a model, an engine or the folder of a run"),
        ("none.json", "none.json: cannot be read"),
        ("calib-out/calibration.json", "calibration.json: expected the report.json of a run"),
    ],
)
def test_what_is_no_report_is_refused_by_name(project, given, message):
    with pytest.raises(QuantError, match=message):
        compared_from_path(Path(given))


def test_settings_come_from_the_reports_and_options_win(project):
    sides = sides_of("model.onnx", "calib-out")
    settings, taken = comparison_settings(sides, {**OUT, "seed": None})
    assert (settings.model, settings.eval, settings.preprocess) == (Path("model.onnx"), Path("imgs"), "unit")
    assert set(taken) == {"data", "eval", "labels", "classes", "preprocess"}
    settings, taken = comparison_settings(sides, {**OUT, "data": Path("mine"), "preprocess": "cifar10", "seed": 4})
    assert (settings.data, settings.eval, settings.preprocess, settings.seed) == (Path("mine"), None, "cifar10", 4)
    assert taken == ()


def test_reports_of_other_images_need_to_be_told(project):
    def other(document):
        document["settings"]["data"] = "others"

    sides = sides_of("calib-out", edited(project, "a", other))
    with pytest.raises(QuantError) as caught:
        comparison_settings(sides, OUT)
    said = str(caught.value)
    assert re.search(r"a/report.json: expected a run on the images of calib-out/report.json \(.*imgs\)", said)
    assert comparison_settings(sides, {**OUT, "data": Path("imgs")})[0].data == Path("imgs")


def test_reports_of_another_preprocessing_need_to_be_told(project):
    def other(document):
        document["preprocessing"]["mean"] = [0.5]

    sides = sides_of("calib-out", edited(project, "b", other))
    with pytest.raises(QuantError) as caught:
        comparison_settings(sides, OUT)
    said = str(caught.value)
    assert said.startswith("b/report.json: expected the preprocessing of calib-out/report.json, found another mean;")
    assert said.endswith("give it with --preprocess")
    assert comparison_settings(sides, {**OUT, "preprocess": "unit"})[0].preprocess == "unit"


def test_models_alone_leave_no_image_out(left, project):
    assert left("model.onnx", "calib-out/model.int8.onnx") == (None, [])


@pytest.mark.parametrize("change", ["gone", "renamed", "moved"])
def test_what_calibrated_is_left_out_by_its_contents(left, project, change):
    """Indices and spellings change when a file goes, when files are renamed, and when the whole project is moved."""
    names = sorted(path.relative_to(project / "imgs").as_posix() for path in (project / "imgs").rglob("*.png"))
    expected = set(names) - set(calibrated(project))
    assert len(expected) == 12
    out, data = "calib-out", "imgs"
    if change == "gone":
        (project / "imgs" / calibrated(project)[0]).unlink()  # all others move up
    elif change == "renamed":
        new = {name: f"{Path(name).parent}/{99 - number}.png" for number, name in enumerate(names)}
        for name in names:
            (project / "imgs" / name).rename(project / "imgs" / new[name])
        expected = {new[name] for name in expected}
    else:
        (project / "sub").mkdir()
        for name in ("imgs", "model.onnx", "calib-out"):
            (project / name).rename(project / "sub" / name)
        out, data = "sub/calib-out", "sub/imgs"
    found, warnings = left(out, out, data=data)
    assert set(found) == expected
    assert warnings == []


def test_images_that_came_or_went_since_a_report_are_warned_of(left, project):
    (name, *_) = sorted(
        {path.relative_to(project / "imgs").as_posix() for path in (project / "imgs").rglob("*.png")}
        - set(calibrated(project))
    )
    (project / "imgs" / name).unlink()
    found, warnings = left("model.onnx", "calib-out")
    assert len(found) == 11
    assert warnings == ["calib-out/report.json: its run evaluated 12 images, 11 are there now"]


def test_a_report_of_all_images_beside_one_that_left_some_out_is_not_said_to_lack_any(left, project):
    options = {"model": Path("model.onnx"), "data": Path("imgs"), "preprocess": "unit", "precision": "fp16"}
    run(settings_from_options({**options, "out": Path("half")}))
    found, warnings = left("calib-out", "half")
    assert len(found) == 12  # of 36, those that the first did not calibrate on
    assert warnings == []


def test_images_that_the_user_names_are_all_compared_and_those_that_calibrated_are_counted(left, project):
    found, warnings = left("model.onnx", "calib-out", of_reports=False)
    assert found is None
    assert len(warnings) == 1
    assert "24 of 36 images were used for calibration, so the measured drop may be too small" in warnings[0]


def test_where_all_images_calibrated_there_is_nothing_to_compare_on(left, project):
    shutil.rmtree(project / "imgs" / "red")
    kept = set(calibrated(project))
    for path in list((project / "imgs").rglob("*.png")):
        if path.relative_to(project / "imgs").as_posix() not in kept:
            path.unlink()
    with pytest.raises(QuantError, match="every image was used for calibration"):
        left("model.onnx", "calib-out")


@pytest.mark.parametrize("of_reports", [True, False])
def test_a_trusted_cache_does_not_say_what_calibrated(left, project, of_reports):
    def trusted(document):
        document["data"]["calibration"]["sha256"] = None

    found, warnings = left("model.onnx", edited(project, "trusted", trusted), of_reports=of_reports)
    assert found is None
    told = ["trusted/report.json: its cache was trusted, so its calibration images are not known"]
    assert warnings == (told if of_reports else [])


def test_a_calibration_that_is_another_by_now_is_refused_where_it_matters(left, project):
    def other(document):
        document["data"]["calibration"]["sha256"] = "0" * 64

    edited(project, "other", other)
    with pytest.raises(
        QuantError, match=r"are no longer known: .*calibration\.cache has since been made from other images"
    ):
        left("model.onnx", "other")
    assert left("model.onnx", "other", of_reports=False) == (None, [])
