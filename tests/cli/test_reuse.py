"""A second run: what it reuses, what it computes again, and what it says."""

import json
import shutil

import pytest
from PIL import Image

import datasets.image_folder


@pytest.fixture
def opened(monkeypatch):
    """The images that were read, for their pixels or their hash, since the test began."""
    names = []
    for method in ("read", "content"):
        original = getattr(datasets.image_folder.ImageFolder, method)

        def counted(self, index, original=original):
            names.append(self.names[index])
            return original(self, index)

        monkeypatch.setattr(datasets.image_folder.ImageFolder, method, counted)
    return names


def calibration_images(project):
    document = json.loads((project / "calib-out" / "calibration.json").read_text())
    return [name for name, _, _ in document["source"]["images"]]


def test_a_second_run_reads_no_calibration_image(calib, colours, report, snapshot, opened):
    assert calib("run", cwd=colours).code == 0
    cache = {path: state for path, state in snapshot(colours / "calib-out").items() if "calibration" in path.name}
    opened.clear()

    result = calib("run", cwd=colours)

    assert result.code == 0
    assert "fits and is used again" in result.err
    assert not set(opened) & set(calibration_images(colours))
    assert set(opened), "the evaluated images are read"
    found = report(colours)["calibration"]
    assert (found["how"], found["reused"], found["images"]) == ("reused", True, 24)
    after = snapshot(colours / "calib-out")
    assert {path: after[path] for path in cache} == cache


@pytest.mark.parametrize("algo", ["entropy", "percentile", "mse"])
def test_another_algorithm_is_computed_from_the_statistics(calib, colours, report, opened, algo):
    assert calib("run", cwd=colours).code == 0
    calibration = calibration_images(colours)
    opened.clear()
    result = calib("run", "--algo", algo, cwd=colours)
    assert f"holds minmax; {algo} is computed" in result.err
    found = report(colours)["calibration"]
    assert (found["how"], found["reused"], found["algo"]) == ("recomputed", True, algo)
    assert not set(opened) & set(calibration)
    recomputed = (colours / "calib-out" / "calibration.cache").read_bytes()

    shutil.rmtree(colours / "calib-out")
    assert calib("run", "--algo", algo, cwd=colours).code == 0
    assert report(colours)["calibration"]["how"] == "calibrated"
    assert (colours / "calib-out" / "calibration.cache").read_bytes() == recomputed


def test_another_algorithm_on_the_demo_runs_no_model_and_reads_no_image(calib, demo, report, opened, monkeypatch):
    """It therefore takes less than a second, but no test asserts that, since it depends on the machine."""
    assert calib("run", "--batch-size", 16, cwd=demo).code == 0
    calibration = calibration_images(demo)
    opened.clear()

    def collect(*arguments, **options):
        raise AssertionError("activations are collected")

    monkeypatch.setattr("quant.collectors.onnxruntime_collector.collect_statistics", collect)
    assert calib("run", "--batch-size", 16, "--algo", "percentile", cwd=demo).code == 0
    assert report(demo)["calibration"]["how"] == "recomputed"
    assert not set(opened) & set(calibration)


