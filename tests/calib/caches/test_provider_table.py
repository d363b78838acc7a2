"""What ONNX Runtime's TensorRT provider makes of lines, worked out by hand from its `ReadDynamicRange`."""

import pytest

from calib.caches.cache import CalibrationCache
from calib.caches.provider_table import misread_tensors, names_for_provider, reads_header, scales_as_read, with_names

ENTROPY = "TRT-8600-EntropyCalibration2"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("relu", {"relu": 0.5}),
        ("layer 1/relu", {"layer 1/relu": 0.5}),
        ("input:0", {"input": 0.0}),  # the digits of ':0'
        ("a:b", {"a": float.fromhex("0x1.6p-146")}),  # 'b' is a digit too: the bits 0xb
        ("a::c", {"a": 0.0}),  # nothing between the two
        ("scope:x", {"scope": 0.0}),  # no digit at all
        ("a: b", {"a": float.fromhex("0x1.6p-146")}),  # blanks before digits are skipped
    ],
)
def test_a_name_ends_at_the_first_colon(name, read):
    cache = CalibrationCache(ENTROPY, {name: 0.5})
    assert scales_as_read(cache) == read
    assert misread_tensors(cache) == ([] if read.get(name) == 0.5 else [name])


def test_a_tensor_whose_name_another_line_begins_with_is_misread_as_well():
    assert misread_tensors(CalibrationCache(ENTROPY, {"x": 0.5, "x:0": 0.25, "y": 1.0})) == ["x", "x:0"]
    assert misread_tensors(CalibrationCache(ENTROPY, {"x:0": 0.25, "x": 0.5})) == ["x:0"]  # the last line counts


@pytest.mark.parametrize(("header", "read"), [(ENTROPY, True), ("0 3ff0000000000000 3fefff2e48e8a71e", False)])
def test_a_first_line_without_a_release_is_not_read(header, read):
    assert reads_header(CalibrationCache(header, {"x": 1.0})) is read


def test_new_names_are_nobodys_else():
    renamed = names_for_provider(["x:0", "x_0", "a:b:c", "x::0"], taken={"a_b_c", "x_0_1"})
    assert renamed == {"x:0": "x_0_2", "a:b:c": "a_b_c_1", "x::0": "x__0"}
    cache = with_names(CalibrationCache(ENTROPY, {"x:0": 1.0, "y": 2.0}, ("x:0",)), renamed)
    assert (dict(cache.scales), cache.zero_tensors) == ({"x_0_2": 1.0, "y": 2.0}, ("x_0_2",))
