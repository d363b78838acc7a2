"""How large the channels of quantized activations are, from some images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.onnxruntime.session import OnnxRuntimeSession
from quant.recovery.channels.walk import small
from quant.recovery.inner_values import Inputs, with_tensors

Array = NDArray[Any]


@dataclass(frozen=True)
class ChannelStatistics:
    """Magnitudes of one tensor's elements, over the images and over the axes along which no factor changes.

    Attributes:
        ids: Numbers of the factors of the elements, with length 1 along the other axes.
        amax: Largest magnitudes, activation units, the same shape.
        mean_square: Means of the squares, the same shape.
    """

    ids: NDArray[np.int64]
    amax: NDArray[np.float64]
    mean_square: NDArray[np.float64]


def channel_statistics(
    proto: onnx.ModelProto, images: Iterable[Inputs], ids: Mapping[str, NDArray[np.int64]]
) -> dict[str, ChannelStatistics]:
    """Statistics of some tensors.

    Args:
        proto: FP32 model.
        images: Inputs, an image at a time.
        ids: For each tensor, the numbers of its factors, see `quant.recovery.channels.groups`.

    Raises:
        ModelError: The model cannot be run.
    """
    amax: dict[str, Array] = {}
    squares: dict[str, Array] = {}
    count = 0
    session: OnnxRuntimeSession | None = None
    for image in images:
        session = session or OnnxRuntimeSession(proto, name="model", also=[n for n in ids if n not in image])
        found = with_tensors(session, image, ids)
        for name, numbers in ids.items():
            largest, square = _reduced(found[name], numbers)
            amax[name] = np.maximum(amax[name], largest) if count else largest
            squares[name] = squares[name] + square if count else square
        count += 1
    return {
        name: ChannelStatistics(np.array(small(ids[name])), amax[name], squares[name] / count) for name in ids if count
    }


def _reduced(values: Array, ids: NDArray[np.int64]) -> tuple[Array, Array]:
    """Largest magnitudes and means of squares over the axes along which the numbers do not change."""
    axes = tuple(axis for axis, stride in enumerate(ids.strides) if stride == 0)
    exact = np.abs(values.astype(np.float64))
    return exact.max(axis=axes, keepdims=True, initial=0), np.square(exact).mean(axis=axes, keepdims=True)
