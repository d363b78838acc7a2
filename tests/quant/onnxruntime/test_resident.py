"""Sessions that make room for each other: who is closed, who stays, and that a closed one runs again."""

import gc
import weakref

import numpy as np
import pytest
from onnx import helper

from quant.backend import Build
from quant.errors import BuildError
from quant.onnx_graph import made_model
from quant.onnx_graph.half_precision import light_half_model
from quant.onnx_graph.light_model import light_model
from quant.onnx_graph.made_model import MadeModel
from quant.onnxruntime import resident
from quant.onnxruntime.resident import Resident, bytes_of_session, fit_together, make_room
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.writer import light_qdq_model


class Doubling:
    def run(self, inputs):
        return [2 * inputs["x"]]


@pytest.fixture
def opened(monkeypatch):
    """Makes residents of a number of bytes, in a room of 100, and notes which sessions were opened."""
    monkeypatch.setattr(resident, "ROOM", 100)
    monkeypatch.setattr(resident, "_open", weakref.WeakSet())
    notes = []

    def make(name, size, beside=()):
        def session():
            notes.append(name)
            return Doubling()

        return Resident(session, size, beside=beside)

    return make, notes


def run(session):
    assert session.run({"x": np.ones(1)})[0] == 2


def test_sessions_that_fit_stay_open(opened):
    make, notes = opened
    first, second = make("a", 50), make("b", 50)
    for session in (first, second, first, second):
        run(session)
    assert notes == ["a", "b"]


def test_the_one_that_was_used_longest_ago_makes_room_and_is_opened_again(opened):
    make, notes = opened
    first, second = make("a", 40), make("b", 40)
    run(first)
    third = make("c", 40)
    run(first)
    assert notes == ["a", "b", "c"]
    run(second)
    assert notes == ["a", "b", "c", "b"]
    run(third)  # gave way to it
    assert notes == ["a", "b", "c", "b", "c"]


def test_sessions_of_one_build_stay_open_together_even_without_room(opened):
    make, notes = opened
    exact = make("exact", 80)
    deployed = make("deployed", 80, beside=[exact])
    for _ in range(2):
        run(exact)
        run(deployed)
    assert notes == ["exact", "deployed"]
    other = make("other", 10)
    run(exact)
    run(other)
    assert notes == ["exact", "deployed", "other", "exact", "other"]  # another build has to wait for both


def test_room_can_be_made_for_a_session_that_is_none_of_these(opened):
    make, notes = opened
    session = make("a", 60)
    make_room(30)
    run(session)
    assert notes == ["a"]
    make_room(1000)
    run(session)
    assert notes == ["a", "a"]


def test_a_session_that_cannot_be_opened_is_known_at_once():
    def fail():
        raise BuildError("it cannot be loaded")

    with pytest.raises(BuildError, match="it cannot be loaded"):
        Resident(fail, 1)


def test_builds_fit_together_by_what_all_their_sessions_hold(monkeypatch):
    monkeypatch.setattr(resident, "ROOM", 100)
    plain = Build("fp32", Doubling(), None, ".onnx", 0, session_bytes=40)
    twofold = Build("int8", Doubling(), None, ".onnx", 0, deployed=Doubling(), session_bytes=30)
    assert fit_together([plain, twofold])
    assert not fit_together([plain, plain, twofold])
    assert fit_together([Build("int8", Doubling(), b"engine", ".engine", 10**12)])
    assert bytes_of_session(10) == 40


@pytest.fixture
def net(graph_of, random):
    """Two products with large weights, one of them a Gemm with transposed ones, whose data a Reshape moves."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="a"),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Gemm", ["b", "v"], ["y"], name="y", transB=1),
    ]
    constants = {"w": random(40, 50), "v": random(60, 50), "shape": np.array([-1, 50])}
    return light_model(graph_of(nodes, {"x": ["N", 40]}, {"y": ["N", 60]}, constants))


@pytest.mark.parametrize(
    "make",
    [light_half_model, lambda model: light_qdq_model(model, {"x": 4.0, "a": 30.0, "b": 30.0})],
    ids=["fp16", "int8"],
)
def test_a_large_made_model_lives_as_long_as_its_sessions_and_no_longer(net, monkeypatch, random, make):
    """Without the help of Python's cyclic garbage collector, which may come late."""
    monkeypatch.setattr(made_model, "_KEPT", 0)
    gc.collect()
    gc.disable()
    try:
        made = MadeModel(lambda: make(net), "model.onnx")
        session = OnnxRuntimeSession(made.model())
        made.forget()
        arrays = [weakref.ref(array) for name, array in made.model().weights.items()]
        before = session.run({"x": random(3, 40)})[0]
        assert all(array() is not None for array in arrays)
        del session
        assert [array() for array in arrays] == [None] * len(arrays)
    finally:
        gc.enable()
    again = OnnxRuntimeSession(made.model()).run({"x": random(3, 40)})[0]
    np.testing.assert_array_equal(again, before)


def test_a_small_made_model_is_made_once(net):
    count = []

    def make():
        count.append(1)
        return light_half_model(net)

    made = MadeModel(make, "model.onnx")
    made.forget()
    assert made.model() is made.model()
    assert len(count) == 1
