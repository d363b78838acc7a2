"""Which of several explicit builds is kept, and which may be tried."""

import pytest
from onnx import helper

from calib.algorithms import MinMax
from calib.caches.cache import cache_from_amax
from quant.cuda.device import OutOfDeviceMemoryError
from quant.errors import BuildError
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.builder import BuiltEngine
from quant.tensorrt.building.explicit import (
    ExplicitBuilds,
    ImplicitChoice,
    _normalizations_fit_fp16,
    has_attention,
)
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.building.tried_builds import MOST_TRIED, Attempt, MadeEngine, TriedBuild, fastest, first_as_fast


@pytest.mark.parametrize(
    ("milliseconds", "taken"),
    [
        ([1.0], 0),
        ([1.0, 0.96], 0),  # within what two builds of the same differ by: the one with more INT8
        ([1.0, 0.9], 1),
        ([0.5, 0.9], 0),
        ([2.0, 1.04, 1.0], 1),
    ],
)
def test_of_engines_about_as_fast_the_one_with_more_int8_is_taken(milliseconds, taken):
    assert fastest(milliseconds) == taken


@pytest.fixture
def tried(graph_of):
    """Tries placements whose outcomes are given, milliseconds or an error; returns the result and what was said."""

    def search(outcomes, goal):
        notes = []

        def timed(attempt):
            outcome = outcomes[int(attempt.pairs)]
            if isinstance(outcome, Exception):
                raise outcome
            return MadeEngine(graph_of([], {}, {}), BuiltEngine(b"", 0)), TriedBuild(attempt.pairs, 7.0, outcome, 0.5)

        attempts = [Attempt(str(i), None) for i in range(len(outcomes))]
        return first_as_fast(attempts, timed, goal, notes.append), notes

    return search


@pytest.mark.parametrize(
    ("milliseconds", "goal", "built", "taken"),
    [
        ([1.04, 0.5], 1.0, 1, "0"),  # as fast as TensorRT's own choice: no other is built
        ([1.2, 1.0, 0.5], 1.0, 2, "1"),
        ([1.2, 1.3, 1.1], 1.0, 3, "2"),  # none is: the fastest
        ([1.2, 1.3, 1.18], 1.0, 3, "0"),  # of those about as fast as the fastest, the one with most INT8
        ([2.0, 1.9, 1.8, 1.7, 0.1], 1.0, MOST_TRIED, "3"),
        ([1.0, 0.5], None, 2, "1"),  # nothing to be as fast as
    ],
)
def test_builds_end_where_one_is_as_fast_as_tensorrt_s_own_choice(tried, milliseconds, goal, built, taken):
    made, notes = tried(milliseconds, goal)
    assert [told.pairs for told in made.tried if told.taken] == [taken]
    assert len(made.tried) == built
    assert notes[0] == f"explicit: pairs 0: {milliseconds[0]:.4g} ms, 50 % of the work in INT8, built in 7 s"


def test_a_placement_that_cannot_be_built_is_told_and_the_next_one_tried(tried):
    made, notes = tried([BuildError("no kernel"), 1.0], 1.0)
    assert [(told.error, told.taken) for told in made.tried] == [("no kernel", False), ("", True)]
    assert notes[0] == "explicit: pairs 0: not built (no kernel), 0 s"


def test_where_nothing_can_be_built_the_first_reason_is_given(tried):
    errors = [OutOfDeviceMemoryError("full", "cudaErrorMemoryAllocation"), BuildError("no kernel")]
    with pytest.raises(OutOfDeviceMemoryError, match="full"):
        tried(errors, 1.0)


def test_a_transformer_is_told_by_products_of_activations(transformer, residual_net):
    assert has_attention(prepared_for_quantization(transformer))
    assert not has_attention(prepared_for_quantization(residual_net))


@pytest.mark.parametrize(
    ("amax", "fits"), [({"x": 3.0, "x1": 60.0}, True), ({"x": 3.0, "x1": 65.0}, False), ({}, False)]
)
def test_normalizations_are_taken_apart_only_where_fp16_holds_the_squares(transformer, amax, fits):
    assert _normalizations_fit_fp16(transformer, amax) is fits


@pytest.fixture
def builds(ones):
    """What is needed to build a model in several placements; nothing is built."""

    def make(proto, amax=None, **options):
        cache = cache_from_amax(ones(proto) if amax is None else amax, MinMax())
        size = BatchRange(2, 2, 2)
        return ExplicitBuilds(proto, cache, size, BuilderOptions(**options), "net", lambda line: None, frozenset())

    return make


