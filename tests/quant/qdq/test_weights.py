import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quant.qdq.weights import quantize_weights


def test_values_and_scales_by_hand():
    # Row 0: step 1, ties to even. Row 1: step 2. Row 2: all zero.
    weights = np.array([[127, 0.5, 1.5, -2.5, -126.6], [-254, 1, 3, 100, 253], [0, 0, -0.0, 0, 0]], np.float32)
    quantized = quantize_weights(weights, axis=0)
    assert quantized.values.tolist() == [[127, 0, 2, -2, -127], [-127, 0, 2, 50, 126], [0, 0, 0, 0, 0]]
    assert quantized.values.dtype == np.int8
    assert quantized.scales.tolist() == [1, 2, 1]
    assert quantized.scales.dtype == np.float32
    assert quantized.axis == 0


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_each_channel_of_the_axis_has_its_own_scale(axis):
    weights = np.ones((2, 3, 4, 5), np.float32)
    sizes = np.arange(1, weights.shape[axis] + 1, dtype=np.float32)
    weights *= 127 * sizes.reshape([-1 if i == axis else 1 for i in range(4)])
    quantized = quantize_weights(weights, axis)
    assert quantized.scales.tolist() == sizes.tolist()
    assert (quantized.values == 127).all()


def test_the_weights_are_not_edited():
    weights = np.array([[1.0, -3.0]], np.float32)
    quantize_weights(weights, 0)
    assert weights.tolist() == [[1.0, -3.0]]


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.floats(-1e3, 1e3, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    st.data(),
)
def test_the_error_is_at_most_half_a_step(weights, data):
    axis = data.draw(st.integers(0, weights.ndim - 1))
    quantized = quantize_weights(weights, axis)
    assert (quantized.scales > 0).all()
    assert np.isfinite(quantized.scales).all()
    assert np.abs(quantized.values.astype(int)).max() <= 127
    shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
    scales = quantized.scales.astype(np.float64).reshape(shape)
    errors = np.abs(weights.astype(np.float64) - quantized.values * scales)
    assert (errors <= scales / 2 * (1 + 1e-4)).all()


def test_one_scale_for_all_where_there_is_no_axis():
    quantized = quantize_weights(np.array([[[127.0, 1.0]], [[-254.0, 3.0]]], np.float32), None)
    assert (quantized.scales.tolist(), quantized.scales.shape, quantized.axis) == (2.0, (), None)
    assert quantized.values.reshape(-1).tolist() == [64, 0, -127, 2]  # 63.5 and 0.5 are ties, 1.5 too: to even


def test_scales_are_at_least_the_floors_and_others_stay():
    weights = np.array([[127.0, -127.0], [1e-9, 1e-9], [0.0, 0.0]], np.float32)
    quantized = quantize_weights(weights, 0, np.array([0.5, 2.0, 8.0]))
    assert quantized.scales[0] == 1
    assert (quantized.scales[1:] >= [2, 8]).all()
    np.testing.assert_allclose(quantized.scales[1:], [2, 8], rtol=1e-6)
    assert quantized.values.tolist() == [[127, -127], [0, 0], [0, 0]]


@given(st.floats(1e-12, 1e12), st.floats(1e-9, 1e3))
def test_a_floor_that_float32_does_not_hold_is_rounded_up(floor, largest):
    scales = quantize_weights(np.full((1, 2), largest, np.float32), 0, np.array([floor])).scales
    assert float(scales[0]) >= floor
