"""Builds that only an evaluation runs: in parts of a batch, with the same outputs."""

import numpy as np
import pytest
from onnx import helper

from quant.onnxruntime import session_in_parts
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.onnxruntime.session_in_parts import SessionInParts
from tests.int8_oracle import int8_of

n = helper.make_node


class Sizes:
    """Counts how many images each run of a session got."""

    def __init__(self, monkeypatch):
        self.found = []
        original = OnnxRuntimeSession.run

        def run(session, inputs, names=None):
            self.found.append(len(next(iter(inputs.values()))))
            return original(session, inputs, names)

        monkeypatch.setattr(OnnxRuntimeSession, "run", run)

    def taken(self):
        found, self.found = self.found, []
        return found


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.setattr(session_in_parts, "usable_processors", lambda: 2)
    return Sizes(monkeypatch)


def test_parts_give_the_outputs_of_the_whole_batch(sizes, residual_net, transformer, random):
    for proto, inputs in (
        (residual_net, {"input": random(21, 3, 8, 8)}),
        (transformer, {"x": random(21, 16, 64)}),
    ):
        quantized = int8_of(proto, inputs)
        whole = OnnxRuntimeSession(quantized, exact=True).run(inputs)
        session = SessionInParts(quantized, name="net")
        first, second = session.run(inputs), session.run(inputs)
        for found, again, expected in zip(first, second, whole, strict=True):
            assert np.array_equal(found, expected)
            assert np.array_equal(again, expected)
        sizes.taken()
        session.run(inputs)
        assert max(sizes.taken()) < 21


def test_a_single_image_and_fewer_images_than_a_part_are_run_as_they_are(sizes, residual_net, random):
    session = SessionInParts(residual_net, name="net")
    for images in (1, 3):
        inputs = {"input": random(images, 3, 8, 8)}
        assert np.array_equal(session.run(inputs)[0], OnnxRuntimeSession(residual_net).run(inputs)[0])
    assert sizes.taken() == [1, 1, 3, 3]


def test_images_on_another_axis_are_joined_there(sizes, graph_of, random):
    nodes = [n("Transpose", ["x"], ["y"], perm=[1, 0, 2])]
    session = SessionInParts(graph_of(nodes, {"x": ["N", 5, 3]}, {"y": [5, "N", 3]}), name="net")
    x = random(18, 5, 3)
    assert np.array_equal(session.run({"x": x})[0], x.transpose(1, 0, 2))
    assert max(sizes.taken()) < 18


@pytest.mark.parametrize("kind", ["mixes images", "counts", "a scalar"])
def test_a_model_that_mixes_the_images_of_a_batch_gets_whole_batches(sizes, graph_of, random, kind):
    if kind == "mixes images":
        nodes = [n("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1), n("Sub", ["x", "m"], ["y"])]
        outputs = {"y": ["N", 4]}
    elif kind == "counts":
        nodes = [n("NonZero", ["x"], ["i"]), n("Cast", ["i"], ["y"], to=1)]
        outputs = {"y": [2, "k"]}
    else:
        nodes, outputs = [n("ReduceMax", ["x"], ["y"], keepdims=0)], {"y": []}
    proto = graph_of(nodes, {"x": ["N", 4]}, outputs)
    x = np.maximum(random(18, 4), 0)
    (expected,) = OnnxRuntimeSession(proto).run({"x": x})
    session = SessionInParts(proto, name="net")
    assert np.array_equal(session.run({"x": x})[0], expected)
    sizes.taken()
    assert np.array_equal(session.run({"x": x})[0], expected)
    assert sizes.taken() == [18]


def test_large_weights_are_not_read_once_for_each_part(sizes, monkeypatch, residual_net, random):
    monkeypatch.setattr(session_in_parts, "_LARGEST_WEIGHTS", 100)
    SessionInParts(residual_net, name="net").run({"input": random(20, 3, 8, 8)})
    assert sizes.taken() == [20]


def test_a_scalar_input_goes_to_every_part(sizes, graph_of, random):
    nodes = [n("Mul", ["x", "factor"], ["y"])]
    session = SessionInParts(graph_of(nodes, {"x": ["N", 3], "factor": []}, {"y": ["N", 3]}), name="net")
    x = random(20, 3)
    assert np.array_equal(session.run({"x": x, "factor": np.array(2, np.float32)})[0], 2 * x)
    assert max(sizes.taken()) < 20
