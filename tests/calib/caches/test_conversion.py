import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib import CacheError, cache_from_text
from calib.caches.cache import CalibrationCache, read_cache, scale_from_amax, text_from_cache
from calib.caches.conversion import cache_from_json, json_from_cache, read_text_or_json, version_from_text, with_header

ENTROPY = "TRT-8600-EntropyCalibration2"
LEGACY = "0 3ff0000000000000 3fefff2e48e8a71e"  # TensorRT's own, of cutoff 1 and quantile 0.9999
SCALES = st.floats(float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max), width=32)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("8600", 8600),
        ("8.6.0", 8600),
        ("8.6.1", 8601),
        ("8.6.1.6", 8601),
        ("8.6", 8600),
        ("100300", 100300),
        ("10.3.0", 100300),
        ("10.16.1.11", 101601),
    ],
)
def test_versions_as_caches_hold_them(text, version):
    assert version_from_text(text) == version


@pytest.mark.parametrize("text", ["11.4.0", "110400", "11.0"])
def test_tensorrt_11_reads_no_cache(text):
    with pytest.raises(CacheError, match="does not read calibration caches; convert to a Q/DQ model instead"):
        version_from_text(text)


@pytest.mark.parametrize("text", ["", "8", "86", "latest", "8.x", "1234567"])
def test_no_version(text):
    with pytest.raises(CacheError, match=f"found '{text}'"):
        version_from_text(text)


@pytest.mark.parametrize(
    ("before", "calibrator", "version", "after"),
    [
        (ENTROPY, None, 100300, "TRT-100300-EntropyCalibration2"),
        (ENTROPY, "minmax", None, "TRT-8600-MinMaxCalibration"),
        ("TRT-8601-MSECalibration", "entropy2", None, "TRT-8601-EntropyCalibration2"),
        (ENTROPY, "legacy", 100300, LEGACY),
        (LEGACY, None, 100300, LEGACY),
        (LEGACY, "legacy", None, LEGACY),
        (LEGACY, "entropy1", 100300, "TRT-100300-EntropyCalibration"),
    ],
)
def test_the_first_line_changes_and_the_scales_do_not(before, calibrator, version, after):
    converted = with_header(CalibrationCache(before, {"a": 0.5}), calibrator, version)
    assert (converted.header, converted.scales) == (after, {"a": 0.5})


def test_another_percentile_is_kept():
    header = "0 3ff0000000000000 3feff7ced916872b"  # quantile 0.999
    assert with_header(CalibrationCache(header, {"a": 0.5}), "legacy", 8600).header == header


@given(st.dictionaries(NAMES, SCALES, min_size=1))
def test_text_to_json_and_back_loses_nothing(scales):
    text = text_from_cache(CalibrationCache(ENTROPY, scales))
    there = json_from_cache(cache_from_text(text))
    assert text_from_cache(cache_from_json(there)) == text


@pytest.mark.parametrize("text_of", [text_from_cache, json_from_cache])
def test_an_editor_s_byte_order_mark_is_no_part_of_a_cache(tmp_path, text_of):
    cache = CalibrationCache(ENTROPY, {"a": 0.5})
    path = tmp_path / "x.cache"
    path.write_text(text_of(cache), encoding="utf-8-sig")
    assert read_text_or_json(path) == cache
    if text_of is text_from_cache:
        assert read_cache(path) == cache


@given(SCALES)
def test_the_amax_of_a_scale_gives_that_scale_back(scale):
    assert scale_from_amax(CalibrationCache(ENTROPY, {"a": scale}).amax["a"]) == np.float32(scale)


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object with 'header' and the tensors' 'scales'"),
        ({"scales": {"a": 1.0}}, "expected an object with 'header' and the tensors' 'scales'"),
        ({"header": ENTROPY, "scales": {}}, "expected an object with 'header' and the tensors' 'scales'"),
        ({"header": "TRT-8600-Mine", "scales": {"a": 1.0}}, "header: expected one of EntropyCalibration2"),
        ({"header": ENTROPY, "scales": {"a": 0}}, "expected a finite scale above zero for 'a', found 0"),
        ({"header": ENTROPY, "scales": {"a": -1.5}}, "found -1.5"),
        ({"header": ENTROPY, "scales": {"a": "1"}}, "found '1'"),
        ({"header": ENTROPY, "scales": {"a": True}}, "found True"),
        ({"header": ENTROPY, "scales": {"a": 1e300}}, "found 1e"),
        ({"header": ENTROPY, "scales": {"a": 10**400}}, "found 1000"),
        ({"header": ENTROPY, "scales": {"a": float("nan")}}, "not valid JSON"),
        ('{"a":' + "[" * 200_000, "nested too deeply"),
        ({"header": ENTROPY, "scales": {"\ud800": 0.1}}, "not valid JSON"),
        ({"header": ENTROPY, "scales": {"a": [0.1]}}, "found [0.1]"),
        ({"header": 5, "scales": {"a": 0.1}}, "header: expected str, found int"),
        ({"header": "TRT-" + "9" * 5000 + "-EntropyCalibration2", "scales": {"a": 0.1}}, "expected 'TRT-<version>"),
        ({"header": "0 3ff0000000000000 7ff8000000000000", "scales": {"a": 0.1}}, "found 1 and nan"),
        ('{"header": "TRT-8600-MinMaxCalibration", "scales": {"a": 1, "a": 2}}', "'a' appears twice"),
    ],
)
def test_bad_json(document, part):
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(CacheError, match=r"x\.json: ") as caught:
        cache_from_json(text, "x.json")
    assert part in str(caught.value)
