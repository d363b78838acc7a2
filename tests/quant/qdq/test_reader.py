"""Scales out of Q/DQ models: ours, onnxruntime.quantization's, and hand-made ones."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from calib import CacheError
from calib.algorithms import Entropy, MinMax, Percentile
from calib.caches.cache import CalibrationCache, cache_from_amax
from calib.caches.conversion import cache_from_json, json_from_cache
from quant.qdq.reader import (
    HEADER_KEY,
    METADATA_KEY,
    PAIRS_KEY,
    cache_from_qdq_model,
    hold_cache,
    name_algorithm,
)
from quant.qdq.writer import qdq_model_from_amax

HEADER = "TRT-8600-EntropyCalibration2"


@pytest.fixture
def pair_net(graph_of):
    """A Q/DQ pair of the input with a scale and zero point, then Relu."""

    def make(scale, zero_point, *, output="y"):
        last = "dequantized" if output == "y" else output
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["quantized"]),
            helper.make_node("DequantizeLinear", ["quantized", "s", "z"], [last]),
            *([helper.make_node("Relu", [last], ["y"])] if output == "y" else []),
        ]
        return graph_of(nodes, {"x": [2, 3]}, {output: [2, 3]}, {"s": scale, "z": zero_point})

    return make


@pytest.mark.parametrize(
    ("zero_point", "amax"),
    [
        (np.int8(0), 127 * 0.5),  # the grid of a calibration cache
        (np.uint8(128), 127 * 0.5),  # the same grid, moved
        (np.uint8(0), 255 * 0.5),  # 0 .. 255
        (np.int8(-128), 255 * 0.5),  # 0 .. 255, moved
        (np.uint8(100), 155 * 0.5),  # -100 .. 155
        (np.int8(27), 155 * 0.5),  # -155 .. 100
    ],
)
def test_the_symmetric_scale_covers_the_range_of_the_pair(pair_net, zero_point, amax):
    found = cache_from_qdq_model(pair_net(np.float32(0.5), np.array(zero_point)), "m.onnx")
    assert found.cache.header == HEADER
    assert found.cache.amax == {"x": pytest.approx(amax, rel=1e-6)}
    assert bool(found.notes) == (amax != 127 * 0.5)


def test_a_quantized_graph_output_goes_by_the_output_s_name(pair_net):
    proto = pair_net(np.float32(0.5), np.array(0, np.int8), output="logits")
    assert list(cache_from_qdq_model(proto, "m.onnx").cache.scales) == ["logits"]


def test_scales_of_several_pairs_of_one_tensor_the_larger_is_taken(graph_of):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s1", "z"], ["q1"]),
        helper.make_node("DequantizeLinear", ["q1", "s1", "z"], ["d1"]),
        helper.make_node("QuantizeLinear", ["x", "s2", "z"], ["q2"]),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z"], ["d2"]),
        helper.make_node("Add", ["d1", "d2"], ["y"]),
    ]
    proto = graph_of(
        nodes, {"x": [2]}, {"y": [2]}, {"s1": np.float32(0.25), "s2": np.float32(0.75), "z": np.array(0, np.int8)}
    )
    found = cache_from_qdq_model(proto, "m.onnx")
    assert found.cache.scales == {"x": 0.75}
    assert found.notes == ("1 tensors ('x' first) are quantized with different scales; the larger is used",)


def test_a_float_model_is_refused(residual_net):
    with pytest.raises(CacheError, match=r"m\.onnx: expected a Q/DQ model, found no QuantizeLinear"):
        cache_from_qdq_model(residual_net, "m.onnx")


def test_a_scale_of_zero_is_refused(pair_net):
    with pytest.raises(CacheError, match="expected a finite scale above zero for 'x', found 0"):
        cache_from_qdq_model(pair_net(np.float32(0), np.array(0, np.int8)), "m.onnx")


def test_the_scales_of_our_own_models_come_back_bit_by_bit(residual_net):
    rng = np.random.default_rng(0)
    names = ["input", "relu1", "relu2", "flat", "hidden"]
    cache = CalibrationCache(HEADER, {name: float(np.float32(rng.uniform(1e-4, 1))) for name in names})
    proto = qdq_model_from_amax(residual_net, cache.amax)
    found = cache_from_qdq_model(proto, "m.onnx")
    assert found.cache.scales == cache.scales
    assert found.notes == ()


def test_what_the_graph_says_wins_over_the_cache_that_a_model_holds(pair_net):
    proto = pair_net(np.float32(0.5), np.array(0, np.int8))
    held = CalibrationCache("TRT-100300-MinMaxCalibration", {"y": 2.0, "x": 8.0})
    onnx.helper.set_model_props(proto, {METADATA_KEY: json_from_cache(held)})
    found = cache_from_qdq_model(proto, "m.onnx").cache
    assert found.header == held.header
    assert found.scales == {"y": 2.0, "x": 0.5}
    assert list(found.scales) == ["y", "x"]


@pytest.fixture
def pooled_model(graph_of, random):
    """INT8 model in which `pooled` moves the data of `x`, and so has the scale of `x`; and its cache."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c1"], name="first"),
        helper.make_node("MaxPool", ["x"], ["pooled"], kernel_shape=[1, 1]),
        helper.make_node("Conv", ["pooled", "w"], ["c2"], name="second"),
    ]
    shape = [1, 2, 3, 3]
    net = graph_of(nodes, {"x": shape}, {"c1": shape, "c2": shape}, {"w": random(2, 2, 1, 1)})
    cache = CalibrationCache(HEADER, {"pooled": 0.25, "c2": 2.0, "x": 0.5})
    proto = qdq_model_from_amax(net, cache.amax)
    assert cache_from_qdq_model(proto, "m.onnx").cache.scales["pooled"] == 0.5
    hold_cache(proto, cache)
    return proto, cache


