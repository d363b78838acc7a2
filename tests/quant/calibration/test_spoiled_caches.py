"""Caches and companions that are not what they should be: never used unseen, never lost."""

import shutil
import struct

import pytest

from calib.caches.cache import read_cache
from calib.errors import CacheError


def spoilers(scales):
    """Ways to spoil a cache file, and what `read_cache` says of each."""

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
    """Spoils a cache file in a named way and returns what will be said of it."""

    def apply(path, how):
        change, message = spoilers(scales)[how]
        change(path)
        return message

    return apply


@pytest.fixture
def bare(ours, tmp_path):
    """A cache from elsewhere: without provenance, as TensorRT writes it."""
    path = tmp_path / "elsewhere" / "theirs.cache"
    path.parent.mkdir()
    shutil.copy(ours, path)
    return path


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_cache_of_ours_is_told_and_made_anew(obtain, finished, ours, spoil, how):
    good = ours.read_bytes()
    message = spoil(ours, how)
    result, console = obtain(finished)
    assert console.warnings[0].startswith("calib-out/calibration.cache:")
    assert message in console.warnings[0]
    assert console.warnings[0].endswith("recalibrating")
    assert result.how == "calibrated"
    assert ours.read_bytes() == good


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("option", ["cache_only", "trust_cache"])
def test_a_spoiled_cache_is_refused_where_it_may_not_be_replaced(obtain, finished, ours, spoil, snapshot, how, option):
    message = spoil(ours, how)
    older = snapshot(finished / "calib-out")
    with pytest.raises(CacheError) as caught:
        obtain(finished, **{option: True})
    assert "calib-out/calibration.cache" in str(caught.value)
    assert message in str(caught.value)
    assert snapshot(finished / "calib-out") == older


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("options", [{}, {"trust_cache": True}, {"cache_only": True}])
def test_a_spoiled_cache_from_elsewhere_is_never_overwritten(obtain, colours, bare, spoil, snapshot, how, options):
    spoil(bare, how)
    older = snapshot(bare.parent)
    with pytest.raises(CacheError) as caught:
        obtain(colours, cache=bare, **options)
    assert str(bare) in str(caught.value)
    assert snapshot(bare.parent) == older


def test_doubled_scales_are_noticed_by_the_provenance(obtain, finished, ours, scales):
    good = ours.read_bytes()
    scales(ours, lambda digits: struct.pack(">f", 2 * struct.unpack(">f", bytes.fromhex(digits))[0]).hex())
    with pytest.raises(CacheError) as caught:
        obtain(finished, cache_only=True)
    said = "is not the file that calibration.json describes (edited, swapped or missing)"
    assert said in str(caught.value)
    _, console = obtain(finished)
    assert "edited, swapped or missing" in console.warnings[0]
    assert ours.read_bytes() == good


@pytest.mark.parametrize("name", ["calibration.json", "calibration.h5"])
@pytest.mark.parametrize("contents", [None, b"", b"{}", b"[1, 2]", b"\x89HDF\r\n\x1a\n cut"])
def test_a_spoiled_companion_is_told_and_made_anew(obtain, finished, snapshot, name, contents):
    path = finished / "calib-out" / name
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    older = snapshot(finished / "calib-out")
    with pytest.raises(CacheError, match=name):
        obtain(finished, cache_only=True)
    assert snapshot(finished / "calib-out") == older
    result, console = obtain(finished)
    assert name in console.warnings[0]
    assert result.how == "calibrated"
    assert obtain(finished, cache_only=True)[0].how == "reused"


@pytest.mark.parametrize("options", [{}, {"cache_only": True}])
def test_a_bare_cache_needs_trust(obtain, colours, bare, snapshot, options):
    older = snapshot(bare.parent)
    with pytest.raises(CacheError) as caught:
        obtain(colours, cache=bare, **options)
    assert "theirs.cache: has no provenance (theirs.json) beside it" in str(caught.value)
    assert "--trust-cache" in str(caught.value)
    assert snapshot(bare.parent) == older


def test_a_trusted_cache_may_have_windows_line_ends(obtain, colours, ours, bare):
    bare.write_bytes(bare.read_bytes().replace(b"\n", b"\r\n"))
    result, _ = obtain(colours, cache=bare, trust_cache=True)
    assert result.how == "trusted"
    assert result.cache == read_cache(ours)


def test_a_trusted_cache_of_another_algorithm_is_refused(obtain, colours, bare):
    with pytest.raises(CacheError) as caught:
        obtain(colours, cache=bare, trust_cache=True, algo="entropy")
    assert "theirs.cache:1: expected a cache of entropy, found minmax; choose with --algo" in str(caught.value)


def test_a_trusted_cache_of_another_percentile_is_refused(obtain, colours, tmp_path):
    options = {"algo": "percentile", "cache": tmp_path / "percentile.cache"}
    obtain(colours, percentile=99.0, **options)
    assert obtain(colours, percentile=99.0, trust_cache=True, **options)[0].how == "trusted"
    with pytest.raises(CacheError) as caught:
        obtain(colours, trust_cache=True, **options)
    assert "percentile.cache:1: expected percentile 99.99, found 99; choose with --percentile" in str(caught.value)


def test_a_trusted_cache_with_half_of_its_lines_is_refused(obtain, colours, bare):
    bare.write_text("\n".join(bare.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(CacheError) as caught:
        obtain(colours, cache=bare, trust_cache=True)
    said = "theirs.cache: expected scales of all 2 tensors to be quantized, 1 are missing, 'flat' first"
    assert said in str(caught.value)


def test_a_trusted_cache_of_another_model_is_refused(obtain, colours, bare):
    bare.write_text(bare.read_text().replace("flat: ", "elsewhere: "))
    with pytest.raises(CacheError) as caught:
        obtain(colours, cache=bare, trust_cache=True)
    said = "theirs.cache: expected tensors of model.onnx, found 1 that it does not have, 'elsewhere' first"
    assert said in str(caught.value)


@pytest.mark.parametrize("taken", ["mine.json", "mine.h5"])
def test_a_cache_never_takes_the_place_of_files_that_only_share_its_name(obtain, colours, taken, snapshot):
    folder = colours / "shared"
    folder.mkdir()
    (folder / taken).write_bytes(b"somebody's work")
    older = snapshot(folder)
    with pytest.raises(CacheError) as caught:
        obtain(colours, cache=folder / "mine.cache")
    assert f"shared/{taken}: expected no file, or one that mine.json names" in str(caught.value)
    assert snapshot(folder) == older
