"""Inputs that are the same for every image, such as the size that boxes refer to: `--input NAME=VALUE`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import SettingsError
from quant.onnx_graph.model import TensorInfo

_MOST_VALUES = 1 << 24


def constants_from_texts(texts: Sequence[str], inputs: Sequence[TensorInfo]) -> dict[str, NDArray[Any]]:
    """The constant inputs for one image: an array with a batch axis of 1 each, or a scalar of an input without axes.

    Args:
        texts: NAME=VALUE, the value as JSON: a number, or lists of numbers.
        inputs: The model's inputs.

    Raises:
        SettingsError: A text has another form, names no input or the only one, or the value does not fit the input.
    """
    found: dict[str, NDArray[Any]] = {}
    known = {info.name: info for info in inputs}
    for text in texts:
        name, value = _parsed(text)
        if name not in known:
            raise SettingsError(f"input: expected one of the model's inputs ({', '.join(known)}), found '{name}'")
        if name in found:
            raise SettingsError(f"input: '{name}' is given twice; leave one of them out")
        found[name] = _for_one_image(known[name], value)
    if inputs and len(found) == len(inputs):
        raise SettingsError(
            f"input: expected values of all inputs but the images', found all {len(inputs)}; leave that one out"
        )
    return found


def check_batch_axes(constants: Collection[str], inputs: Sequence[TensorInfo], batch_size: int) -> None:
    """Check that constant inputs can have a row for each image of a batch.

    Args:
        constants: Their names.
        inputs: The model's inputs.
        batch_size: Images in a batch.

    Raises:
        SettingsError: The first axis of one is 1, and that of the images is not: it is not the batch axis.
    """
    batches = {info.shape[0] for info in inputs if info.shape and info.name not in constants}
    for info in inputs:
        if batch_size > 1 and info.name in constants and info.shape and info.shape[0] == 1 and 1 not in batches:
            raise SettingsError(
                f"input: '{info.name}' takes {list(info.shape)}, which has no axis for the images of a batch; make it "
                "a constant (an initializer) of the model, export it with that axis, or give --batch-size 1"
            )


def _parsed(text: str) -> tuple[str, NDArray[Any]]:
    name, separator, value = text.partition("=")
    try:
        array = np.array(json.loads(value)) if separator and name.strip() else None
    except (ValueError, RecursionError):
        array = None
    if array is None or array.dtype.kind not in "biuf" or not 0 < array.size <= _MOST_VALUES:
        raise SettingsError(f"input: expected NAME=VALUE such as orig_size=[640,640], found '{text:.80}'")
    return name.strip(), array


def _for_one_image(info: TensorInfo, value: NDArray[Any]) -> NDArray[Any]:
    """A value as one image has it; a value that has the batch axis too must have one row."""
    shape = info.shape[1:]
    given = value[0] if value.ndim == len(info.shape) and value.ndim and value.shape[0] == 1 else value
    fits = given.ndim == len(shape) and all(
        not isinstance(side, int) or side == found for side, found in zip(shape, given.shape, strict=True)
    )
    with np.errstate(all="ignore"):  # what does not fit is told below
        cast = given.astype(info.dtype) if np.dtype(info.dtype).kind in "biuf" else given
        same = np.isfinite(cast).all() if cast.dtype.kind == "f" else np.array_equal(cast, given)
    if not fits or not same:
        sides = ", ".join(str(side) if isinstance(side, int) else "?" for side in shape)
        raise SettingsError(
            f"input: '{info.name}' takes [{sides}] of {info.dtype} for an image, found {json.dumps(value.tolist()):.60}"
        )
    return cast[np.newaxis] if info.shape else cast


def image_input(inputs: Sequence[TensorInfo], constants: Mapping[str, NDArray[Any]]) -> TensorInfo | None:
    """The input that images are for: the only one that is no constant; None where there are several."""
    left = [info for info in inputs if info.name not in constants]
    return left[0] if len(left) == 1 else None
