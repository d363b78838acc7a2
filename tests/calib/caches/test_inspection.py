"""A cache for people. Float32 by hand: 3f800000 is 1, 3f000000 is 0.5; amax is 127 times the scale."""

import json

import pytest

from calib.caches.inspection import json_from_cache_file, text_from_cache_file
from calib.errors import CacheError


@pytest.fixture
def saved(tmp_path):
    """A cache file with the given first line and two tensors."""

    def save(header):
        path = tmp_path / "a.cache"
        path.write_text(f"{header}\nin: 3f800000\nlayer: 1/relu: 3f000000\n")
        return path

    return save


def test_the_table_has_a_line_a_tensor_with_scale_and_amax(saved):
    path = saved("TRT-8600-MinMaxCalibration")
    first, *rows = text_from_cache_file(path).splitlines()
    assert first == f"{path}: minmax, 2 tensors, TensorRT 8600"
    assert [row.rsplit(maxsplit=2) for row in rows] == [
        ["tensor", "scale", "amax"],
        ["in", "1", "127"],
        ["layer: 1/relu", "0.5", "63.5"],
    ]
    assert len({len(row) for row in rows}) == 1, "columns stand below each other"


def test_the_percentile_is_shown_and_no_version_where_the_header_holds_none(saved):
    path = saved("0 3ff0000000000000 3fefff2e48e8a71e")  # 1.0 and 0.9999 as TensorRT 8.6.0 wrote them
    assert text_from_cache_file(path).splitlines()[0] == f"{path}: percentile 99.99, 2 tensors"


def test_the_json_holds_scales_and_amax_as_numbers(saved):
    found = json.loads(json_from_cache_file(saved("TRT-8600-MinMaxCalibration")))
    assert (found["algo"], found["header"]) == ("minmax", "TRT-8600-MinMaxCalibration")
    assert found["scales"] == {"in": 1.0, "layer: 1/relu": 0.5}
    assert found["amax"] == {"in": 127.0, "layer: 1/relu": 63.5}


@pytest.mark.parametrize("shown", [text_from_cache_file, json_from_cache_file])
def test_what_is_no_cache_is_refused_by_name(tmp_path, shown):
    with pytest.raises(CacheError, match=r"none\.cache: cannot be read"):
        shown(tmp_path / "none.cache")
    (tmp_path / "words.cache").write_text("hello\n")
    with pytest.raises(CacheError, match=r"words\.cache:1: "):
        shown(tmp_path / "words.cache")