def test_another_percentile_is_computed_anew(calib, finished, report):
    options = ("run", "--algo", "percentile", "--percentile")
    assert calib(*options, 99, cwd=finished).code == 0
    first = (finished / "calib-out" / "calibration.cache").read_bytes()
    assert calib(*options, 90, cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "recomputed"
    assert (finished / "calib-out" / "calibration.cache").read_bytes() != first


def test_a_changed_image_is_named_and_all_is_calibrated_anew(calib, finished, report):
    before = report(finished)["data"]["calibration"]["sha256"]
    name = calibration_images(finished)[5]
    Image.new("RGB", (8, 8), (200, 40, 40)).save(finished / "imgs" / name)
    result = calib("run", "--quiet", cwd=finished)
    assert result.code == 0
    (warning,) = result.warnings
    assert f"other images (24 then, 24 now; 1 changed: {name})" in warning
    assert "recalibrating" in warning
    found = report(finished)
    assert found["calibration"]["how"] == "calibrated"
    assert found["data"]["calibration"]["sha256"] != before


def test_a_new_image_and_a_lost_one_are_told(calib, finished):
    lost = finished / "imgs" / calibration_images(finished)[0]
    lost.rename(lost.with_name("aa.png"))
    result = calib("run", "--quiet", "--sampling", "first", "--num-images", 36, cwd=finished)
    assert "24 then, 36 now; 13 new: " in result.warnings[1]
    assert f"1 gone: {lost.parent.name}/{lost.name})" in result.warnings[1]


def test_images_that_were_only_touched_are_used_again(calib, finished, report):
    for name in calibration_images(finished):
        (finished / "imgs" / name).touch()
    assert calib("run", cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "reused"


def test_a_copied_project_is_used_again(calib, finished, report, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert calib("run", cwd=copy).code == 0
    assert report(copy)["calibration"]["how"] == "reused"


def test_another_preprocessing_is_told_with_its_fields(calib, finished, report):
    result = calib("run", "--quiet", "--preprocess", "imagenet-tf", cwd=finished)
    assert "other preprocessing" in result.warnings[0]
    assert "mean [0.0], now [1.0]" in result.warnings[0]
    assert report(finished)["calibration"]["how"] == "calibrated"


def test_the_same_preprocessing_under_another_name_is_the_same(calib, finished, report):
    (finished / "mine.toml").write_text('preset = "unit"\n')
    assert calib("run", "--preprocess", "mine.toml", cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "reused"


def test_another_model_is_told(calib, finished, write_model, report):
    write_model(finished / "model.onnx", opset=16)
    result = calib("run", "--quiet", cwd=finished)
    assert "another model (SHA-256 " in result.warnings[0]
    assert report(finished)["calibration"]["how"] == "calibrated"


def test_everything_that_differs_is_told_at_once(calib, finished, write_model):
    write_model(finished / "model.onnx", opset=16)
    result = calib("run", "--quiet", "--preprocess", "imagenet-tf", "--num-images", 12, cwd=finished)
    assert all(what in result.warnings[0] for what in ("another model", "other preprocessing", "other images"))


def test_cache_only_runs_on_a_cache_that_fits(calib, finished, report):
    assert calib("run", "--cache-only", cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "reused"


def test_cache_only_stops_when_something_differs(calib, finished, snapshot):
    older = snapshot(finished / "calib-out")
    result = calib("run", "--quiet", "--cache-only", "--preprocess", "imagenet-tf", cwd=finished)
    assert result.code == 1
    assert "calib-out/calibration.cache: cannot be used: other preprocessing" in result.error
    assert "leave out --cache-only" in result.error
    assert snapshot(finished / "calib-out") == older


@pytest.mark.parametrize(
    ("algorithm", "options", "difference"),
    [
        ("minmax", ("--algo", "entropy"), "another algorithm (minmax, now entropy)"),
        ("percentile", ("--algo", "percentile", "--percentile", 99), "another percentile (99.99, now 99.0)"),
    ],
)
def test_cache_only_stops_at_another_algorithm_and_writes_nothing(
    calib, finished, report, snapshot, algorithm, options, difference
):
    assert calib("run", "--algo", algorithm, cwd=finished).code == 0
    older = snapshot(finished / "calib-out")
    result = calib("run", "--quiet", "--cache-only", *options, cwd=finished)
    assert result.code == 1
    assert f"calib-out/calibration.cache: cannot be used: {difference}; leave out --cache-only" in result.error
    assert snapshot(finished / "calib-out") == older
    assert calib("run", *options, cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "recomputed"
    assert calib("run", "--cache-only", *options, cwd=finished).code == 0
    assert report(finished)["calibration"]["how"] == "reused"


def test_cache_only_stops_where_there_is_no_cache(calib, colours):
    result = calib("run", "--quiet", "--cache-only", cwd=colours)
    assert result.code == 1
    assert "calib-out/calibration.cache: expected a calibration cache, found none" in result.error


def test_a_cache_elsewhere_is_written_and_used_again(calib, colours, report):
    caches = colours / "caches"
    assert calib("run", "--cache", caches / "mine.cache", cwd=colours).code == 0
    assert {path.name for path in caches.iterdir()} - {".lock"} == {"mine.cache", "mine.json", "mine.h5"}
    assert calib("run", "--cache", caches / "mine.cache", cwd=colours).code == 0
    assert report(colours)["calibration"]["how"] == "reused"
    assert not (colours / "calib-out" / "calibration.cache").exists()


def test_a_cache_in_the_output_folder_may_be_spelled_in_another_way(calib, colours):
    result = calib("run", "--cache", colours / "calib-out" / "mine.cache", "--out", "calib-out", cwd=colours)
    assert result.code == 0, result.err
