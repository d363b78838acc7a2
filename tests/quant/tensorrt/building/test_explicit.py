"""Which of several explicit builds is kept, and which may be tried."""

import pytest

from quant.cuda.device import OutOfDeviceMemoryError
from quant.errors import BuildError
from quant.qdq.preparation import prepared_for_quantization
from quant.tensorrt.building.builder import BuiltEngine
from quant.tensorrt.building.explicit import (
    MOST_TRIED,
    Attempt,
    MadeEngine,
    TriedBuild,
    _normalizations_fit_fp16,
    fastest,
    first_as_fast,
    has_attention,
)


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
