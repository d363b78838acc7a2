"""Bad calibration caches: never used without a check, never lost."""

import json
import shutil
import struct

import pytest

from calib.caches.cache import CalibrationCache, read_cache, text_from_cache


def spoilers(scales):
    """Ways to spoil a cache file, and what `read_cache` says about each."""

    def hexadecimal(value):
        return lambda path: scales(path, lambda digits: struct.pack(">f", value).hex())

    def doubled_line(path):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, lines[1]]) + "\n")

    def cut_off(path):
        path.write_text(path.read_text()[:-4])

    return {
        "garbage": (lambda path: path.write_bytes(b"\xff\xfe\x00 no cache"), "expected text, found binary data"),
        "text": (lambda path: path.write_text("hello\n"), ":1: expected 'TRT-<version>-<calibrator>', found 'hello'"),
        "empty": (lambda path: path.write_bytes(b""), ":1: expected 'TRT-<version>-<calibrator>', found ''"),
        "header": (lambda path: path.write_text(path.read_text().split("\n")[0]), "expected scales after the header"),
        "truncated": (cut_off, "expected '<tensor>: <8 hex digits>'"),
        "zero": (hexadecimal(0.0), "expected a finite scale above zero for 'input', found 0.0"),
        "negative": (hexadecimal(-1.0), "expected a finite scale above zero for 'input', found -1.0"),
        "nan": (hexadecimal(float("nan")), "expected a finite scale above zero for 'input', found nan"),
        "infinite": (hexadecimal(float("inf")), "expected a finite scale above zero for 'input', found inf"),
        "twice": (doubled_line, "expected each tensor once, found 'input' again"),
    }


SPOILED = list(spoilers(None))


@pytest.fixture
def spoil(scales):
    """Spoils a cache file in a named way, and returns the message that is expected."""

    def apply(path, how):
        change, message = spoilers(scales)[how]
        change(path)
        return message

    return apply


@pytest.fixture
def bare(finished, tmp_path):
    """A cache from elsewhere: without provenance, as TensorRT writes it."""
    path = tmp_path / "elsewhere" / "theirs.cache"
    path.parent.mkdir()
    shutil.copy(finished / "calib-out" / "calibration.cache", path)
    return path


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_cache_of_ours_is_told_and_made_anew(calib, finished, spoil, report, how):
    cache = finished / "calib-out" / "calibration.cache"
    good = cache.read_bytes()
    message = spoil(cache, how)
    result = calib("run", "--quiet", cwd=finished)
    assert result.code == 0, result.err
    assert result.warnings[0].startswith("calib-out/calibration.cache:")
    assert message in result.warnings[0]
    assert result.warnings[0].endswith("recalibrating")
    assert report(finished)["calibration"]["how"] == "calibrated"
    assert cache.read_bytes() == good


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("option", ["--cache-only", "--trust-cache"])
def test_a_spoiled_cache_stops_a_run_that_may_not_replace_it(calib, finished, spoil, snapshot, how, option):
    message = spoil(finished / "calib-out" / "calibration.cache", how)
    older = snapshot(finished / "calib-out")
    result = calib("run", "--quiet", option, cwd=finished)
    assert result.code == 1
    assert "calib-out/calibration.cache" in result.error
    assert message in result.error
    assert snapshot(finished / "calib-out") == older


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("options", [(), ("--trust-cache",), ("--cache-only",)])
def test_a_spoiled_cache_from_elsewhere_is_never_overwritten(calib, colours, bare, spoil, snapshot, how, options):
    spoil(bare, how)
    older = snapshot(bare.parent)
    result = calib("run", "--quiet", "--cache", bare, *options, cwd=colours)
    assert result.code == 1
    assert str(bare) in result.error
    assert snapshot(bare.parent) == older


def test_doubled_scales_are_noticed_by_the_provenance(calib, finished, scales, report):
    cache = finished / "calib-out" / "calibration.cache"
    good = cache.read_bytes()
    scales(cache, lambda digits: struct.pack(">f", 2 * struct.unpack(">f", bytes.fromhex(digits))[0]).hex())
    strict = calib("run", "--quiet", "--cache-only", cwd=finished)
    assert strict.code == 1
    assert "is not the file that calibration.json describes (edited, swapped or missing)" in strict.error
    result = calib("run", "--quiet", cwd=finished)
    assert "edited, swapped or missing" in result.warnings[0]
    assert cache.read_bytes() == good


