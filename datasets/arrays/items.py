"""What Python code gives one after another: arrays, tensors, dicts, (array, label) pairs, as samples of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.arrays.forms import ModelInput, as_image, fit_of, in_words, is_image
from datasets.errors import SourceTypeError

_LABEL_KEYS = ("label", "labels", "target", "targets", "y")
_PIXELS = (np.uint8, np.uint16)


@dataclass(frozen=True, eq=False)
class Item:
    """One thing that an iterable gave.

    Attributes:
        inputs: Arrays by input name, the first axis is the batch; empty if these are images.
        images: Images [H, W, C] of bytes or 16 bits, which still need preprocessing; empty if these are inputs.
        labels: One number for each sample; None if there are none, or they are no numbers.
        single: Was it one sample without a batch axis?
    """

    inputs: Mapping[str, NDArray[Any]]
    images: Sequence[NDArray[Any]]
    labels: NDArray[Any] | None
    single: bool

    def __len__(self) -> int:
        return len(self.images) or len(next(iter(self.inputs.values())))

    def copied(self) -> Item:
        """The same with arrays of its own: who gives one after another may fill the same array again."""
        inputs = {name: array.copy() for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, images=[image.copy() for image in self.images])

    def samples(self) -> Iterator[dict[str, NDArray[Any]]]:
        """The inputs of each sample, without the batch axis."""
        for i in range(len(self)):
            yield {name: array[i] for name, array in self.inputs.items()}


def item_from_python(given: object, inputs: Sequence[ModelInput], place: int) -> Item:
    """Understand what an iterable gave.

    Args:
        given: An array or tensor; a dict of them by input name; a tuple or list of the arrays of all inputs in order,
            of arrays and a label, or of a dict and a label; an object with `inputs`, such as a batch of a stream.
        inputs: The model's inputs that data must provide.
        place: Which one it is, from 0, for the error.

    Raises:
        SourceTypeError: It is none of these, or does not fit the model.
    """
    values, labels = _parts(given, inputs, place)
    arrays = {name: _array(value, inputs, place) for name, value in values.items()}
    fits = {each.name: fit_of(arrays[each.name].shape, arrays[each.name].dtype, each) for each in inputs}
    kinds = set(fits.values())
    if kinds in ({"sample"}, {"batch"}):
        single = kinds == {"sample"}
        ready = {
            each.name: _as_type(arrays[each.name][np.newaxis] if single else arrays[each.name], each.dtype)
            for each in inputs
        }
        sizes = {len(array) for array in ready.values()}
        if len(sizes) == 1 and 0 not in sizes:
            return Item(ready, (), _labels(labels, sizes.pop()), single)
    elif len(inputs) == 1:
        images = _images(arrays[inputs[0].name])
        if images:
            return Item({}, images, _labels(labels, len(images)), arrays[inputs[0].name].ndim < 4)
    found = ", ".join(f"{list(array.shape)} {array.dtype}" for array in arrays.values())
    raise _misfit(inputs, place, f"found {found}")


def _parts(given: object, inputs: Sequence[ModelInput], place: int) -> tuple[dict[str, object], object]:
    """The values of the inputs by name, and the label."""
    names = [each.name for each in inputs]
    own = getattr(given, "inputs", None)
    if isinstance(own, Mapping):
        given, label = own, getattr(given, "labels", None)
    else:
        label = None
    if isinstance(given, Mapping):
        missing = [name for name in names if name not in given]
        if missing:
            keys = ", ".join(repr(key) for key in list(given)[:8])
            raise _misfit(inputs, place, f"found dict with the keys {keys}, without '{missing[0]}'")
        found = next((given[key] for key in _LABEL_KEYS if key in given and key not in names), label)
        return {name: given[name] for name in names}, found
    if isinstance(given, tuple | list):
        parts = list(given)
        if len(parts) == 2 and isinstance(parts[0], Mapping | tuple | list):
            return _parts(parts[0], inputs, place)[0], parts[1]
        if len(parts) == len(names) + 1:
            return dict(zip(names, parts, strict=False)), parts[-1]
        if len(parts) == len(names):
            return dict(zip(names, parts, strict=True)), None
        raise _misfit(inputs, place, f"found {type(given).__name__} of {len(parts)}")
    if len(names) != 1:
        raise _misfit(inputs, place, f"found {type(given).__name__} alone, for {len(names)} inputs")
    return {names[0]: given}, None


def _array(value: object, inputs: Sequence[ModelInput], place: int) -> NDArray[Any]:
    """An array out of an array, a tensor of any framework, or a Pillow image."""
    if hasattr(value, "detach"):  # a tensor of PyTorch, which may be on a GPU and part of a graph
        value = value.detach().cpu()
    if not any(hasattr(value, way) for way in ("__array__", "__array_interface__")):
        raise _misfit(inputs, place, f"found {_kind(value)}")
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _misfit(inputs, place, f"found {_kind(value)} that is no array: {error!s:.100}") from error
    if found.dtype.kind not in "biuf":
        raise _misfit(inputs, place, f"found an array of {found.dtype}")
    return found


def _kind(value: object) -> str:
    shown = f" {str(value)!r:.60}" if isinstance(value, str | Path) else ""
    return f"{type(value).__name__}{shown}"


def _images(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Images of bytes or 16 bits, alone or in a batch; none if it is something else."""
    if array.dtype not in _PIXELS:
        return []
    if is_image(array.shape, array.dtype):
        return [as_image(array)]
    if array.ndim == 4 and is_image(array.shape[1:], array.dtype):
        return [as_image(each) for each in array]
    return []


def _as_type(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    converted: NDArray[Any] = array.astype(dtype, copy=False)
    return converted


def _labels(given: object, count: int) -> NDArray[Any] | None:
    """One number for each sample; None if they are none."""
    if given is None:
        return None
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        found = np.atleast_1d(np.asarray(given))
    except (TypeError, ValueError, RuntimeError):  # lists of boxes, say
        return None
    if found.shape != (count,) or found.dtype.kind not in "biuf":
        return None
    return found.astype(np.float64 if found.dtype.kind == "f" else np.int64)


def _misfit(inputs: Sequence[ModelInput], place: int, found: str) -> SourceTypeError:
    others = "; or uint8 images [H, W, C]" if len(inputs) == 1 else ""
    return SourceTypeError(
        f"item {place}: expected {in_words(inputs)} as an array or tensor, with or without the batch axis, in a dict "
        f"by input name, or with a label in a tuple{others}; {found}"
    )
