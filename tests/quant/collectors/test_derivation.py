"""Derived histograms are those that counting the tensor itself gives."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper

from calib import Histogram, MinMaxCalibrator, NonFiniteError
from quant import collect_statistics
from quant.collectors.derivation import Origin, first_holders, origins, split_limits


@pytest.fixture
def chain(graph_of):
    """x -> m = -2x -> relu, clip6, halves of these, and rearrangements of them."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["m"]),
        helper.make_node("Relu", ["m"], ["relu"]),
        helper.make_node("Clip", ["m", "zero", "six"], ["clip6"]),
        helper.make_node("Clip", ["relu", "zero", "one"], ["clip1"]),
        helper.make_node("Clip", ["m", "one", "six"], ["clip_from_one"]),
        helper.make_node("Transpose", ["clip6"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Flatten", ["turned"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["again"]),
        helper.make_node("Concat", ["relu", "clip6", "clip1", "clip_from_one"], ["joined"], axis=2),
        helper.make_node("Concat", ["x", "relu", "x"], ["three"], axis=2),
        helper.make_node("Relu", ["three"], ["three_relu"]),
        helper.make_node("Mul", ["half", "three"], ["three_half"]),
        helper.make_node("Div", ["three_half", "four"], ["eighth"]),
        helper.make_node("Clip", ["eighth", "zero", "one"], ["eighth_clip"]),
        helper.make_node("Mul", ["eighth", "four"], ["doubled"]),
        helper.make_node("Concat", ["joined", "doubled"], ["all"], axis=2),
        helper.make_node("ReduceMean", ["all"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["again"], ["rest"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "rest"], ["y"]),
    ]
    numbers = {"zero": 0, "one": 1, "six": 6, "factor": -2, "half": 0.5, "four": 4}
    constants = {name: np.float32(value).reshape(()) for name, value in numbers.items()}
    return graph_of(nodes, {"x": ["N", 3, 4]}, {"y": ["N"]}, constants)


TENSORS = [
    "x",
    "m",
    "relu",
    "clip6",
    "clip1",
    "clip_from_one",
    "turned",
    "flat",
    "again",
    "joined",
    "three",
    "three_relu",
    "three_half",
    "eighth",
    "eighth_clip",
    "doubled",
    "all",
    "mean",
    "rest",
    "y",
]


def test_what_is_derived_from_what(chain):
    found = origins(chain, TENSORS)
    relu, clip6 = Origin("m", math.inf), Origin("m", 6.0)
    assert found["relu"] == (relu,)
    assert found["clip6"] == found["turned"] == found["flat"] == found["again"] == (clip6,)
    for counted in ("x", "m", "clip_from_one", "doubled", "mean", "rest", "y"):
        assert found[counted] == (Origin(counted),), counted
    assert found["clip1"] == (Origin("clip1"),)  # m is counted with one limit, and 6 came first
    assert found["joined"] == (relu, clip6, Origin("clip1"), Origin("clip_from_one"))
    assert found["three"] == (Origin("x"), relu, Origin("x"))
    assert found["three_half"] == (Origin("x", None, -1), Origin("m", math.inf, -1), Origin("x", None, -1))
    assert found["eighth"][0] == Origin("x", None, -3)
    assert found["eighth_clip"] == (Origin("eighth_clip"),)  # 8 in units of m, whose one limit is 6
    assert found["all"] == (*found["joined"], Origin("doubled"))
    assert split_limits(found)["m"] == 6.0


def test_only_rearranged_tensors_are_derived_where_nothing_else_may_be(chain):
    found = origins(chain, TENSORS, moved_only=True)
    assert found["turned"] == found["flat"] == (Origin("clip6"),)
    for counted in ("relu", "three", "three_half", "joined"):
        assert found[counted] == (Origin(counted),), counted


def test_a_clip_of_halves_is_counted_with_the_limit_of_the_whole(graph_of):
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Div", ["a", "four"], ["quarter"]),
        helper.make_node("Clip", ["quarter", "zero", "one"], ["y"]),
    ]
    constants = {"four": np.float32(4).reshape(()), "zero": np.float32(0).reshape(()), "one": np.float32(1).reshape(())}
    found = origins(graph_of(nodes, {"x": ["N"]}, {"y": ["N"]}, constants), ["x", "a", "quarter", "y"])
    assert found["y"] == (Origin("a", 4.0, -2),)


def test_histograms_equal_those_of_the_values_themselves(chain, saved, batch_of, run_onnx, random):
    x = random(50, 3, 4, seed=3) * 3
    calibrator = MinMaxCalibrator([batch_of(x=x[:20]), batch_of(x=x[20:], first=20)])
    collect_statistics(saved(chain), calibrator)
    values = run_onnx(chain, also=[name for name in TENSORS if name not in ("x", "y")], x=x) | {"x": x}
    for name in (n for n in TENSORS if n not in ("mean", "rest", "y")):
        direct = Histogram()
        direct.add(values[name])
        found = calibrator.statistics.histograms[name]
        np.testing.assert_array_equal(found.signed_counts, direct.signed_counts, err_msg=name)
        assert (found.min, found.max, found.zeros, found.widths) == (
            direct.min,
            direct.max,
            direct.zeros,
            direct.widths,
        ), name


def test_a_clip_by_attributes_is_derived_too(graph_of):
    nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Clip", ["a"], ["y"], min=0.0, max=4.0)]
    assert origins(graph_of(nodes, {"x": ["N"]}, {"y": ["N"]}, opset=10), ["x", "a", "y"])["y"] == (Origin("a", 4.0),)


@pytest.fixture
def attention(graph_of):
    """x -> bias, reshaped and turned, cut in three; one of these cut again, one clipped; and a Relu of the whole."""
    nodes = [
        helper.make_node("Add", ["x", "bias"], ["biased"]),
        helper.make_node("Reshape", ["biased", "shape"], ["shaped"]),
        helper.make_node("Transpose", ["shaped"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Split", ["turned", "thirds"], ["q", "k", "v"], axis=0),
        helper.make_node("Split", ["v", "ends"], ["v1", "v2"], axis=2),
        helper.make_node("Clip", ["k", "zero", "one"], ["clipped"]),
        helper.make_node("Relu", ["biased"], ["relu"]),
        helper.make_node("Mul", ["turned", "half"], ["halves"]),
        helper.make_node("Add", ["q", "clipped"], ["sum"]),
        helper.make_node("Concat", ["sum", "v1", "v2"], ["joined"], axis=2),
        helper.make_node("ReduceMean", ["joined"], ["mean"], axes=[0, 2], keepdims=0),
        helper.make_node("ReduceMean", ["relu"], ["rest"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["halves"], ["third"], axes=[0, 2], keepdims=0),
        helper.make_node("Sum", ["mean", "rest", "third"], ["y"]),
    ]
    numbers = {"bias": np.float32(-0.1), "zero": np.float32(0), "one": np.float32(1), "half": np.float32(0.5)}
    shapes = {"shape": np.array([-1, 3, 4]), "thirds": np.array([1, 1, 1]), "ends": np.array([3, 1])}
    return graph_of(nodes, {"x": ["N", 12]}, {"y": ["N"]}, numbers | shapes)


def _results(proto):
    return [value.name for value in proto.graph.input] + [name for node in proto.graph.node for name in node.output]


def test_what_is_cut_is_what_its_pieces_hold(attention):
    found = origins(attention, _results(attention))
    pieces = (Origin("q"), Origin("k"), Origin("v1"), Origin("v2"))
    assert found["biased"] == found["shaped"] == found["turned"] == pieces
    assert found["v"] == pieces[2:]
    assert found["clipped"] == (Origin("k", 1.0),)
    assert found["relu"] == tuple(Origin(piece.root, math.inf) for piece in pieces)
    assert found["halves"] == tuple(Origin(piece.root, None, -1) for piece in pieces)
    assert found["sum"] == (Origin("sum"),)
    holders = first_holders(found)
    assert [holders[name] for name in ("x", "q", "k", "v1", "v2", "sum")] == ["x", *["biased"] * 4, "sum"]
    assert origins(attention, _results(attention), moved_only=True)["shaped"] == (Origin("biased"),)


@pytest.mark.parametrize("missing", ["q", "v2"])
def test_what_is_cut_is_counted_where_a_piece_is_not(attention, missing):
    found = origins(attention, [name for name in _results(attention) if name != missing])
    assert found["v"] == ((Origin("v"),) if missing == "v2" else (Origin("v1"), Origin("v2")))
    assert found["turned"] == ((Origin("biased"),) if missing == "q" else (Origin("q"), Origin("k"), Origin("v")))


def test_what_is_cut_and_clipped_is_counted_with_its_limit(graph_of):
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Clip", ["a"], ["clipped"], min=0.0, max=4.0),
        helper.make_node("Split", ["a"], ["b", "c"], axis=1),
        helper.make_node("Concat", ["b", "c", "clipped"], ["y"], axis=1),
    ]
    found = origins(graph_of(nodes, {"x": ["N", 2]}, {"y": ["N", 4]}, opset=10), ["x", "a", "clipped", "b", "c", "y"])
    assert found["a"] == (Origin("a"),)
    assert split_limits(found)["a"] == 4.0


@given(values=arrays(np.float32, (5, 12), elements=st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False)))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_histograms_of_what_is_cut_equal_those_of_the_values_themselves(attention, saved, batch_of, run_onnx, values):
    calibrator = MinMaxCalibrator([batch_of(x=values[:3]), batch_of(x=values[3:], first=3)])
    collect_statistics(saved(attention), calibrator)
    names = [name for name in _results(attention) if name not in ("x", "y")]
    expected = run_onnx(attention, also=names, x=values) | {"x": values}
    for name in ("x", "biased", "shaped", "turned", "q", "k", "v", "v1", "v2", "clipped", "relu", "sum"):
        direct = Histogram()
        direct.add(expected[name])
        assert calibrator.statistics.histograms[name].digest() == direct.digest(), name


def test_a_nan_in_what_is_cut_is_named_by_what_is_cut(graph_of, saved, batch_of, random):
    nodes = [
        helper.make_node("Log", ["x"], ["log"]),
        helper.make_node("Split", ["log"], ["a", "b"], axis=1),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    x = np.ones((4, 2), np.float32)
    x[2, 1] = -1
    with pytest.raises(NonFiniteError, match=r"tensor 'log', image '2\.png'"):
        collect_statistics(
            saved(graph_of(nodes, {"x": ["N", 2]}, {"y": ["N", 1]}, opset=11)), MinMaxCalibrator([batch_of(x=x)])
        )
