"""LayerNormalization taken apart: the same numbers by other nodes."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper

from quant.tensorrt.rewrites.layer_norm import with_normalizations_apart


def kinds(proto):
    return Counter(node.op_type for node in proto.graph.node)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("shift", [False, True])
def test_the_parts_give_what_the_whole_gave(graph_of, random, run_onnx, opset, shift):
    constants = {"gain": random(6, seed=1), **({"shift": random(6, seed=2)} if shift else {})}
    node = helper.make_node("LayerNormalization", ["x", *constants], ["y"], name="norm", epsilon=0.01)
    proto = graph_of([node], {"x": ["N", 4, 6]}, {"y": ["N", 4, 6]}, constants, opset=opset)
    apart = with_normalizations_apart(proto)
    onnx.checker.check_model(apart, full_check=True)
    assert "LayerNormalization" not in kinds(apart)
    x = 3 * random(5, 4, 6) + 1
    centred = x - x.mean(-1, keepdims=True)
    by_hand = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.01) * constants["gain"]
    by_hand = by_hand + constants["shift"] if shift else by_hand
    np.testing.assert_allclose(run_onnx(apart, x=x)[0], by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run_onnx(apart, x=x)[0], run_onnx(proto, x=x)[0], rtol=1e-4, atol=1e-5)


def test_a_transformer_keeps_its_tensors_and_its_answers(transformer, run_onnx, random):
    before = transformer.SerializeToString()
    apart = with_normalizations_apart(transformer)
    assert transformer.SerializeToString() == before
    made = {name for node in apart.graph.node for name in node.output}
    assert {"n1", "n2"} <= made  # scales are known by these names
    x = random(3, 16, 64, seed=3)
    np.testing.assert_allclose(run_onnx(apart, x=x)[0], run_onnx(transformer, x=x)[0], rtol=1e-4, atol=1e-4)


def test_other_axes_and_further_results_stay(graph_of, random):
    whole = helper.make_node("LayerNormalization", ["x", "gain"], ["y"], axis=1)
    proto = graph_of([whole], {"x": [2, 4, 6]}, {"y": [2, 4, 6]}, {"gain": random(4, 6)})
    assert kinds(with_normalizations_apart(proto)) == {"LayerNormalization": 1}
    told = helper.make_node(
        "LayerNormalization",
        [
            "x",
            "gain",
            "",
        ],
        ["y", "mean"],
    )
    proto = graph_of([told], {"x": [2, 6]}, {"y": [2, 6], "mean": [2, 1]}, {"gain": random(6)})
    assert kinds(with_normalizations_apart(proto)) == {"LayerNormalization": 1}


def test_an_axis_may_be_counted_from_the_front_and_numbers_may_be_double(graph_of, random, run_onnx):
    node = helper.make_node("LayerNormalization", ["x", "gain"], ["y"], axis=2)
    constants = {"gain": random(6).astype(np.float64)}
    kinds_of = {"x": onnx.TensorProto.DOUBLE, "y": onnx.TensorProto.DOUBLE}
    proto = graph_of([node], {"x": [2, 4, 6]}, {"y": [2, 4, 6]}, constants, kinds=kinds_of)
    apart = with_normalizations_apart(proto)
    assert "LayerNormalization" not in kinds(apart)
    x = random(2, 4, 6, seed=4).astype(np.float64)
    np.testing.assert_allclose(run_onnx(apart, x=x)[0], run_onnx(proto, x=x)[0], rtol=1e-4, atol=1e-5)
