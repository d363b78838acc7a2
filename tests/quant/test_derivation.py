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
    """x -> m = -2x -> relu, clip6, and rearrangements of them."""
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
        helper.make_node("ReduceMean", ["joined"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", ["again"], ["rest"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "rest"], ["y"]),
    ]
    constants = {name: np.float32(v).reshape(()) for name, v in (("zero", 0), ("one", 1), ("six", 6), ("factor", -2))}
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
    "mean",
    "rest",
    "y",
]


def test_what_is_derived_from_what(chain):
    found = origins(chain, TENSORS)
    assert found["relu"] == Origin("m", math.inf)
    assert found["clip6"] == found["turned"] == found["flat"] == found["again"] == Origin("m", 6.0)
    for counted in ("x", "m", "clip_from_one", "joined", "mean", "rest", "y"):
        assert found[counted] == Origin(counted), counted
    assert found["clip1"] == Origin("clip1")  # m is counted with one limit, and 6 came first
    assert split_limits(found)["m"] == 6.0


def test_only_rearranged_tensors_are_derived_where_clips_may_not_be(chain):
    found = origins(chain, TENSORS, clips=False)
    assert found["turned"] == found["flat"] == Origin("clip6")
    assert found["relu"] == Origin("relu")


def test_histograms_equal_those_of_the_values_themselves(chain, saved, batch_of, run_onnx, random):
    x = random(50, 3, 4, seed=3) * 3
    calibrator = MinMaxCalibrator([batch_of(x=x[:20]), batch_of(x=x[20:], first=20)])
    collect_statistics(saved(chain), calibrator)
    values = run_onnx(chain, also=[name for name in TENSORS if name not in ("x", "y")], x=x) | {"x": x}
    for name in ("m", "relu", "clip6", "clip1", "clip_from_one", "turned", "flat", "again"):
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
    assert origins(graph_of(nodes, {"x": ["N"]}, {"y": ["N"]}, opset=10), ["x", "a", "y"])["y"] == Origin("a", 4.0)
