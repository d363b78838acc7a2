"""Data from Python as sources: lists and arrays as they are, what is iterable as far as memory allows."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.arrays.forms import ModelInput, in_words
from datasets.arrays.items import Item, item_from_python
from datasets.decoding import Wanted
from datasets.errors import DatasetError, SourceTypeError
from datasets.image_folder import ImageFolder
from datasets.preprocessing.values import brought_to_8_bits, with_channels
from datasets.source import AnySource, ImageSource, TensorSource

_NEEDS = {
    ImageSource: ("path", "names", "labels", "class_names", "__len__", "content", "fingerprint", "read"),
    TensorSource: ("path", "names", "labels", "class_names", "__len__", "content", "fingerprint", "inputs", "load"),
}


class _InMemory(ABC):
    """Samples in memory, called #0, #1, ..."""

    def __init__(self, what: str, labels: NDArray[Any] | None, count: int) -> None:
        self.path = Path(what)
        self.names = tuple(f"#{i}" for i in range(count))
        self.labels = labels
        self.class_names: tuple[str, ...] | None = None
        self._digests: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes of a sample."""

    def fingerprint(self, index: int) -> str:
        """A hash of the sample, which need not be read."""
        if index not in self._digests:
            self._digests[index] = hashlib.sha256(self.content(index)).hexdigest()
        return f"memory-{self._digests[index]}"


class MemoryInputs(_InMemory):
    """A model's inputs in memory.

    Attributes:
        inputs: Names of the inputs.
    """

    def __init__(
        self, what: str, samples: Sequence[dict[str, NDArray[Any]]], labels: NDArray[Any] | None, inputs: Sequence[str]
    ) -> None:
        super().__init__(what, labels, len(samples))
        self.inputs = tuple(inputs)
        self._samples = samples

    def load(self, index: int) -> dict[str, NDArray[np.generic]]:
        """One sample: arrays without a batch axis, by input name."""
        return self._samples[index]

    def content(self, index: int) -> bytes:
        """The bytes of a sample's arrays, one after another."""
        return b"".join(np.ascontiguousarray(array).tobytes() for array in self._samples[index].values())


