"""An old cache taken over into a Q/DQ model: what becomes of each scale, and what an implicit build computes."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calib.caches.cache import CalibrationCache, read_cache
from calib.errors import CacheError
from quant.onnx_graph.light_model import light_model, whole_model
from quant.onnx_graph.model import load_model
from quant.qdq.implicit import implicit_model
from quant.qdq.migration import HAD_NONE, KEPT, MOVED, NEEDS_NONE, TENSORRT_S, UNKNOWN, OldEngine, migrated
from tests.qdq_walk import Walk

HEADER = "TRT-8600-EntropyCalibration2"
# What TensorRT would have written for `residual_net`: every tensor of its network, and some of its own.
SCALES = {
    "input": 0.01, "c1": 0.02, "bn1": 0.02, "relu1": 0.03, "c2": 0.04, "bn2": 0.04, "sum": 0.05, "relu2": 0.06,
    "up": 0.07, "pooled": 0.08, "flat": 0.09, "(Unnamed Layer* 9) [Constant]_output": 0.1, "hidden": 0.11,
    "ONNXTRT_Broadcast_7_output": 0.1, "logits": 0.12,
}  # fmt: skip


def taken(proto, scales=SCALES, zeros=(), engine=None):
    found = migrated(light_model(proto), CalibrationCache(HEADER, scales, zeros), "old.cache", "model.onnx", engine)
    return found, {account.tensor: account for account in found.tensors}


def pair_scales(model):
    """Scale of each pair by the tensor that it quantizes, read node by node."""
    proto = whole_model(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {
        node.input[0]: float(constants[node.input[1]]) for node in proto.graph.node if node.op_type == "QuantizeLinear"
    }


def test_every_tensor_is_accounted_for_with_its_scale_before_and_after(residual_net):
    found, accounts = taken(residual_net)
    assert list(accounts) == list(SCALES)
    kinds = {name: account.kind for name, account in accounts.items()}
    assert {name for name, kind in kinds.items() if kind == KEPT} == {"input", "relu1", "relu2", "flat", "hidden"}
    assert {name for name, kind in kinds.items() if kind == TENSORRT_S} == {
        "(Unnamed Layer* 9) [Constant]_output",
        "ONNXTRT_Broadcast_7_output",
    }
    assert {name for name, kind in kinds.items() if kind == NEEDS_NONE} == {
        "c1", "bn1", "c2", "bn2", "sum", "up", "pooled", "logits",
    }  # fmt: skip
    for name, scale in pair_scales(found.model).items():
        assert accounts[name].after == scale
        assert scale == np.float32(SCALES[name])
    assert [accounts[name].before for name in SCALES] == list(SCALES.values())
    assert "fuses" in accounts["bn2"].why
    assert accounts["logits"].why == "an output of the model, which is float"
    assert accounts["pooled"].why == "only moved on, by Flatten"
    assert accounts["up"].why == "read in float, by GlobalAveragePool"
    assert found.float_products == ()


def test_what_lacks_a_scale_stays_float_as_tensorrt_ran_it(residual_net):
    found, accounts = taken(residual_net, {name: scale for name, scale in SCALES.items() if name != "relu1"})
    assert accounts["relu1"].kind == HAD_NONE
    assert "conv2" in accounts["relu1"].why
    assert found.float_products == ("conv2",)
    assert accounts["relu1"].before is None
    assert accounts["relu1"].after is None
    walk = Walk(whole_model(found.model))
    kernels = {node.name: node for node in walk.nodes if node.op_type in ("Conv", "ConvTranspose", "MatMul")}
    assert not walk.is_activation_pair(kernels["conv2"].input[0])
    assert walk.is_activation_pair(kernels["conv1"].input[0])
    assert walk.is_activation_pair(kernels["up"].input[0])


def test_pairs_follow_the_old_engine(residual_net):
    """It ran conv2 in float, and held in INT8 what only an average reads."""
    engine = OldEngine(frozenset({"conv1", "up", "gemm", "matmul", "relu2"}), frozenset({"input", "up", "not scaled"}))
    found, accounts = taken(residual_net, engine=engine)
    assert found.precision == "int8"
    assert found.ran_float == ("conv2",)
    assert found.float_products == ()
    walk = Walk(whole_model(found.model))
    kernels = {node.name: node for node in walk.nodes if node.op_type in ("Conv", "ConvTranspose", "MatMul")}
    assert not walk.is_activation_pair(kernels["conv2"].input[0])
    assert walk.is_activation_pair(kernels["conv1"].input[0])
    assert walk.is_activation_pair(kernels["up"].input[0])
    assert accounts["up"].kind == KEPT
    assert accounts["up"].after == np.float32(SCALES["up"])
    assert list(accounts) == list(SCALES)


def test_what_a_concat_joins_keeps_the_scales_of_the_cache(graph_of, random):
    """An explicit build is faster where they share one, but it is another model: "right" has a larger scale alone."""
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["left"], name="first"),
        onnx.helper.make_node("Conv", ["x", "w"], ["right"], name="second"),
        onnx.helper.make_node("Concat", ["left", "right"], ["both"], name="join", axis=1),
        onnx.helper.make_node("Concat", ["right", "both"], ["all"], name="again", axis=1),
        onnx.helper.make_node("Conv", ["both", "v"], ["y"], name="third"),
        onnx.helper.make_node("Conv", ["all", "u"], ["z"], name="fourth"),
    ]
    constants = {"w": random(2, 2, 1, 1), "v": random(3, 4, 1, 1), "u": random(3, 6, 1, 1)}
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3, 4, 4], "z": ["N", 3, 4, 4]}, constants)
    scales = {"x": 0.1, "left": 0.02, "right": 0.5, "both": 0.04, "all": 0.3, "y": 0.1, "z": 0.1}
    held = frozenset({"x", "left", "right", "both", "all"})
    engine = OldEngine(frozenset({"first", "second", "third", "fourth"}), held)
    found, accounts = taken(proto, scales, engine=engine)
    assert {name: account.kind for name, account in accounts.items() if account.after is not None} == dict.fromkeys(
        held, KEPT
    )
    assert pair_scales(found.model) == {name: np.float32(scales[name]) for name in held}


def test_an_engine_without_int8_is_followed_by_an_fp16_model(residual_net):
    found, accounts = taken(residual_net, engine=OldEngine(frozenset({"relu1"}), frozenset({"relu1"})))
    assert found.precision == "fp16"
    assert {account.after for account in accounts.values()} == {None}
    assert {account.kind for account in accounts.values()} == {NEEDS_NONE, TENSORRT_S}
    assert accounts["relu1"].why == "read in float, by Conv, Add"
    assert set(found.ran_float) == {"conv1", "conv2", "up", "gemm", "matmul"}
    half = whole_model(found.model)
    assert {t.data_type for t in half.graph.initializer if t.dims} & {onnx.TensorProto.FLOAT16}
    assert not any(node.op_type == "QuantizeLinear" for node in half.graph.node)


@pytest.mark.parametrize("own", [{}, {"turned": 0.25}], ids=["without", "with"])
def test_moved_data_has_the_scale_of_where_it_comes_from_with_one_in_the_cache_or_without(graph_of, random, own):
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["positive"]),
        onnx.helper.make_node("Conv", ["positive", "w"], ["a"], name="first"),
        onnx.helper.make_node("Transpose", ["positive"], ["turned"], perm=[0, 1, 3, 2]),
        onnx.helper.make_node("Conv", ["turned", "w"], ["b"], name="second"),
    ]
    shape = ["N", 3, 4, 4]
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"a": shape, "b": shape}, {"w": random(3, 2, 1, 1)})
    _, accounts = taken(proto, {"x": 0.1, "positive": 0.2, "a": 0.3, **own})
    assert (accounts["turned"].kind, accounts["turned"].before) == (MOVED, own.get("turned"))
    assert accounts["turned"].after == np.float32(0.2)
    assert accounts["turned"].why == "holds the data of positive"


def test_data_moved_from_a_tensor_without_a_pair_has_its_scale_where_the_cache_lacks_its_own(graph_of, random):
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["positive"]),
        onnx.helper.make_node("Transpose", ["positive"], ["turned"], perm=[0, 1, 3, 2]),
        onnx.helper.make_node("Conv", ["turned", "w"], ["y"], name="conv"),
    ]
    proto = graph_of(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3, 4, 4]}, {"w": random(3, 2, 1, 1)})
    found, accounts = taken(proto, {"x": 0.1, "positive": 0.2, "y": 0.3})
    assert (accounts["turned"].kind, accounts["turned"].after) == (MOVED, np.float32(0.2))
    assert found.float_products == ()


def test_a_tensor_that_was_all_zero_is_said(residual_net):
    _, accounts = taken(residual_net, {**SCALES, "relu2": 1 / 127}, zeros=("relu2",))
    assert (accounts["relu2"].kind, accounts["relu2"].before) == (KEPT, 0.0)
    assert accounts["relu2"].after > 0


def test_some_tensors_of_others_are_told_and_many_are_refused(residual_net):
    _, accounts = taken(residual_net, {**SCALES, "stranger": 0.5})
    assert accounts["stranger"].kind == UNKNOWN
    with pytest.raises(CacheError, match="belongs to another model"):
        taken(residual_net, {**SCALES, **{f"stranger{i}": 0.5 for i in range(30)}})
    with pytest.raises(CacheError, match="found 0 of the 5 that it needs"):
        taken(residual_net, {"c1": 0.5, "bn1": 0.4})


def test_an_implicit_build_has_pairs_on_what_lies_in_memory_and_none_inside_kernels(residual_net):
    model = implicit_model(light_model(residual_net), {name: 127 * scale for name, scale in SCALES.items()})
    # bn2 fuses with the sum and its Relu, bn1 with the other Relu; the transposed convolution's result is pooled.
    assert pair_scales(model).keys() == {"input", "relu1", "relu2", "up", "pooled", "flat", "hidden"}
    assert pair_scales(model)["flat"] == np.float32(SCALES["flat"])  # each tensor has a grid of its own


def test_an_implicit_build_runs_in_float_what_has_no_scale(residual_net):
    scales = {name: 127 * scale for name, scale in SCALES.items() if name not in ("relu1", "up")}
    model = implicit_model(light_model(residual_net), scales)
    assert pair_scales(model).keys() == {"input", "relu2", "pooled", "flat", "hidden", "sum"}


@pytest.mark.parametrize("name", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_every_tensor_of_tensorrt_s_own_caches_is_accounted_for(shared, name):
    model = load_model(shared / "models" / f"{name}.onnx")
    for path in sorted((shared / "reference" / "tensorrt-8.6.0").glob(f"{name}.*.cache")):
        cache = read_cache(path)
        found = migrated(model.light, cache, str(path), name)
        assert [account.tensor for account in found.tensors] == list(cache.scales), path.name
        assert found.counts[TENSORRT_S] == 4  # the Gemm's constants, product and reshaped bias
        assert found.counts[HAD_NONE] == found.counts[UNKNOWN] == 0
        pairs = pair_scales(found.model)
        assert {a.tensor for a in found.tensors if a.after is not None} == pairs.keys()
        kept = [account for account in found.tensors if account.kind == KEPT]
        assert all(account.before == account.after == pairs[account.tensor] for account in kept)
        assert len(kept) > 15
