import json

import pytest

from calib.caches.cache import CalibrationCache
from calib.caches.difference import difference, json_from_difference, text_from_difference

HEADER = "TRT-8600-EntropyCalibration2"


@pytest.fixture
def found():
    first = CalibrationCache(HEADER, {"same": 1.0, "half": 2.0, "triple": 1.0, "near": 1.0, "mine": 1.0})
    second = CalibrationCache(HEADER, {"near": 1.03, "triple": 3.0, "half": 1.0, "same": 1.0, "yours": 1.0})
    return difference(first, second)


def test_the_worst_ratio_is_first_whether_up_or_down(found):
    assert [(t.tensor, t.ratio) for t in found.tensors] == [
        ("triple", 3.0),
        ("half", 0.5),
        ("near", pytest.approx(1.03)),
        ("same", 1.0),
    ]
    assert (found.tensors[1].first, found.tensors[1].second) == (254, 127)


def test_median_shares_and_what_one_of_them_lacks(found):
    assert found.median_ratio == pytest.approx(1.015)  # of 0.5, 1, 1.03 and 3
    assert (found.share_within(0.01), found.share_within(0.05)) == (0.25, 0.5)
    assert (found.only_first, found.only_second) == (("mine",), ("yours",))


def test_the_text_says_it_all(found):
    lines = text_from_difference(found, ("a.cache", "b.cache")).splitlines()
    assert lines[0] == (
        "4 tensors in both; amax of b.cache over a.cache: median ratio 1.0150, 25% within 1%, 50% within 5%"
    )
    assert lines[2].split() == ["triple", "127", "381", "3.0000"]
    assert lines[-4:] == ["only in a.cache, 1:", "  mine", "only in b.cache, 1:", "  yours"]


def test_the_json_says_it_all(found):
    document = json.loads(json_from_difference(found))
    assert document["median_ratio"] == pytest.approx(1.015)
    assert document["tensors"][0] == {"tensor": "triple", "first": 127, "second": 381, "ratio": 3}
    assert document["only_second"] == ["yours"]


def test_caches_without_a_common_tensor_have_no_median():
    found = difference(CalibrationCache(HEADER, {"a": 1.0}), CalibrationCache(HEADER, {"b": 1.0}))
    assert found.median_ratio is None
    assert text_from_difference(found, ("x", "y")).startswith("no tensors in both\n")
    assert json.loads(json_from_difference(found))["median_ratio"] is None