class MemoryImages(_InMemory):
    """Images in memory, [H, W, C] of bytes or 16 bits."""

    def __init__(self, what: str, images: Sequence[NDArray[Any]], labels: NDArray[Any] | None) -> None:
        super().__init__(what, labels, len(images))
        self._images = images

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3] RGB."""
        shown: NDArray[np.uint8] = np.rint(with_channels(brought_to_8_bits(self._images[index], None), "rgb"))
        return shown.astype(np.uint8)

    def read_pixels(self, index: int, wanted: Wanted) -> NDArray[Any]:
        """The image as it is; nothing is left out, whatever is wanted."""
        return self._images[index]

    def lacks_range(self, index: int) -> bool:
        """Are its numbers no bytes?"""
        return self._images[index].dtype != np.uint8

    def content(self, index: int) -> bytes:
        """The bytes of the pixels."""
        return np.ascontiguousarray(self._images[index]).tobytes()


def is_source(given: object) -> bool:
    """Is this a source of its own right, see `datasets.source`?"""
    return isinstance(given, ImageSource | TensorSource)


def in_memory(given: object, inputs: Sequence[ModelInput], most_bytes: int | None = None) -> AnySource:
    """Data from Python as a source with samples in any order.

    Lists, tuples and arrays are taken as they are. Of anything else that is iterable, everything is read once and kept.

    Args:
        given: Paths of images, or what `items_of` takes.
        inputs: The model's inputs that data must provide.
        most_bytes: How much may be kept of what is no list or array; None for any amount.

    Raises:
        SourceTypeError: It is nothing that data can be taken from.
        DatasetError: It is empty, or more than may be kept.
    """
    paths, items = items_of(given, inputs)
    if paths is not None:
        return paths
    limit = None if _is_in_memory(given) else most_bytes
    kept: list[Item] = []
    held = 0
    for item in items:
        kept.append(item)
        held += sum(array.nbytes for array in (*item.inputs.values(), *item.images))
        if limit is not None and held > limit:
            raise DatasetError(
                f"{type(given).__name__}: gives more than {limit / 10**6:,.0f} MB, and samples are needed several "
                "times; give a folder, a list of paths, or a source with samples by index (docs/python.md)"
            )
    return source_of_items(kept, inputs, type(given).__name__)


def source_of_items(items: Sequence[Item], inputs: Sequence[ModelInput], what: str) -> MemoryInputs | MemoryImages:
    """Items as a source; `what` is its name for people.

    Raises:
        DatasetError: There are none, or both images and inputs.
    """
    if not items:
        raise DatasetError(f"{what}: gives no samples; expected at least one (a generator can be used once)")
    if len({bool(item.images) for item in items}) > 1:
        raise SourceTypeError(f"{what}: expected images or the model's inputs, found both")
    labels = [item.labels for item in items]
    known = [each for each in labels if each is not None]
    joined = np.concatenate(known) if len(known) == len(labels) else None
    if items[0].images:
        return MemoryImages(what, [image for item in items for image in item.images], joined)
    samples = [sample for item in items for sample in item.samples()]
    return MemoryInputs(what, samples, joined, [each.name for each in inputs])


def items_of(given: object, inputs: Sequence[ModelInput]) -> tuple[ImageFolder | None, Iterator[Item]]:
    """What Python code gives, one after another; or the images whose paths it gives.

    Args:
        given: An iterable, such as a DataLoader, a list or a generator, of what `item_from_python` takes; a map-style
            data set, with `__getitem__` and `__len__`; one array or dict, which is a batch; an iterable of paths.
        inputs: The model's inputs that data must provide.

    Raises:
        SourceTypeError: It is none of these.
    """
    found = iter(_each(given, inputs))
    first = list(islice(found, 1))
    if first and isinstance(first[0], str | Path):
        return _images_at([*first, *found]), iter(())
    items = (item_from_python(each, inputs, place) for place, each in enumerate(chain(first, found)))
    return None, items if _is_in_memory(given) else (item.copied() for item in items)


def _is_in_memory(given: object) -> bool:
    return isinstance(given, list | tuple | np.ndarray | Mapping) or hasattr(given, "detach")


def _each(given: object, inputs: Sequence[ModelInput]) -> Iterable[object]:
    if isinstance(given, np.ndarray | Mapping) or hasattr(given, "detach"):
        return [given]
    if isinstance(given, str | bytes):
        raise SourceTypeError(_not_data(given, inputs))
    if isinstance(given, Iterable):
        return given
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return (given[i] for i in range(len(given)))
    raise SourceTypeError(_not_data(given, inputs))


def _not_data(given: object, inputs: Sequence[ModelInput]) -> str:
    missing = min(([n for n in names if not hasattr(given, n)] for names in _NEEDS.values()), key=len)
    near = f" (as a source of its own it lacks {', '.join(missing)})" if 0 < len(missing) < 5 else ""
    return (
        f"data: expected a folder or pack, a list of paths, a DataLoader or another iterable of arrays, tensors, dicts "
        f"or (array, label) pairs for {in_words(inputs)}, or a source (docs/python.md), found "
        f"{type(given).__name__}{near}"
    )


def _images_at(paths: Sequence[object]) -> ImageFolder:
    """The images at these paths, in their order."""
    wrong = next((path for path in paths if not isinstance(path, str | Path)), None)
    if wrong is not None:
        raise SourceTypeError(f"data: expected paths of images alone, found {type(wrong).__name__} among them")
    files = [os.path.abspath(str(path)) for path in paths]  # noqa: PTH100 - links stay as they are
    folder = Path(os.path.commonpath([os.path.dirname(file) for file in files]))  # noqa: PTH120
    names = [Path(os.path.relpath(file, folder)).as_posix() for file in files]
    if len(set(names)) < len(names):
        raise DatasetError(f"{folder}: expected each path once, found {len(names)} paths of {len(set(names))} images")
    return ImageFolder(folder, names=names, unlabelled=True)
