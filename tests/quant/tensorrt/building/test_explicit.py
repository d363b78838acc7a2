"""Which of several explicit builds is kept, and which may be tried."""

import pytest

from quant.cuda.device import OutOfDeviceMemoryError
from quant.errors import BuildError
from quant.qdq.preparation import prepared_for_quantization
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.explicit import _has_attention, _normalizations_fit_fp16, _timed, fastest


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


def test_where_nothing_can_be_built_the_first_reason_is_given_and_each_is_said():
    def failing(error):
        def attempt():
            raise error

        return attempt

    notes = []
    errors = [OutOfDeviceMemoryError("full", "cudaErrorMemoryAllocation"), BuildError("no kernel")]
    with pytest.raises(OutOfDeviceMemoryError, match="full"):
        list(_timed([failing(error) for error in errors], BatchRange(1, 1, 1), notes.append))
    assert notes == ["explicit: full", "explicit: no kernel"]


def test_a_transformer_is_told_by_products_of_activations(transformer, residual_net):
    assert _has_attention(prepared_for_quantization(transformer))
    assert not _has_attention(prepared_for_quantization(residual_net))


@pytest.mark.parametrize(
    ("amax", "fits"), [({"x": 3.0, "x1": 60.0}, True), ({"x": 3.0, "x1": 65.0}, False), ({}, False)]
)
def test_normalizations_are_taken_apart_only_where_fp16_holds_the_squares(transformer, amax, fits):
    assert _normalizations_fit_fp16(transformer, amax) is fits
