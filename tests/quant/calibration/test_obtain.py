"""Where scales come from: a cache that fits, statistics that fit, or the images; and what is said of it."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from calib.errors import CacheError
from tests.outcome import calibration_images


@pytest.mark.parametrize("algo", ["entropy", "percentile", "mse"])
def test_another_algorithm_is_computed_from_the_statistics(obtain, colours, opened, algo):
    cache = colours / "calib-out" / "calibration.cache"
    obtain(colours)
    opened.clear()
    result, console = obtain(colours, algo=algo)
    assert any(f"holds minmax; {algo} is computed" in line for line in console.notes)
    assert (result.how, result.cache.algo, result.images) == ("recomputed", algo, 24)
    assert opened == []
    recomputed = cache.read_bytes()
    shutil.rmtree(cache.parent)
    assert obtain(colours, algo=algo)[0].how == "calibrated"
    assert cache.read_bytes() == recomputed


def test_another_algorithm_on_the_demo_runs_no_model_and_reads_no_image(obtain, demo, opened, monkeypatch):
    """So it takes under a second, which no test asserts: it depends on the machine."""
    obtain(demo, batch_size=16)
    assert set(opened) == set(calibration_images(demo))
    opened.clear()

    def collect(*arguments, **options):
        raise AssertionError("activations are collected")

    monkeypatch.setattr("quant.collectors.onnxruntime_collector.collect_statistics", collect)
    result, _ = obtain(demo, batch_size=16, algo="percentile")
    assert result.how == "recomputed"
    assert opened == []


def test_another_percentile_is_computed_anew(obtain, finished, ours):
    obtain(finished, algo="percentile", percentile=99.0)
    first = ours.read_bytes()
    result, _ = obtain(finished, algo="percentile", percentile=90.0)
    assert result.how == "recomputed"
    assert ours.read_bytes() != first


def test_a_changed_image_is_named_and_all_is_calibrated_anew(obtain, finished):
    before, _ = obtain(finished)
    assert before.how == "reused"
    name = calibration_images(finished)[5]
    Image.new("RGB", (8, 8), (200, 40, 40)).save(finished / "imgs" / name)
    result, console = obtain(finished)
    (warning,) = console.warnings
    assert f"other images (24 then, 24 now; 1 changed: {name})" in warning
    assert "recalibrating" in warning
    assert result.how == "calibrated"
    assert result.data_sha256 != before.data_sha256


def test_a_new_image_and_a_lost_one_are_told(obtain, finished):
    lost = finished / "imgs" / calibration_images(finished)[0]
    lost.rename(lost.with_name("aa.png"))
    _, console = obtain(finished, sampling="first", num_images=36)
    assert "24 then, 36 now; 13 new: " in console.warnings[1]
    assert f"1 gone: {lost.parent.name}/{lost.name})" in console.warnings[1]


def test_images_that_were_only_touched_are_used_again(obtain, finished):
    for name in calibration_images(finished):
        (finished / "imgs" / name).touch()
    assert obtain(finished)[0].how == "reused"


def test_a_copied_project_is_used_again(obtain, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert obtain(copy)[0].how == "reused"


def test_another_preprocessing_is_told_with_its_fields(obtain, finished):
    result, console = obtain(finished, preprocess="imagenet-tf")
    assert "other preprocessing" in console.warnings[0]
    assert "mean [0.0], now [1.0]" in console.warnings[0]
    assert result.how == "calibrated"


def test_the_same_preprocessing_under_another_name_is_the_same(obtain, finished):
    (finished / "mine.toml").write_text('preset = "unit"\n')
    assert obtain(finished, preprocess="mine.toml")[0].how == "reused"


def test_another_model_is_told(obtain, finished, write_model):
    write_model(finished / "model.onnx", opset=16)
    result, console = obtain(finished)
    assert "another model (SHA-256 " in console.warnings[0]
    assert result.how == "calibrated"


def test_everything_that_differs_is_told_at_once(obtain, finished, write_model):
    write_model(finished / "model.onnx", opset=16)
    _, console = obtain(finished, preprocess="imagenet-tf", num_images=12)
    assert all(what in console.warnings[0] for what in ("another model", "other preprocessing", "other images"))


@pytest.mark.parametrize(
    ("algorithm", "options", "difference"),
    [
        ("minmax", {"algo": "entropy"}, "another algorithm (minmax, now entropy)"),
        ("percentile", {"algo": "percentile", "percentile": 99.0}, "another percentile (99.99, now 99.0)"),
    ],
)
def test_cache_only_stops_at_another_algorithm_and_writes_nothing(
    obtain, finished, snapshot, algorithm, options, difference
):
    obtain(finished, algo=algorithm)
    older = snapshot(finished / "calib-out")
    with pytest.raises(CacheError) as caught:
        obtain(finished, cache_only=True, **options)
    said = f"calib-out/calibration.cache: cannot be used: {difference}; leave out --cache-only"
    assert said in str(caught.value)
    assert snapshot(finished / "calib-out") == older
    assert obtain(finished, **options)[0].how == "recomputed"
    assert obtain(finished, cache_only=True, **options)[0].how == "reused"


def test_cache_only_stops_where_there_is_no_cache(obtain, colours):
    with pytest.raises(CacheError) as caught:
        obtain(colours, cache_only=True)
    assert "calib-out/calibration.cache: expected a calibration cache, found none" in str(caught.value)


def test_a_cache_elsewhere_is_used_again_and_made_anew_when_something_differs(obtain, colours):
    cache = Path("mine/mine.cache")
    assert obtain(colours, cache=cache)[0].how == "calibrated"
    assert obtain(colours, cache=cache)[0].how == "reused"
    result, console = obtain(colours, cache=cache, preprocess="imagenet-tf")
    assert "other preprocessing" in console.warnings[0]
    assert result.how == "calibrated"
    assert not (colours / "calib-out").exists()


def test_a_fixed_batch_gives_the_scales_of_a_free_one(obtain, colours, write_model):
    free, _ = obtain(colours)
    write_model(colours / "model.onnx", batch=5)
    fixed, _ = obtain(colours)
    assert (free.how, fixed.how) == ("calibrated", "calibrated")
    assert fixed.cache == free.cache
