"""Scales of tensors with a mask in them are found in a cache from elsewhere, and left out of an implicit build."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from calib.caches.cache import CalibrationCache
from quant.onnx_graph.tensor_types import activation_names
from quant.tensorrt.building.mask_scales import masked_tensors, scales_of_masks, without_scales_of

n = helper.make_node
LOWEST = float(np.finfo(np.float32).min)


@pytest.fixture
def attention(graph_of, random):
    """Attention whose `masked` is made by some nodes out of `scores`; `seen` is 1 where a token may be seen."""

    def make(*mask, tokens=4, **constants):
        nodes = [
            n("MatMul", ["x", "wq"], ["q"]),
            n("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            n("MatMul", ["q", "t"], ["scores"]),
            *mask,
            n("Softmax", ["masked"], ["p"], axis=-1),
            n("MatMul", ["p", "x"], ["y"]),
        ]
        constants = {"wq": random(6, 6), "one": np.float32(1), **constants}
        return graph_of(nodes, {"x": ["N", tokens, 6], "seen": ["N", 1, tokens]}, {"y": ["N", tokens, 6]}, constants)

    return make


def added(lowest, tokens=4):
    return [n("Add", ["scores", "mask"], ["masked"])], {
        "mask": np.triu(np.full((tokens, tokens), lowest, np.float32), 1),
        "tokens": tokens,
    }


def selected(lowest):
    nodes = [n("Cast", ["seen"], ["c"], to=TensorProto.BOOL), n("Where", ["c", "scores", "lowest"], ["masked"])]
    return nodes, {"lowest": np.float32(lowest)}


def computed(lowest):
    """As exporters of language models write it: (1 - seen) * -10000, moved into place."""
    nodes = [
        n("Sub", ["one", "seen"], ["hidden"]),
        n("Mul", ["hidden", "lowest"], ["mask"]),
        n("Unsqueeze", ["mask", "axis"], ["far"]),
        n("Squeeze", ["far", "axis"], ["near"]),
        n("Add", ["scores", "near"], ["sum"]),
        n("Identity", ["sum"], ["masked"]),
    ]
    return nodes, {"lowest": np.float32(lowest), "axis": np.array([1])}


FORMS = [(form, lowest) for form in (added, selected, computed) for lowest in (LOWEST, -1e9, -1e4, -np.inf)]


@pytest.mark.parametrize(("form", "lowest"), [*FORMS, (lambda lowest: added(lowest, tokens=64), LOWEST)])
def test_the_tensor_with_the_mask_in_it_loses_its_scale_and_no_other(attention, form, lowest):
    nodes, constants = form(lowest)
    proto = attention(*nodes, **constants)
    gone = {"masked", "sum"} if form is computed else {"masked"}
    assert masked_tensors(proto) == gone
    cache = CalibrationCache("TRT-8600-EntropyCalibration2", dict.fromkeys(activation_names(proto), 0.01))
    assert set(scales_of_masks(proto, cache)) == gone
    kept = without_scales_of(cache, scales_of_masks(proto, cache)).scales
    assert set(kept) == set(cache.scales) - gone
    assert {"q", "x", "t", "p"} <= set(kept)


def test_a_scale_that_reaches_beyond_any_activation_is_one_wherever_it_comes_from(attention):
    proto = attention(n("Relu", ["scores"], ["masked"]))
    scales = {"x": 0.1, "masked": 1e35, "(Unnamed Layer* 3) [Constant]_output": 1e36, "q": 1e35, "t": 0.1}
    found = scales_of_masks(proto, CalibrationCache("TRT-8600-EntropyCalibration2", scales))
    assert found == ["masked", "(Unnamed Layer* 3) [Constant]_output"]  # `q` enters a product, which needs its scale


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([-3.0, 0.0, -2.0, -1.0], "small"),
        ([-1e4, 5.0, -1e4, 0.0], "other values beside it"),
        ([-1e4, -2e3, -50.0, 0.0], "of many magnitudes"),
        ([1e9, 1e9, 1e9, 0.0], "not below"),
        ([0.0, 0.0, 0.0, 0.0], "nothing hidden"),
    ],
)
def test_another_constant_is_no_mask(attention, values, why):
    proto = attention(n("Add", ["scores", "bias"], ["masked"]), bias=np.array(values, np.float32))
    assert masked_tensors(proto) == set(), why


def test_what_a_product_reads_keeps_its_scale(graph_of, random):
    """Nothing else could be done in INT8; the calibration refuses what is infinite there."""
    nodes = [n("Add", ["x", "mask"], ["masked"]), n("MatMul", ["masked", "w"], ["y"])]
    constants = {"mask": np.array([0, -1e9, 0, 0], np.float32), "w": random(4, 2)}
    proto = graph_of(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, constants)
    cache = CalibrationCache("TRT-8600-EntropyCalibration2", {"x": 0.1, "masked": 1e7, "y": 1.0})
    assert masked_tensors(proto) == {"masked"}
    assert scales_of_masks(proto, cache) == []
