import math
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.algorithms import MSE, Entropy, MinMax, Percentile
from calib.caches.cache import (
    CalibrationCache,
    cache_from_amax,
    cache_from_text,
    coverage,
    header_from_algorithm,
    number_from_version,
    read_cache,
    text_from_cache,
)
from calib.errors import CacheError

# Float32 by hand: 1.0 is exponent 127 = 3f8; 0.5 is 3f0; 1.5 adds the first fraction bit; 2^-10 is exponent 117 = 3a8.
TEXT = """\
TRT-8600-MinMaxCalibration
input: 3f800000
/layer1/Conv_output_0: 3f000000
odd: name with: 3fc00000
(Unnamed Layer* 98) [Constant]_output: 3a800000
"""
SCALES = {
    "input": 1.0,
    "/layer1/Conv_output_0": 0.5,
    "odd: name with": 1.5,
    "(Unnamed Layer* 98) [Constant]_output": 2.0**-10,
}
# First line of resnet20.legacy.cache, as TensorRT 8.6.0 wrote it: cutoff 1.0, quantile 0.9999.
LEGACY_HEADER = "0 3ff0000000000000 3fefff2e48e8a71e"


def test_a_hand_written_cache_is_read():
    cache = cache_from_text(TEXT)
    assert dict(cache.scales) == SCALES
    assert (cache.algo, cache.version, cache.percentile) == ("minmax", 8600, None)
    assert cache.amax["odd: name with"] == 1.5 * 127


def test_a_cache_is_written_as_by_hand():
    assert text_from_cache(CalibrationCache("TRT-8600-MinMaxCalibration", SCALES)) == TEXT


def test_scales_are_big_endian_float32():
    # 0.1 in float32 is 0x3dcccccd (round to nearest even of 0.1).
    assert text_from_cache(CalibrationCache("TRT-8600-MinMaxCalibration", {"t": 0.1})).endswith("t: 3dcccccd\n")


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name.splitlines() == [name])
awkward = st.sampled_from([": ", " ", "a: 3f800000", ":", " lead", "trail ", "a:b", "tab\there", "TRT-8600-MinMax"])
scales = st.floats(2.0**-149, float(np.finfo(np.float32).max), width=32)


@given(st.dictionaries(names | awkward, scales, min_size=1), st.sampled_from([MinMax(), MSE(), Percentile(99.5)]))
def test_a_written_cache_parses_back_equal(scales_by_name, algorithm):
    cache = CalibrationCache(header_from_algorithm(algorithm, 100300), scales_by_name)
    read = cache_from_text(text_from_cache(cache))
    assert read == cache
    assert list(read.scales) == list(cache.scales)
    assert read.algo == algorithm.name