@pytest.mark.parametrize("name", ["calibration.json", "calibration.h5"])
@pytest.mark.parametrize("contents", [None, b"", b"{}", b"[1, 2]", b"\x89HDF\r\n\x1a\n cut"])
def test_a_spoiled_companion_is_told_and_made_anew(calib, finished, report, snapshot, name, contents):
    path = finished / "calib-out" / name
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    older = snapshot(finished / "calib-out")
    strict = calib("run", "--quiet", "--cache-only", cwd=finished)
    assert strict.code == 1
    assert name in strict.error
    assert snapshot(finished / "calib-out") == older
    result = calib("run", "--quiet", cwd=finished)
    assert result.code == 0
    assert name in result.warnings[0]
    assert report(finished)["calibration"]["how"] == "calibrated"
    assert calib("run", "--cache-only", cwd=finished).code == 0


def test_a_bare_cache_needs_trust(calib, colours, bare, snapshot):
    older = snapshot(bare.parent)
    for options in ((), ("--cache-only",)):
        result = calib("run", "--quiet", "--cache", bare, *options, cwd=colours)
        assert result.code == 1
        assert "theirs.cache: has no provenance (theirs.json) beside it" in result.error
        assert "--trust-cache" in result.error
    assert snapshot(bare.parent) == older


def test_a_trusted_bare_cache_gives_the_model_of_the_calibration(calib, colours, finished, bare, report, snapshot):
    older = snapshot(bare.parent)
    result = calib("run", "--cache", bare, "--trust-cache", cwd=colours)
    assert result.code == 0, result.err
    assert "used as it is" in result.err
    found = report(colours)["calibration"]
    assert (found["how"], found["images"], found["images_per_second"]) == ("trusted", None, None)
    model = "calib-out/model.int8.onnx"
    assert (colours / model).read_bytes() == (finished / model).read_bytes()
    assert snapshot(bare.parent) == older
    assert not (bare.parent / ".lock").exists(), "the folder of a trusted cache is not written to"


def test_a_trusted_cache_may_have_windows_line_ends(calib, colours, bare):
    bare.write_bytes(bare.read_bytes().replace(b"\n", b"\r\n"))
    assert calib("run", "--cache", bare, "--trust-cache", cwd=colours).code == 0


def test_a_trusted_cache_of_another_algorithm_stops(calib, colours, bare):
    result = calib("run", "--quiet", "--cache", bare, "--trust-cache", "--algo", "entropy", cwd=colours)
    assert result.code == 1
    assert "theirs.cache:1: expected a cache of entropy, found minmax; choose with --algo" in result.error


def test_a_trusted_cache_of_another_percentile_stops(calib, colours, tmp_path):
    cache = tmp_path / "percentile.cache"
    options = ("run", "--quiet", "--algo", "percentile", "--cache", cache)
    assert calib(*options, "--percentile", 99, cwd=colours).code == 0
    assert calib(*options, "--percentile", 99, "--trust-cache", cwd=colours).code == 0
    result = calib(*options, "--trust-cache", cwd=colours)
    assert result.code == 1
    assert "percentile.cache:1: expected percentile 99.99, found 99; choose with --percentile" in result.error


def test_a_trusted_cache_with_half_of_its_lines_stops(calib, colours, bare):
    bare.write_text("\n".join(bare.read_text().splitlines()[:2]) + "\n")
    result = calib("run", "--quiet", "--cache", bare, "--trust-cache", cwd=colours)
    assert result.code == 1
    assert "theirs.cache: expected scales of all 2 tensors to be quantized, 1 are missing, 'flat' first" in result.error


def test_a_trusted_cache_of_another_model_stops(calib, colours, bare):
    bare.write_text(bare.read_text().replace("flat: ", "elsewhere: "))
    result = calib("run", "--quiet", "--cache", bare, "--trust-cache", cwd=colours)
    assert result.code == 1
    assert (
        "theirs.cache: expected tensors of model.onnx, found 1 that it does not have, 'elsewhere' first" in result.error
    )


def test_a_named_cache_of_ours_is_recalibrated_when_something_differs(calib, colours, report):
    options = ("run", "--quiet", "--cache", "mine/mine.cache")
    assert calib(*options, cwd=colours).code == 0
    result = calib(*options, "--preprocess", "imagenet-tf", cwd=colours)
    assert result.code == 0
    assert "other preprocessing" in result.warnings[0]
    assert report(colours)["calibration"]["how"] == "calibrated"


@pytest.mark.parametrize("taken", ["mine.json", "mine.h5"])
def test_a_cache_never_takes_the_place_of_files_that_only_share_its_name(calib, colours, taken, snapshot):
    folder = colours / "shared"
    folder.mkdir()
    (folder / taken).write_bytes(b"somebody's work")
    older = snapshot(folder)
    result = calib("run", "--quiet", "--cache", "shared/mine.cache", cwd=colours)
    assert result.code == 1
    assert f"shared/{taken}: expected no file, or one that mine.json names" in result.error
    assert snapshot(folder) == older


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


def test_a_trusted_cache_with_good_scales_is_not_warned_of(calib, colours, bare):
    result = calib("run", "--cache", bare, "--trust-cache", cwd=colours)
    assert not any("do not suit" in line for line in result.warnings)
