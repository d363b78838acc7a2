"""INT8 weights: symmetric, with one scale for each output channel and zero point 0."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.onnx_graph.light_model import blocks, cut_axis

LIMIT = 127  # the grid is -127..127: it is symmetric, so -128 is not used


@dataclass(frozen=True)
class QuantizedWeights:
    """INT8 weights.

    Attributes:
        values: int8, the shape of the float weights.
        scales: float32 [channels], all positive; weight = value * scale.
        axis: The axis that the scales run along; None where there is one for all.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int | None


def quantize_weights(
    weights: NDArray[np.floating], axis: int | None, floors: NDArray[np.float64] | None = None, limit: int = LIMIT
) -> QuantizedWeights:
    """Quantize weights with scale = max |w| / limit of each channel, rounding half to even.

    A channel that is zero throughout gets scale 1, because any positive scale represents it.

    Args:
        weights: Float weights, any shape.
        axis: Output axis; None for one scale.
        floors: The smallest scale of each channel.
        limit: The largest magnitude of the whole numbers.
    """
    largest = _largest(weights, axis)
    scales = np.where(largest > 0, largest / np.float32(limit), np.float32(1)).astype(np.float32)
    scales = np.maximum(scales, np.finfo(np.float32).tiny)
    if floors is not None and floors.shape == scales.shape:
        scales = np.maximum(scales, np.nextafter(floors.astype(np.float32), np.float32(np.inf)))
    shape = [1] * weights.ndim
    if axis is not None:
        shape[axis] = -1
    along = np.broadcast_to(scales.reshape(shape), weights.shape)
    values = np.empty(weights.shape, np.int8)
    for part, scale, target in blocks(weights, along, values):
        target[...] = np.clip(np.rint(part / scale), -limit, limit)
    return QuantizedWeights(values, scales, axis)


def _largest(weights: NDArray[np.floating], axis: int | None) -> NDArray[np.float32]:
    """The largest magnitude of each channel; of all values where there is no axis."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    parts = [np.abs(part.astype(np.float32, copy=False)).max(axis=others) for (part,) in blocks(weights)]
    if axis is not None and axis == cut_axis(weights):
        return np.concatenate(parts)
    return np.asarray(functools.reduce(np.maximum, parts))
