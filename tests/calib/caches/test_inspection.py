"""A cache for people. Float32 by hand: 3f800000 is 1, 3f000000 is 0.5; amax is 127 times the scale."""

import json

import pytest

from calib.caches.cache import cache_from_text
from calib.caches.conversion import json_from_cache, read_text_or_json
from calib.caches.inspection import table_from_cache
from calib.errors import CacheError


@pytest.fixture
def saved():
    """A cache with the given first line and two tensors."""
    return lambda header: cache_from_text(f"{header}\nin: 3f800000\nlayer: 1/relu: 3f000000\n")


def test_the_table_has_a_line_a_tensor_with_scale_and_amax(saved):
    first, *rows = table_from_cache(saved("TRT-8600-MinMaxCalibration"), "a.cache").splitlines()
    assert first == "a.cache: minmax, 2 tensors, TensorRT 8600"
    assert [row.rsplit(maxsplit=2) for row in rows] == [
        ["tensor", "scale", "amax"],
        ["in", "1", "127"],
        ["layer: 1/relu", "0.5", "63.5"],
    ]
    assert len({len(row) for row in rows}) == 1, "columns stand below each other"


def test_the_percentile_is_shown_and_no_version_where_the_header_holds_none(saved):
    cache = saved("0 3ff0000000000000 3fefff2e48e8a71e")  # 1.0 and 0.9999 as TensorRT 8.6.0 wrote them
    assert table_from_cache(cache, "b").splitlines()[0] == "b: percentile 99.99, 2 tensors"


def test_the_json_holds_scales_and_amax_as_numbers(saved):
    found = json.loads(json_from_cache(saved("TRT-8600-MinMaxCalibration")))
    assert (found["algo"], found["header"]) == ("minmax", "TRT-8600-MinMaxCalibration")
    assert found["scales"] == {"in": 1.0, "layer: 1/relu": 0.5}
    assert found["amax"] == {"in": 127.0, "layer: 1/relu": 63.5}


def test_what_is_no_cache_is_refused_by_name(tmp_path):
    with pytest.raises(CacheError, match=r"none\.cache: cannot be read"):
        read_text_or_json(tmp_path / "none.cache")
    (tmp_path / "words.cache").write_text("hello\n")
    with pytest.raises(CacheError, match=r"words\.cache:1: "):
        read_text_or_json(tmp_path / "words.cache")


@pytest.mark.parametrize("contents", ["hello", "", "{", "TRT-8600-MinMaxCalibration\na: x\n", "\ufeff", b"\xff\xfe"])
def test_nothing_advises_to_delete_a_file_that_may_be_the_only_copy(tmp_path, contents):
    path = tmp_path / "theirs"
    path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
    with pytest.raises(CacheError) as caught:
        read_text_or_json(path)
    assert "delete" not in str(caught.value).removeprefix(str(tmp_path))
