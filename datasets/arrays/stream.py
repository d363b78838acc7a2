"""Batches of what Python code gives, each sample once and none kept: enough for calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.arrays.forms import ModelInput
from datasets.arrays.items import Item, item_from_python
from datasets.batches import Batch, repeated
from datasets.errors import SourceTypeError, UnreadableImageError
from datasets.identity import ImageIdentity
from datasets.preprocessing.interface import ImagePreprocessing

_GROUP = 64  # samples that come one by one


class NamedInputs(Protocol):
    """A batch as calibrators take it.

    Attributes:
        inputs: Arrays by input name; the first axis is the batch.
        names: Names of the samples.
    """

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]: ...  # noqa: D102 - see the class
    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102 - see the class


def model_batches(batches: Iterable[object], inputs: Sequence[ModelInput]) -> Iterator[NamedInputs]:
    """Batches of a calibrator's stream: those of a `BatchStream` as they are, and what `item_from_python` takes.

    Args:
        batches: The stream.
        inputs: The model's inputs.

    Raises:
        SourceTypeError: It gives something else, or images, which need preprocessing.
    """
    given = iter(batches)
    first = list(islice(given, 1))
    if first and _is_batch(first[0]):
        yield from first  # type: ignore[misc]  # as was just seen
        yield from given  # type: ignore[misc]
        return

    def items() -> Iterator[Item]:
        for place, each in enumerate(chain(first, given)):
            item = item_from_python(each, inputs, place)
            if item.images:
                raise SourceTypeError(
                    f"item {place}: images need preprocessing, and a calibrator's batches are the model's inputs; give "
                    "images to quant.build, or a datasets.BatchStream"
                )
            yield item.copied()

    yield from grouped(items(), _GROUP)


def _is_batch(given: object) -> bool:
    return isinstance(getattr(given, "inputs", None), Mapping) and hasattr(given, "names")


def grouped(items: Iterable[Item], size: int, most: int | None = None) -> Iterator[Batch]:
    """Items that are inputs as batches: batches as they come, single samples in groups.

    Args:
        items: Items without images.
        size: Samples of a group.
        most: Samples to take in all; None for all there are.
    """
    waiting: list[Item] = []
    count = 0
    for item in items:
        left = None if most is None else most - count
        taken = len(item) if left is None else min(len(item), left)
        count += taken
        if item.single:
            waiting.append(item)
        else:
            if waiting:
                yield _batch(waiting, count - taken)
                waiting = []
            inputs = {name: array[:taken] for name, array in item.inputs.items()}
            labels = None if item.labels is None else item.labels[:taken]
            yield _batch([Item(inputs, (), labels, False)], count)
        if len(waiting) == size:
            yield _batch(waiting, count)
            waiting = []
        if most is not None and count >= most:
            break
    if waiting:
        yield _batch(waiting, count)


def _batch(items: Sequence[Item], end: int) -> Batch:
    """Items as one batch, whose last sample is the one before `end`."""
    inputs = {
        name: items[0].inputs[name] if len(items) == 1 else np.concatenate([item.inputs[name] for item in items])
        for name in items[0].inputs
    }
    labels = [item.labels for item in items if item.labels is not None]
    start = end - sum(len(item) for item in items)
    return Batch(
        inputs,
        np.arange(start, end),
        tuple(f"#{i}" for i in range(start, end)),
        np.concatenate(labels) if len(labels) == len(items) else None,
    )


class PassingSamples:
    """Samples that pass once: batches for calibration, and afterwards what identifies them.

    Attributes:
        path: What they came from, for people.
        identities: Of the samples that have passed, by their contents, as those of a source in memory.
        labels: None: what has passed is not evaluated.
        class_names: None.
    """

    def __init__(
        self,
        what: str,
        items: Iterable[Item],
        *,
        most: int,
        batch_size: int,
        preprocessing: ImagePreprocessing | None,
        input_name: str,
        constants: Mapping[str, NDArray[Any]],
    ) -> None:
        """Nothing is read yet.

        Args:
            what: Their name for people.
            items: What Python code gives.
            most: Samples to take.
            batch_size: Samples in a batch, where they come one by one.
            preprocessing: For images; None where none are expected.
            input_name: The input that images are for.
            constants: Inputs that are the same for every sample, with a batch axis of 1.
        """
        self.path = Path(what)
        self.labels = None
        self.class_names = None
        self.identities: list[ImageIdentity] = []
        self._items = items
        self._most, self._batch_size = most, batch_size
        self._preprocessing, self._input_name, self._constants = preprocessing, input_name, constants

    @property
    def names(self) -> tuple[str, ...]:
        """The samples that have passed: #0, #1, ..."""
        return tuple(f"#{i}" for i in range(len(self.identities)))

    def __len__(self) -> int:
        return len(self.identities)

    def content(self, index: int) -> bytes:
        """Not kept.

        Raises:
            UnreadableImageError: Always.
        """
        raise UnreadableImageError(self.names[index], "it has passed and was not kept")

    def fingerprint(self, index: int) -> str:
        """The hash of the sample that has passed."""
        return f"passed-{self.identities[index].sha256}"

    def batches(self) -> Iterator[Batch]:
        """The batches, once.

        Raises:
            SourceTypeError: Something else than samples of the model comes.
        """
        for batch in grouped(self._ready(), self._batch_size, self._most):
            batch.inputs.update(repeated(self._constants, batch.size))
            yield batch

    def _ready(self) -> Iterator[Item]:
        """Items as inputs, and their identities noted."""
        for item in self._items:
            if item.images:
                if self._preprocessing is None:
                    raise SourceTypeError(f"{self.path}: expected the model's inputs as before, found an image")
                for i, image in enumerate(item.images):
                    self._note([image])
                    made = self._preprocessing.normalised(self._preprocessing.fitted(image)[np.newaxis])
                    labels = None if item.labels is None else item.labels[i : i + 1]
                    yield Item({self._input_name: made}, (), labels, True)
            else:
                for sample in item.samples():
                    self._note(list(sample.values()))
                yield item

    def _note(self, arrays: Sequence[NDArray[Any]]) -> None:
        if len(self.identities) < self._most:
            content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
            digest = hashlib.sha256(content).hexdigest()
            self.identities.append(ImageIdentity(f"#{len(self.identities)}", f"passed-{digest}", digest))
