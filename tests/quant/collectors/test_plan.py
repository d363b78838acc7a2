"""What a pass fetches and counts, and how a batch is divided."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper

from calib.algorithms import Entropy, MinMax
from calib.histograms.counting import BYTES_OF_COUNTER, BYTES_OF_PACKED
from quant.collectors.plan import Division, collection_plan, division, images_in_part

MB = 1 << 20


@pytest.mark.parametrize(
    ("megabytes", "batch", "part"),
    [
        (1, 200, 40),  # 40 MB, and an even share of the batch
        (1, 64, 32),
        (1, 37, 37),
        (1, 83, 40),  # a prime number has none
        (15, 64, 4),  # 80 MB would hold 5: one more than an even share
        (15, 50, 5),
        (60, 16, 1),
        (500, 16, 1),
    ],
)
def test_how_many_images_are_run_at_a_time(megabytes, batch, part):
    assert images_in_part(megabytes * MB, 1 << 30, batch) == part


def test_fewer_images_are_run_at_a_time_where_memory_is_short():
    assert images_in_part(MB, 8 * MB, 64) == 8
    assert images_in_part(MB, MB // 2, 64) == 1


SIZES = {"a": 6, "b": 3, "c": 4, "d": 10, "e": 1}  # bytes of one image


def test_a_batch_whose_tensors_fit_is_divided_by_its_images_alone():
    # 24 bytes of an image, and 60 may be held: two images at a time.
    assert division(SIZES, 60, 24, None) == Division(2, (("a", "b", "c", "d", "e"),))
    assert division(SIZES, 24, 24, None) == Division(1, (("a", "b", "c", "d", "e"),))


def test_tensors_that_do_not_fit_are_fetched_in_groups_in_the_order_of_the_graph():
    # a + b are 9, b + c 7, d alone is more than 8 and stays alone.
    assert division(SIZES, 8, 24, None) == Division(1, (("a",), ("b", "c"), ("d",), ("e",)))
    assert division(SIZES, 23, 24, None) == Division(1, (("a", "b", "c", "d"), ("e",)))


def test_a_batch_that_the_model_fixes_stays_whole():
    assert division(SIZES, 24, 24, 4) == Division(4, (("a", "b", "c", "d", "e"),))
    assert division(SIZES, 8, 24, 4) == Division(4, (("a",), ("b", "c"), ("d",), ("e",)))


@pytest.mark.parametrize(("fixed", "images"), [(None, 24), (4, 4)])
def test_where_nothing_is_fetched_a_batch_runs_at_once(fixed, images):
    assert division({}, 8, 24, fixed) == Division(images, ((),))


def unasked(names):
    raise AssertionError(f"type inference knows all types, and {names} are asked for")


@pytest.fixture
def model(saved, graph_of, random):
    """thrice = 3 x, positive = thrice from 0 up, y = positive and the floats of ids, times a matrix."""
    nodes = [
        helper.make_node("Mul", ["x", "three"], ["thrice"]),
        helper.make_node("Relu", ["thrice"], ["positive"]),
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["positive", "floats"], ["sum"]),
        helper.make_node("Flatten", ["sum"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {"three": [3.0], "w": random(2, 4)}
    kinds = {"ids": TensorProto.INT64}
    return saved(graph_of(nodes, {"x": ["N", 2], "ids": ["N", 2]}, {"y": ["N", 4]}, constants, kinds=kinds))


def test_what_follows_from_another_tensor_is_neither_fetched_nor_counted(model):
    plan = collection_plan(model, MinMax(), unasked)
    assert list(plan.origins) == ["x", "thrice", "positive", "floats", "sum", "flat", "y"]
    assert plan.inputs == ("x",)  # ids are no floats
    assert plan.fetched == ("thrice", "floats", "sum", "y")
    assert plan.products == {"flat", "sum"}
    assert not plan.first_batch


@pytest.mark.parametrize("match", [False, True])
def test_tensorrt_s_very_answers_need_rectified_tensors_and_the_first_batch_too(model, match):
    plan = collection_plan(model, Entropy(match_tensorrt=match), unasked)
    assert plan.first_batch is match
    assert ("positive" in plan.fetched) is match
    assert "flat" not in plan.fetched  # the very values of `sum`


@pytest.mark.parametrize(("kind", "counted"), [("tensor(float16)", True), ("tensor(int64)", False)])
def test_types_that_cannot_be_inferred_are_asked_for(saved, graph_of, kind, counted):
    nodes = [
        helper.make_node("Abs", ["x"], ["abs"]),
        helper.make_node("Odd", ["abs"], ["odd"], domain="my.own"),
        helper.make_node("Odd", ["odd"], ["y"], domain="my.own"),
    ]
    proto = graph_of(nodes, {"x": ["N", 2]}, {"y": ["N", 2]})
    proto.opset_import.append(helper.make_opsetid("my.own", 1))
    asked = []

    def types_of(names):
        asked.extend(names)
        return dict.fromkeys(names, kind)

    plan = collection_plan(saved(proto), MinMax(), types_of)
    assert asked == ["odd"]
    assert plan.fetched == (("abs", "odd", "y") if counted else ("abs", "y"))


def test_the_statistics_of_a_pass_are_those_of_all_tensors(model):
    plan = collection_plan(model, MinMax(), unasked)
    counts = plan.counts()
    x = np.array([[-1, 2], [3, -4]], np.float32)
    fetched = {"thrice": 3 * x, "floats": np.ones((2, 2)), "sum": np.maximum(3 * x, 0) + 1, "y": np.zeros((2, 4))}
    activations = {name: array.astype(np.float32) for name, array in fetched.items()}
    with ThreadPoolExecutor(1) as helpers:
        counts.count({"x": x, **activations}, ["0.png", "1.png"], helpers, 1)
    statistics = plan.statistics(counts.counted(), 2, 2)
    assert (statistics.images, statistics.products) == (2, {"flat", "sum"})
    found = {name: (h.min, h.max, h.zeros, h.count) for name, h in statistics.histograms.items()}
    assert found == {
        "x": (-4, 3, 0, 4),
        "thrice": (-12, 9, 0, 4),
        "positive": (0, 9, 2, 4),
        "floats": (1, 1, 0, 4),
        "sum": (1, 10, 0, 4),
        "flat": (1, 10, 0, 4),
        "y": (0, 0, 8, 8),
    }


def test_counts_take_at_most_half_of_a_limit_and_leave_the_rest_to_activations(model):
    plan = collection_plan(model, MinMax(), unasked)
    counted = len({*plan.inputs, *plan.fetched})
    enough = 2 * counted * BYTES_OF_COUNTER

    def packed(limit=None):
        return {histogram._packed is not None for histogram in plan.counts(limit).histograms.values()}

    assert packed() == packed(enough) == {False}
    assert packed(enough - 2) == {True}
    assert plan.left_for_activations(enough) == enough // 2
    assert plan.left_for_activations(enough - 2) == enough - 2 - counted * BYTES_OF_PACKED
    assert plan.left_for_activations(400) == 100


def test_a_pass_with_packed_counts_gives_the_same_statistics(model):
    plan = collection_plan(model, MinMax(), unasked)
    chance = np.random.default_rng(2)
    batches = [
        {name: chance.normal(size=(2, 3)).astype(np.float32) * scale for name in ("x", *plan.fetched)}
        for scale in (1.0, 50.0, 0.1)
    ]
    found = []
    for limit in (None, 1):
        counts = plan.counts(limit)
        with ThreadPoolExecutor(1) as helpers:
            for batch in batches:
                counts.count(batch, ["0.png", "1.png"], helpers, 2)
        found.append({name: h.digest() for name, h in plan.statistics(counts.counted(), 6, 2).histograms.items()})
    assert found[0] == found[1]
