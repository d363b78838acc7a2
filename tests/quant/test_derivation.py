"""Derived histograms are those that counting the tensor itself gives."""

import math

import numpy as np
import pytest
from onnx import helper

from calib import Histogram, MinMaxCalibrator
from quant import collect_statistics
from quant.derivation import Origin, origins, split_limits


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