def chosen(floats=(), held=()):
    return ImplicitChoice(frozenset(floats), frozenset(held), 1.0, BuiltEngine(b"", 0))


@pytest.fixture
def gated(graph_of, random):
    """Convolutions with SiLU between them."""
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "w"], ["a"], name="first"),
        n("Sigmoid", ["a"], ["g"], name="sigmoid"),
        n("Mul", ["a", "g"], ["s"], name="silu"),
        n("Conv", ["s", "v"], ["b"], name="second"),
        n("Relu", ["b"], ["y"], name="relu"),
    ]
    return graph_of(nodes, {"x": ["N", 16, 8, 8]}, {"y": None}, {"w": random(16, 16, 3, 3), "v": random(16, 16, 1, 1)})


def test_a_convolutional_net_is_tried_as_tensorrt_chose_first(builds, gated):
    found = builds(gated).attempts(chosen({"second"}, {"a", "x"}))
    assert [attempt.pairs for attempt in found] == [
        "on the 1 kernels that TensorRT chose and the tensors that it held in INT8",
        "on all 2 kernels and between them",
        "on all 2 kernels",
        "on the 1 kernels that TensorRT chose",
    ]
    pairs = [sum(n.op_type == "QuantizeLinear" for n in _built(builds(gated), a).graph.node) for a in found]
    assert pairs == [2, 3, 2, 1]


def _built(made, attempt):
    return qdq_model_from_amax(made.named, made.cache.amax, made.whole(attempt.placement))


def test_placements_that_come_to_the_same_are_built_once(builds, residual_net):
    made = builds(residual_net)
    assert len(made.attempts(chosen())) == 1  # the rules change nothing, and TensorRT leaves nothing in float
    assert len(made.attempts(chosen({"conv1"}))) == 2


def test_where_tensorrt_runs_nothing_in_int8_the_float_engine_is_tried_last(builds, gated):
    found = builds(gated).attempts(chosen({"first", "second"}))
    assert [attempt.placement is None for attempt in found] == [False, False, True]
    assert "FP16" in found[-1].pairs
    assert "FP32" in builds(gated, strict_int8=True).attempts(chosen({"first", "second"}))[-1].pairs


@pytest.mark.parametrize("implicit", [chosen(), chosen({"qkv"}), None])
def test_a_transformer_is_tried_with_pairs_on_results_and_never_by_the_rules(builds, transformer, implicit):
    found = builds(transformer).attempts(implicit)
    assert 1 <= len(found) <= MOST_TRIED
    assert not any(attempt.placement is not None and attempt.placement.rules for attempt in found)
    assert any(attempt.placement is not None and attempt.placement.results for attempt in found) is bool(implicit)


def test_a_release_that_cannot_choose_is_built_with_and_without_the_rules_and_fp16(builds, gated):
    plain = ["on all 2 kernels and between them", "on all 2 kernels"]
    found = [attempt.pairs for attempt in builds(gated).attempts(None)]
    assert found == [*(f"{pairs}, the rest in FP16" for pairs in plain), *plain]
    assert [attempt.pairs for attempt in builds(gated, strict_int8=True).attempts(None)] == plain


def test_small_products_stay_float_unless_there_are_no_others(builds, graph_of, random):
    n = helper.make_node
    nodes = [n("MatMul", ["x", "w"], ["h"], name="hidden"), n("MatMul", ["h", "v"], ["y"], name="classify")]
    constants = {"w": random(32, 32), "v": random(32, 10)}
    net = graph_of(nodes, {"x": ["N", 32]}, {"y": None}, constants)
    assert builds(net).float_nodes == {"classify"}
    small = graph_of(nodes, {"x": ["N", 32]}, {"y": None}, constants | {"w": random(32, 8), "v": random(8, 10)})
    assert builds(small).float_nodes == frozenset()


def test_scales_that_only_the_rules_need_may_be_missing(builds, gated):
    made = builds(gated, {"x": 1.0, "s": 1.0})  # none of "a", which a cache from elsewhere may lack
    (attempt,) = made.attempts(chosen())
    built = _built(made, attempt)
    assert {node.input[0] for node in built.graph.node if node.op_type == "QuantizeLinear"} == {"x", "s"}
