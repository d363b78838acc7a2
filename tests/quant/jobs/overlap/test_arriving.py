"""Builds that come while others are evaluated: the figures are those of an evaluation that began with all of them."""

import dataclasses

import numpy as np
import pytest

from quant.backend import Build
from quant.evaluation.accuracy import Evaluating, evaluate, reader_from_batch
from quant.jobs.overlap.arriving import Arriving, Coming
from quant.onnx_graph.half_precision import half_model
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.writer import qdq_model_from_amax
from tests.int8_oracle import amax_of

BATCHES, SIZE = 7, 5


@pytest.fixture(scope="module")
def batches(batch_of, random):
    labels = np.arange(BATCHES * SIZE) % 3
    return [
        batch_of(i * SIZE, labels[i * SIZE : (i + 1) * SIZE], input=random(SIZE, 3, 8, 8, seed=i))
        for i in range(BATCHES)
    ]


@pytest.fixture(scope="module")
def sessions(residual_net, batches):
    int8 = qdq_model_from_amax(residual_net, amax_of(residual_net, batches[0].inputs))
    models = {"fp32": residual_net, "fp16": half_model(residual_net), "int8": int8}
    return {name: OnnxRuntimeSession(model) for name, model in models.items()} | {
        "exact": OnnxRuntimeSession(int8, exact=True)
    }


def figures(evaluations):
    """Everything in evaluations, by name, in a form that compares."""
    return {name: repr(dataclasses.asdict(each)) for name, each in evaluations.items()}


@pytest.fixture(scope="module")
def together(sessions, batches):
    """An evaluation that began with all builds, and what its observer was told of each."""
    seen = []
    builds = {"fp32": sessions["fp32"], "fp16": sessions["fp16"], "int8": sessions["exact"]}
    found = evaluate(
        builds,
        "fp32",
        batches,
        observe=lambda name, outputs, batch, reference: seen.append((name, batch.names[0], outputs[0].tobytes())),
        reader=reader_from_batch(None, sessions["fp32"], batches[0]),
        deployed={"int8": sessions["int8"]},
        deployed_images=2 * SIZE,
    )
    return found, seen


@pytest.mark.parametrize(("fp16", "int8"), [(0, 0), (2, 4), (4, 2), (3, 3), (1, 99), (99, 99)])
@pytest.mark.parametrize("room", [1 << 30, 2 * SIZE * 3 * 64 * 4 + 1000, 0])
def test_figures_do_not_depend_on_when_builds_come_nor_on_the_room(sessions, batches, together, fp16, int8, room):
    taken, seen = [], []

    def coming(name, after, build):
        return Coming(name, lambda: len(taken) >= after, lambda: build)

    running = Evaluating(
        "fp32",
        reader_from_batch(None, sessions["fp32"], batches[0]),
        lambda name, outputs, batch, reference: seen.append((name, batch.names[0], outputs[0].tobytes())),
        2 * SIZE,
    )
    running.add("fp32", sessions["fp32"])
    arriving = Arriving(
        [
            coming("fp16", fp16, Build("fp16", sessions["fp16"], None, "", 0)),
            coming("int8", int8, Build("int8", sessions["exact"], None, "", 0, deployed=sessions["int8"])),
        ],
        room,
    )
    found = arriving.evaluate(running, iter(batches), taken.append)
    expected, told = together
    assert list(found) == ["fp32", "fp16", "int8"]
    assert figures(found) == figures(expected)
    assert found["int8"].deployed.images == 2 * SIZE
    assert sum(taken) == BATCHES * SIZE
    for name in found:
        assert [item for item in seen if item[0] == name] == [item for item in told if item[0] == name]


def test_one_that_cannot_be_built_is_left_out_and_the_others_come(sessions, batches, together):
    running = Evaluating("fp32", reader_from_batch(None, sessions["fp32"], batches[0]))
    running.add("fp32", sessions["fp32"])
    int8 = Build("int8", sessions["exact"], None, "", 0)
    arriving = Arriving(
        [Coming("fp16", lambda: True, lambda: None), Coming("int8", lambda: False, lambda: int8)], 1 << 30
    )
    found = arriving.evaluate(running, batches, lambda images: None)
    assert list(found) == ["fp32", "int8"]
    assert arriving.builds == {"int8": int8}
    assert found["int8"].sqnr_db == together[0]["int8"].sqnr_db


def test_what_is_held_stays_within_the_room(sessions, batches):
    """A build is waited for before a batch would not fit, and not earlier."""
    image = 3 * 8 * 8 * 4
    outputs = sum(array.nbytes for array in sessions["fp32"].run(batches[0].inputs))
    done = []
    running = Evaluating("fp32", reader_from_batch(None, sessions["fp32"], batches[0]))
    running.add("fp32", sessions["fp32"])
    waited = []

    def take():
        waited.append(sum(done))
        return Build("fp16", sessions["fp16"], None, "", 0)

    room = 3 * (SIZE * image + outputs)
    Arriving([Coming("fp16", lambda: False, take)], room).evaluate(running, batches, done.append)
    assert waited == [3 * SIZE]
