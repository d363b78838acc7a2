"""Activations in ONNX Runtime's own layout: the values are those of the usual layout, whatever their order."""

import platform
import tempfile

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from calib import MinMaxCalibrator
from quant import collect_statistics
from quant.collectors import part_runner
from quant.collectors.blocked_layout import blocked_session, is_worth_blocking
from quant.onnxruntime.session import OnnxRuntimeSession

TENSORS = ["first", "relu", "second", "sum", "clip", "third", "scaled"]
BLOCKS = platform.machine() in ("x86_64", "AMD64")  # ONNX Runtime lays out channels in blocks of 8 or 16 there


@pytest.fixture
def net(graph_of, random):
    """Convolutions to 32, 32 and 24 channels; a residual sum, Relu, Clip, and a product that wants the usual order."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["first"], pads=[1] * 4),
        helper.make_node("Relu", ["first"], ["relu"]),
        helper.make_node("Conv", ["relu", "w2"], ["second"], pads=[1] * 4),
        helper.make_node("Add", ["second", "relu"], ["sum"]),
        helper.make_node("Clip", ["sum", "zero", "one"], ["clip"]),
        helper.make_node("Conv", ["clip", "w3"], ["third"]),
        helper.make_node("Mul", ["third", "channelwise"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["y"], axes=[2, 3], keepdims=0),
    ]
    constants = {
        "w1": random(32, 3, 3, 3, seed=1),
        "w2": random(32, 32, 3, 3, seed=2) / 10,
        "w3": random(24, 32, 1, 1, seed=3),
        "channelwise": random(1, 24, 1, 1, seed=4),
        "zero": np.float32(0).reshape(()),
        "one": np.float32(1).reshape(()),
    }
    return graph_of(nodes, {"x": ["N", 3, 10, 9]}, {"y": ["N", 24]}, constants)


@pytest.fixture
def with_outputs():
    def add(proto, names):
        result = onnx.ModelProto()
        result.CopyFrom(proto)
        result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return result

    return add


@pytest.fixture
def plain(net, with_outputs, random):
    """The model with all its activations as outputs, an image, and what the plain session gives for it."""
    proto = with_outputs(net, TENSORS)
    image = {"x": random(1, 3, 10, 9, seed=5)}
    return proto, image, dict(zip(TENSORS, OnnxRuntimeSession(proto).run(image, TENSORS), strict=True))


@pytest.mark.skipif(not BLOCKS, reason="ONNX Runtime has no layout in blocks on this processor")
def test_each_tensor_holds_the_same_values_in_an_order_of_its_own(plain, random):
    proto, image, expected = plain
    session = blocked_session(proto, "net", image, expected)
    assert session is not None
    batch = {"x": random(3, 3, 10, 9, seed=6)}
    usual = dict(zip(TENSORS, OnnxRuntimeSession(proto).run(batch, TENSORS), strict=True))
    found = dict(zip(TENSORS, session.run(batch, TENSORS), strict=True))
    for name in TENSORS:
        assert found[name].shape == usual[name].shape
        for image_found, image_usual in zip(found[name], usual[name], strict=True):  # images stay where they are
            np.testing.assert_array_equal(np.sort(image_found.ravel()), np.sort(image_usual.ravel()), err_msg=name)
    assert not np.array_equal(found["first"], usual["first"])  # otherwise nothing was gained


@pytest.mark.parametrize("change", [lambda a: a + np.float32(1e-3), lambda a: np.where(a == a.max(), 0, a)])
def test_a_session_whose_values_differ_is_not_used(plain, change):
    proto, image, expected = plain
    assert blocked_session(proto, "net", image, expected | {"sum": change(expected["sum"])}) is None


def test_a_model_without_convolutions_stays_as_it_is(graph_of, with_outputs, random):
    proto = graph_of(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["y"])], {"x": [1, 4]}, {"y": [1, 4]}
    )
    image = {"x": random(1, 4)}
    session = OnnxRuntimeSession(with_outputs(proto, ["a"]))
    assert blocked_session(with_outputs(proto, ["a"]), "net", image, {"a": session.run(image, ["a"])[0]}) is None


def test_statistics_are_the_same_with_and_without(net, saved, batch_of, random, monkeypatch):
    histograms = []
    for worth in (True, False):
        monkeypatch.setattr(part_runner, "is_worth_blocking", lambda *_, worth=worth: worth)
        calibrator = MinMaxCalibrator(
            [batch_of(x=random(20, 3, 10, 9, seed=7)), batch_of(x=random(7, 3, 10, 9, seed=8))]
        )
        collect_statistics(saved(net), calibrator)
        histograms.append(calibrator.statistics.histograms)
    assert list(histograms[0]) == ["x", *TENSORS, "y"]
    for name, histogram in histograms[0].items():
        other = histograms[1][name]
        np.testing.assert_array_equal(histogram.signed_counts, other.signed_counts, err_msg=name)
        assert (histogram.min, histogram.max, histogram.zeros) == (other.min, other.max, other.zeros), name


@pytest.mark.parametrize("writable", [True, False])
def test_a_small_model_is_optimised_once_and_needs_no_temporary_folder(
    net, saved, batch_of, random, monkeypatch, tmp_path, writable
):
    optimised = []

    def blocked(*arguments):
        optimised.append(arguments[-1] is not None)
        return blocked_session(*arguments)

    monkeypatch.setattr(part_runner, "is_worth_blocking", lambda *_: True)
    monkeypatch.setattr(part_runner, "blocked_session", blocked)
    if not writable:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    calibrator = MinMaxCalibrator([batch_of(x=random(20, 3, 10, 9, seed=7))])
    collect_statistics(saved(net), calibrator)
    assert optimised == [writable]
    assert calibrator.statistics.histograms["first"].count == 20 * 32 * 10 * 9


def test_another_session_has_to_be_regained_by_what_convolutions_write(net, plain):
    _, _, activations_of_one = plain
    written = 4 * (32 + 32 + 24) * 10 * 9  # bytes of the three convolutions' results for an image
    size = sum(numpy_helper.to_array(tensor).nbytes for tensor in net.graph.initializer)
    images = 200 * size // written
    assert not is_worth_blocking(net, activations_of_one, images)
    assert is_worth_blocking(net, activations_of_one, images + 1)