def test_windows_line_ends_blank_lines_and_upper_case_digits_are_read():
    assert dict(cache_from_text(TEXT.replace("\n", "\r\n")).scales) == SCALES
    assert dict(cache_from_text(TEXT.replace("\n", "\n\n").replace("3fc00000", "3FC00000")).scales) == SCALES
    assert dict(cache_from_text(TEXT.rstrip("\n")).scales) == SCALES


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("relu 3f", r"x\.cache:4: expected '<tensor>: <8 hex digits>', found 'relu 3f'; recalibrate"),
        ("relu: 3f8000", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        ("relu: 3f8000000", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        ("relu: 3f80000g", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        ("relu: 0x3f8000", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        ("relu: ", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        ("relu:3f800000", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        (": 3f800000", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        ("3f800000", "x.cache:4: expected '<tensor>: <8 hex digits>'"),
        ("relu: 00000000", r"x\.cache:4: expected a finite scale above zero for 'relu', found 0\.0"),
        ("relu: 80000000", r"x\.cache:4: expected a finite scale above zero for 'relu', found -0\.0"),
        ("relu: bf800000", r"x\.cache:4: expected a finite scale above zero for 'relu', found -1\.0"),
        ("relu: 7fc00000", r"x\.cache:4: expected a finite scale above zero for 'relu', found nan"),
        ("relu: 7f800000", r"x\.cache:4: expected a finite scale above zero for 'relu', found inf"),
        ("relu: ff800000", r"x\.cache:4: expected a finite scale above zero for 'relu', found -inf"),
        ("input: 3f800000", r"x\.cache:4: expected each tensor once, found 'input' again"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(bad, message):
    # Line 3 is blank, but it is counted.
    with pytest.raises(CacheError, match=message):
        cache_from_text(f"TRT-8600-MinMaxCalibration\ninput: 3f800000\n\n{bad}\nlast: 3f800000\n", "x.cache")


@pytest.mark.parametrize(
    "header",
    ["", "\n", "garbage", "input: 3f800000", "TRT-8600", "TRT--MinMaxCalibration", "TRT-8.6-MinMaxCalibration",
     "0 3ff0000000000000", "1 3ff0000000000000 3fefff2e48e8a71e", '{"json": 1}'],
)  # fmt: skip
def test_a_wrong_first_line_is_no_cache(header):
    with pytest.raises(CacheError, match=r"x\.cache:1: expected 'TRT-<version>-<calibrator>'"):
        cache_from_text(f"{header}\ninput: 3f800000\n", "x.cache")


def test_an_unknown_calibrator_is_refused():
    with pytest.raises(CacheError, match=r"x\.cache:1: expected one of EntropyCalibration2, .* found 'MaxCalibration'"):
        cache_from_text("TRT-8600-MaxCalibration\ninput: 3f800000\n", "x.cache")


@pytest.mark.parametrize("version", ["9" * 5000, "1" * 10, "\u0663", "-1"])
def test_a_version_that_is_none_is_no_first_line(version):
    with pytest.raises(CacheError, match=r"x\.cache:1: expected 'TRT-<version>-<calibrator>'"):
        cache_from_text(f"TRT-{version}-EntropyCalibration2\ninput: 3f800000\n", "x.cache")


@pytest.mark.parametrize(
    ("cutoff", "quantile"),
    [(1.0, math.nan), (1.0, math.inf), (1.0, -0.5), (1.0, 0.0), (1.0, 1.01), (math.nan, 0.9), (-1.0, 0.9), (2.0, 0.9)],
)
def test_a_percentile_that_is_none_is_refused(cutoff, quantile):
    header = f"0 {struct.pack('>d', cutoff).hex()} {struct.pack('>d', quantile).hex()}"
    with pytest.raises(CacheError, match=r"x\.cache:1: expected a cutoff from 0 to 1 and a quantile above 0"):
        cache_from_text(f"{header}\ninput: 3f800000\n", "x.cache")


def test_a_name_that_is_no_unicode_is_not_written():
    with pytest.raises(CacheError, match="expected a name in Unicode"):
        text_from_cache(CalibrationCache("TRT-8600-MinMaxCalibration", {"\ud800": 1.0}))


@pytest.mark.parametrize("text", ["TRT-8600-MinMaxCalibration", "TRT-8600-MinMaxCalibration\n\n  \n"])
def test_a_header_alone_is_refused(text):
    with pytest.raises(CacheError, match=r"x\.cache: expected scales after the header, found none"):
        cache_from_text(text, "x.cache")


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_cache_cut_inside_its_last_line_is_refused(cut):
    with pytest.raises(CacheError, match=r"x\.cache:5: expected '<tensor>: <8 hex digits>'"):
        cache_from_text(TEXT.rstrip("\n")[:-cut], "x.cache")


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "binary.cache").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    (tmp_path / "empty.cache").write_bytes(b"")
    (tmp_path / "folder.cache").mkdir()
    os.mkfifo(tmp_path / "pipe.cache")
    (tmp_path / "endless.cache").symlink_to("/dev/zero")
    with pytest.raises(CacheError, match=r"binary\.cache: expected text, found binary data"):
        read_cache(tmp_path / "binary.cache")
    with pytest.raises(CacheError, match=r"empty\.cache:1: expected"):
        read_cache(tmp_path / "empty.cache")
    for name in ("folder.cache", "nothing.cache", "pipe.cache", "endless.cache"):
        with pytest.raises(CacheError, match=f"{name}: cannot be read"):
            read_cache(tmp_path / name)


def test_a_cache_file_is_read(tmp_path):
    (tmp_path / "a.cache").write_bytes(TEXT.encode())
    assert dict(read_cache(tmp_path / "a.cache").scales) == SCALES


def test_the_legacy_header_holds_the_percentile():
    cache = cache_from_text(f"{LEGACY_HEADER}\ninput: 3f800000\n")
    assert (cache.algo, cache.version) == ("percentile", None)
    assert cache.percentile == pytest.approx(99.99, rel=1e-14)


def test_headers_are_those_that_tensorrt_writes():
    assert header_from_algorithm(Percentile(99.99)) == LEGACY_HEADER
    assert header_from_algorithm(MinMax()) == "TRT-8600-MinMaxCalibration"
    assert header_from_algorithm(Entropy()) == "TRT-8600-EntropyCalibration2"
    assert header_from_algorithm(Entropy(), 100300) == "TRT-100300-EntropyCalibration2"


def test_another_version_and_tensorrt_s_first_entropy_calibrator_are_known():
    cache = cache_from_text("TRT-100300-EntropyCalibration\ninput: 3f800000\n")
    assert (cache.algo, cache.version) == ("entropy1", 100300)


def test_scales_are_amax_over_127_in_float32():
    cache = cache_from_amax({"a": 127.0, "b": 12.7}, MinMax())
    assert cache.scales["a"] == 1.0
    assert cache.scales["b"] == float(np.float32(12.7) / np.float32(127))
    assert cache_from_text(text_from_cache(cache)) == cache


def test_the_smallest_amax_still_gets_a_scale_that_can_be_written():
    # amax / 127 of a denormal underflows to zero, which no cache may hold.
    cache = cache_from_amax({"a": 2.0**-149}, MinMax())
    assert cache.scales["a"] > 0
    assert cache_from_text(text_from_cache(cache)) == cache


@pytest.mark.parametrize("name", ["two\nlines", "carriage\rreturn", "trailing\n", "separator\u2028here"])
def test_a_name_with_a_line_break_cannot_be_written(name):
    with pytest.raises(CacheError, match="name without a line break"):
        text_from_cache(CalibrationCache("TRT-8600-MinMaxCalibration", {name: 1.0}))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_no_reader_would_take_is_not_written(scale):
    with pytest.raises(CacheError, match="tensor 't': expected a finite scale above zero"):
        text_from_cache(CalibrationCache("TRT-8600-MinMaxCalibration", {"t": scale}))


def test_coverage_names_what_is_missing_and_what_is_foreign():
    cache = cache_from_text(TEXT)
    fit = coverage(cache, needed=["input", "relu"], known=["input", "relu", "odd: name with"])
    assert fit.missing == ("relu",)
    assert fit.foreign == ("/layer1/Conv_output_0",)  # TensorRT's own unnamed layers are not foreign


def test_leading_zeros_may_be_left_out_as_tensorrt_does():
    # b1a0e77 stands for 0b1a0e77: sign 0, exponent 22, mantissa 0x1a0e77.
    cache = cache_from_text("TRT-8600-EntropyCalibration2\ntiny: b1a0e77\nlast: 3f800000\n")
    assert cache.scales["tiny"] == 2.0 ** (22 - 127) * (1 + 0x1A0E77 / 2**23)


def test_the_zero_that_tensorrt_writes_for_a_dead_tensor_becomes_a_scale_that_it_takes():
    cache = cache_from_text("TRT-8600-EntropyCalibration2\ndead: 0\nlive: 3f800000\n", "cache")
    assert cache.zero_tensors == ("dead",)
    assert cache.amax == {"dead": pytest.approx(1.0), "live": 127.0}
    assert cache_from_text(text_from_cache(cache)).scales == cache.scales


@pytest.mark.parametrize("digits", ["00000000", "80000000"])
def test_a_zero_that_tensorrt_does_not_write_is_refused(digits):
    with pytest.raises(CacheError, match="cache:2: expected a finite scale above zero for 'dead'"):
        cache_from_text(f"TRT-8600-EntropyCalibration2\ndead: {digits}\nlive: 3f800000\n", "cache")


def test_a_cache_of_nothing_but_zeros_is_refused():
    with pytest.raises(CacheError, match="cache: expected scales above zero, found 0 for every tensor"):
        cache_from_text("TRT-8600-EntropyCalibration2\ndead: 0\n", "cache")


def test_a_last_line_that_was_cut_off_is_not_taken_for_a_small_scale():
    with pytest.raises(CacheError, match="cache:3: expected"):
        cache_from_text("TRT-8600-EntropyCalibration2\na: 3f800000\nb: 3f80000", "cache")


@pytest.mark.parametrize(
    ("version", "number"), [("8.6.0", 8600), ("8.6.1", 8601), ("10.3.0", 100300), ("10.16.1.11", 101601)]
)
def test_version_as_caches_write_it(version, number):
    assert number_from_version(version) == number
