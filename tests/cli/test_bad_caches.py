"""Bad calibration caches: never used without a check, never lost."""

import json
import shutil

import pytest

from calib.caches.cache import CalibrationCache, read_cache, text_from_cache


@pytest.fixture
def bare(finished, tmp_path):
    """A cache from elsewhere: without provenance, as TensorRT writes it."""
    path = tmp_path / "elsewhere" / "theirs.cache"
    path.parent.mkdir()
    shutil.copy(finished / "calib-out" / "calibration.cache", path)
    return path


def test_a_spoiled_cache_of_ours_is_told_and_made_anew(calib, finished, report):
    cache = finished / "calib-out" / "calibration.cache"
    good = cache.read_bytes()
    cache.write_text("hello\n")
    result = calib("run", "--quiet", cwd=finished)
    assert result.code == 0, result.err
    assert result.warnings[0].startswith("calib-out/calibration.cache:")
    assert "expected 'TRT-<version>-<calibrator>', found 'hello'" in result.warnings[0]
    assert result.warnings[0].endswith("recalibrating")
    assert report(finished)["calibration"]["how"] == "calibrated"
    assert cache.read_bytes() == good


@pytest.mark.parametrize("option", ["--cache-only", "--trust-cache"])
def test_a_spoiled_cache_stops_a_run_that_may_not_replace_it(calib, finished, snapshot, option):
    (finished / "calib-out" / "calibration.cache").write_text("hello\n")
    older = snapshot(finished / "calib-out")
    result = calib("run", "--quiet", option, cwd=finished)
    assert result.code == 1
    assert "calib-out/calibration.cache" in result.error
    assert "expected 'TRT-<version>-<calibrator>', found 'hello'" in result.error
    assert snapshot(finished / "calib-out") == older


def test_a_trusted_bare_cache_gives_the_model_of_the_calibration(calib, colours, finished, bare, report, snapshot):
    older = snapshot(bare.parent)
    result = calib("run", "--cache", bare, "--trust-cache", cwd=colours)
    assert result.code == 0, result.err
    assert "used as it is" in result.err
    assert not any("do not suit" in line for line in result.warnings)
    found = report(colours)["calibration"]
    assert (found["how"], found["images"], found["images_per_second"]) == ("trusted", None, None)
    model = "calib-out/model.int8.onnx"
    assert (colours / model).read_bytes() == (finished / model).read_bytes()
    assert snapshot(bare.parent) == older
    assert not (bare.parent / ".lock").exists(), "the folder of a trusted cache is not written to"


def test_the_packed_data_survives_a_cache_of_its_name(calib, colours, snapshot):
    assert calib("pack", "imgs", "imgs.h5", "--quiet", cwd=colours).code == 0
    older = (colours / "imgs.h5").read_bytes()
    result = calib("run", "--quiet", "--data", "imgs.h5", "--cache", "imgs.cache", cwd=colours)
    assert result.code == 1
    assert "imgs.h5" in result.error
    assert (colours / "imgs.h5").read_bytes() == older


@pytest.mark.parametrize(
    ("cache", "part"),
    [
        ("calib-out", "found a folder"),
        ("mine.json", "found '.json', the ending of a file that is written beside it"),
        ("mine.h5", "found '.h5', the ending of a file that is written beside it"),
        ("calib-out/report.cache", "would overwrite a report or model"),
    ],
)
def test_a_cache_at_an_impossible_place(calib, finished, snapshot, cache, part):
    older = snapshot(finished)
    result = calib("run", "--quiet", "--cache", cache, cwd=finished)
    assert result.code == 1
    assert f"{cache}: " in result.error
    assert part in result.error
    assert snapshot(finished) == older


def test_the_provenance_says_what_the_cache_was_made_from(finished, report):
    document = json.loads((finished / "calib-out" / "calibration.json").read_text())
    assert document["algorithm"] == "minmax"
    assert document["source"]["model"] == report(finished)["model"]["sha256"]
    assert document["source"]["data"] == report(finished)["data"]["calibration"]["sha256"]
    assert len(document["source"]["images"]) == 24
    assert set(document["tensors"]["input"]) >= {"amax", "min", "max", "zeros"}
    assert {"calib", "onnxruntime"} <= set(document["versions"])


def test_a_trusted_cache_with_crushed_scales_is_warned_of(calib, colours, bare):
    cache = read_cache(bare)
    crushed = CalibrationCache(cache.header, {name: scale / 100 for name, scale in cache.scales.items()})
    bare.write_text(text_from_cache(crushed))
    result = calib("run", "--cache", bare, "--trust-cache", cwd=colours)
    assert any("scales do not suit the images: '" in line for line in result.warnings), result.err