def test_a_pair_that_moves_along_with_its_data_does_not_hide_the_cache_s_own_scale(pooled_model):
    proto, cache = pooled_model
    found = cache_from_qdq_model(proto, "m.onnx").cache
    assert (found.header, list(found.scales.items())) == (cache.header, list(cache.scales.items()))


def test_a_moved_pair_that_somebody_edited_wins(pooled_model):
    proto, cache = pooled_model
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.125), "edited"))
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] == "pooled":
            node.input[1] = "edited"
    assert cache_from_qdq_model(proto, "m.onnx").cache.scales == {**cache.scales, "pooled": 0.125}


def test_crushed_metadata_is_refused(pooled_model):
    proto, cache = pooled_model
    onnx.helper.set_model_props(proto, {METADATA_KEY: json_from_cache(cache), PAIRS_KEY: "[0.5"})
    with pytest.raises(CacheError, match=r"m\.onnx: metadata 'calib\.pairs': expected scales by tensor"):
        cache_from_qdq_model(proto, "m.onnx")


@pytest.mark.parametrize("symmetric", [True, False])
def test_onnxruntime_s_own_quantizer(residual_net, random, tmp_path, symmetric):
    """Its scales, read by ONNX Runtime's own naming from the initializers, are those that we find."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([{"input": random(4, 3, 8, 8)}])

        def get_next(self):
            return next(self.batches, None)

    source, target = tmp_path / "fp32.onnx", tmp_path / "theirs.onnx"
    onnx.save(residual_net, source)
    kind = QuantType.QInt8 if symmetric else QuantType.QUInt8
    quantize_static(
        source,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=kind,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    proto = onnx.load(target)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    found = cache_from_qdq_model(proto, "theirs.onnx")
    assert {"input", "relu1", "relu2", "logits"} <= set(found.cache.scales)
    assert found.cache.made_by == "algorithm not known"  # the file does not say
    assert bool(found.notes) is not symmetric
    named = {n: scale for n, scale in found.cache.scales.items() if f"{n}_scale" in constants}  # others share one
    assert len(named) >= 8
    for name, scale in named.items():
        step, zero = float(constants[f"{name}_scale"]), int(constants[f"{name}_zero_point"])
        expected = step if symmetric else max(zero, 255 - zero) * step / 127
        assert scale == pytest.approx(expected, rel=1e-6), name


def test_a_model_says_what_computed_its_scales(residual_net, ones):
    amax = ones(residual_net)
    for cache in (
        cache_from_amax(amax, MinMax()),
        cache_from_amax(amax, Percentile(99.9)),
        replace(cache_from_amax(amax, Entropy()), made_by="algorithm chosen by tensor"),
    ):
        proto = qdq_model_from_amax(residual_net, amax)
        name_algorithm(proto, cache)
        found = cache_from_qdq_model(proto, "m.onnx").cache
        assert (found.header, found.made_by) == (cache.header, cache.made_by)
        again = cache_from_json(json_from_cache(found))
        assert (again.header, again.made_by) == (cache.header, cache.made_by)
    onnx.helper.set_model_props(proto, {HEADER_KEY: "nonsense"})
    with pytest.raises(CacheError, match=r"m.onnx: metadata 'calib.header': expected 'TRT-"):
        cache_from_qdq_model(proto, "m.onnx")
