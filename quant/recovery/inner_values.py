"""The values of a model's inner tensors on some images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.onnxruntime.session import OnnxRuntimeSession

Array = NDArray[Any]
Inputs = Mapping[str, Array]


def single_images(batches: Iterable[Inputs], fixed_batch: int | None) -> Iterator[dict[str, Array]]:
    """The images of batches one by one, or in batches as large as the model requires.

    The number of a factor then belongs to a place in a tensor of a known shape, wherever the images lie in it.
    """
    step = fixed_batch or 1
    for batch in batches:
        size = len(next(array for array in batch.values() if array.ndim))
        for start in range(0, size - step + 1, step):
            yield {name: array[start : start + step] if array.ndim else array for name, array in batch.items()}


def all_values(proto: onnx.ModelProto, image: Inputs, tensors: Sequence[str]) -> dict[str, Array]:
    """The values of these tensors for one image, the inputs among them.

    Raises:
        BuildError, ModelError: The model cannot be run.
    """
    session = OnnxRuntimeSession(proto, name="model", optimize=False, also=[n for n in tensors if n not in image])
    found = with_tensors(session, image, tensors)
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


def with_tensors(session: OnnxRuntimeSession, inputs: Inputs, tensors: Iterable[str]) -> dict[str, Array]:
    """The inputs and some tensors of a session that gives them, by name."""
    wanted = [name for name in dict.fromkeys(tensors) if name not in inputs]
    values = session.run(inputs, wanted) if wanted else []  # no names would stand for all outputs
    return {**inputs, **dict(zip(wanted, values, strict=True))}
