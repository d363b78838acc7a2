"""Batches of samples: decoded ahead of use in threads, in exact order, with unreadable images set aside."""

import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError, TooManyUnreadableError, UnreadableImageError
from datasets.guards.decoding_space import SPACE
from datasets.preprocessing.interface import ImagePreprocessing
from datasets.sampling import sample_indices
from datasets.source import DeepImageSource, ImageSource, TensorSource

__all__ = ["Batch", "BatchStream", "Quarantined", "sample_indices"]

# Handing work to a thread costs about as much as decoding a tiny image, so images are handed over in chunks.
_MOST_IN_CHUNK = 32
_MOST_THREADS = 16
_TINY_PIXELS = 64 * 64
_MOST_BATCH_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Quarantined:
    """An image that was left out.

    Attributes:
        file: Name of the image in the source.
        reason: Why it could not be read.
    """

    file: str
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples, ready for a model.

    Attributes:
        inputs: Arrays by model input name; the first axis is the batch.
        indices: Indices of the samples in their source, int64 [B].
        names: Names of the samples in their source.
        labels: Class indices, int64 [B], or numbers that are no classes, float64 [B]; None if the source is unlabelled.
        sizes: Height and width of the images as they were before they were resized, int64 [B, 2]; None of tensors.
    """

    inputs: dict[str, NDArray[np.generic]]
    indices: NDArray[np.int64]
    names: tuple[str, ...]
    labels: NDArray[Any] | None
    sizes: NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """What a worker made of consecutive indices: samples of the readable images in order, and the unreadable ones."""

    inputs: dict[str, NDArray[np.generic] | Sequence[NDArray[np.generic]]]
    indices: list[int]
    bad: list[Quarantined]
    sizes: list[tuple[int, int]] | None = None


class BatchStream:
    """Batches of a source's samples, in the order of `indices` whatever the number of threads.

    Every `iter()` starts from the beginning. An unreadable image is skipped and recorded, and the next image takes its
    place, so that only the last batch can be smaller. About `prefetch` batches at most are held ahead of use. Leaving
    a loop early stops the threads.

    Attributes:
        source: Where the samples come from.
        indices: Indices of the samples in the source, int64, in stream order.
        batch_size: Number of samples in every batch but the last.
    """

    def __init__(
        self,
        source: ImageSource | TensorSource,
        indices: NDArray[np.int64] | Sequence[int] | None = None,
        *,
        preprocessing: ImagePreprocessing | None = None,
        batch_size: int = 64,
        input_name: str = "input",
        threads: int | None = None,
        prefetch: int = 2,
        max_bad: float = 0.05,
        constants: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Prepare a stream; nothing is read yet.

        Args:
            source: An image or tensor source.
            indices: Which samples to take, and in which order; None for all of them in the source's order.
            preprocessing: Preprocessing bound to the model input; None leaves images as uint8 [H, W, 3], which must
                all have the same size.
            batch_size: Number of samples in a batch.
            input_name: The model input that images are for; a tensor pack names its own inputs.
            threads: Number of decoding threads; None for one per processor that this process may use, at most 16.
            prefetch: Number of batches to decode ahead.
            max_bad: Largest accepted share (0..1) of unreadable images.
            constants: Inputs that are the same for every sample, by name, with a batch axis of 1; one without axes is
                the same for a batch.

        Raises:
            DatasetError: An argument is out of range, there are no samples, or the preprocessing is not bound or the
                source does not hold images.
        """
        self.source = source
        self.indices = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64).copy()
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.input_name = input_name
        self.threads = min(_MOST_THREADS, _usable_processors()) if threads is None else threads
        self.prefetch = prefetch
        self.max_bad = max_bad
        self.constants = dict(constants or {})
        self._bad: list[Quarantined] = []
        self._deep = source if isinstance(source, DeepImageSource) else None
        self._tiny = False
        self._turn = threading.Lock()
        self._check_arguments()

    def part(self, start: int, stop: int, *, threads: int | None = None) -> "BatchStream":
        """A stream of the samples at these places, all of which may be unreadable; see `set_aside`."""
        return BatchStream(
            self.source,
            self.indices[start:stop],
            preprocessing=self.preprocessing,
            batch_size=self.batch_size,
            input_name=self.input_name,
            threads=threads,
            prefetch=self.prefetch,
            max_bad=1.0,
            constants=self.constants,
        )

    def set_aside(self, found: Iterable[Quarantined]) -> None:
        """Take over which images streams of its parts found to be unreadable, in their order.

        Raises:
            TooManyUnreadableError: They are more than `max_bad` of the images, or all.
        """
        self._bad = list(found)
        self._check_bad(self._bad)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _turn=threading.Lock())

    def _check_arguments(self) -> None:
        for name in ("batch_size", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise DatasetError(f"{name}: expected 1 or more, found {getattr(self, name)}")
        if not 0 <= self.max_bad <= 1:
            raise DatasetError(f"max_bad: expected a share from 0 to 1, found {self.max_bad}")
        if self.indices.ndim != 1 or not self.images:
            raise DatasetError(f"{self.source.path}: no samples to stream; expected at least one index")
        if self.indices.min() < 0 or self.indices.max() >= len(self.source):
            raise DatasetError(f"{self.source.path}: indices must lie in 0..{len(self.source) - 1}")
        if self.preprocessing is not None:
            if not isinstance(self.source, ImageSource):
                raise DatasetError(f"{self.source.path}: holds ready model inputs; preprocessing is for images only")
            if not self.preprocessing.is_bound:
                raise DatasetError(f"preprocessing {self.preprocessing.name!r} is not bound to a model input")
            values = math.prod(self.preprocessing.sample_shape)
            self._check_sample_bytes(values * np.dtype(self.preprocessing.dtype).itemsize)

    def _check_sample_bytes(self, sample: int) -> None:
        """Check that a batch of samples of this size, of which several are held at a time, is not too large."""
        size = min(self.batch_size, self.images)
        if size * sample > _MOST_BATCH_BYTES:
            most = _MOST_BATCH_BYTES // sample
            advice = f"use a --batch-size of at most {most}" if most else "use smaller samples"
            raise DatasetError(
                f"{self.source.path}: {size} samples of {sample / 2**20:,.0f} MiB are more than the "
                f"{_MOST_BATCH_BYTES / 2**30:g} GiB that a batch may have; {advice}"
            )

    @property
    def images(self) -> int:
        """Number of samples asked for, including unreadable ones."""
        return len(self.indices)

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """The unreadable images found so far in the latest iteration, in stream order."""
        return tuple(self._bad)

    def __len__(self) -> int:
        """Number of batches if every image is readable."""
        return (self.images + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Start from the beginning.

        Raises:
            TooManyUnreadableError: More than `max_bad` of the images have turned out to be unreadable.
            DatasetError: The size of an image does not fit.
        """
        self._bad = []
        return self._batches(self._bad)

    def _batches(self, bad: list[Quarantined]) -> Iterator[Batch]:
        assembler = _Assembler(self.source, min(self.batch_size, self.images), self.constants)
        for chunk in self._chunks():
            bad.extend(chunk.bad)
            self._check_bad(bad)
            yield from assembler.full_batches(chunk)
        yield from assembler.last_batch()

    def _check_bad(self, bad: Sequence[Quarantined]) -> None:
        if len(bad) > self.max_bad * self.images:
            raise TooManyUnreadableError(
                f"{len(bad)} of {self.images} images are unreadable, more than --max-bad {self.max_bad:g} allows; "
                f"the first is {bad[0].file}: {bad[0].reason}"
            )
        if len(bad) == self.images:
            raise TooManyUnreadableError(
                f"none of the {self.images} images is readable; the first is {bad[0].file}: {bad[0].reason}"
            )

    def _chunks(self) -> Iterator[_Chunk]:
        """Chunks in order, decoded in threads; the threads are stopped however the iteration ends."""
        ahead = self.batch_size * self.prefetch
        length = max(1, min(_MOST_IN_CHUNK, ahead // self.threads))
        parts = iter([self.indices[at : at + length].tolist() for at in range(0, self.images, length)])
        stop = threading.Event()
        executor = ThreadPoolExecutor(self.threads, thread_name_prefix="datasets-decode")
        try:
            pending: deque[Future[_Chunk]] = deque()
            for part in islice(parts, max(self.threads, ahead // length)):
                pending.append(executor.submit(self._decode, part, stop))
            while pending:
                chunk = pending.popleft().result()
                pending.extend(executor.submit(self._decode, part, stop) for part in islice(parts, 1))
                yield chunk
        finally:
            stop.set()
            executor.shutdown(wait=True, cancel_futures=True)

    def _decode(self, indices: list[int], stop: threading.Event) -> _Chunk:
        """Decode a chunk in a worker thread; once `stop` is set nobody reads the result, so it may be partial."""
        if isinstance(self.source, ImageSource):
            # Tiny images cost mostly interpreter time, and threads that compete for the interpreter lose a third of it.
            with self._turn if self._tiny else nullcontext():
                return self._decode_images(self.source, indices, stop)
        samples = []
        for index in indices:
            if stop.is_set():
                break
            samples.append(self.source.load(index))
            self._check_sample_bytes(sum(array.nbytes for array in samples[-1].values()))
        return _Chunk({name: [sample[name] for sample in samples] for name in self.source.inputs}, indices, [])

    def _decode_images(self, source: ImageSource, indices: list[int], stop: threading.Event) -> _Chunk:
        images: list[NDArray[Any]] = []
        readable: list[int] = []
        bad: list[Quarantined] = []
        sizes: list[tuple[int, int]] = []
        for index in indices:
            if stop.is_set():
                break
            try:
                with SPACE.turn():  # until the image is resized: what was decoded takes as much space as decoding it
                    image, size = self._fitted(source, index)
            except UnreadableImageError as error:
                bad.append(Quarantined(error.file, error.reason))
                continue
            images.append(image)
            sizes.append(size)
            readable.append(index)
        self._tiny = bool(sizes) and math.prod(sizes[0]) <= _TINY_PIXELS  # as stored: fitting large ones takes time too
        if self.preprocessing is None or not images:
            return _Chunk({self.input_name: images}, readable, bad, sizes)
        return _Chunk({self.input_name: self.preprocessing.normalised(np.stack(images))}, readable, bad, sizes)

    def _fitted(self, source: ImageSource, index: int) -> tuple[NDArray[Any], tuple[int, int]]:
        """An image at the model's size, and the height and width that it had before."""
        if self.preprocessing is None:
            image = source.read(index)
            return image, (image.shape[0], image.shape[1])
        image = source.read(index) if self._deep is None else self._deep.read_pixels(index, self.preprocessing.wanted)
        size = image.shape[0], image.shape[1]
        try:
            return self.preprocessing.fitted(image), size
        except DatasetError as error:
            raise DatasetError(f"{source.names[index]}: {error}") from None


def _usable_processors() -> int:
    """The processors that this process may use; like `calib.processors`, which this package must not import."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def repeated(constants: Mapping[str, NDArray[Any]], images: int) -> dict[str, NDArray[Any]]:
    """Constant inputs for so many images: those with a batch axis of 1 have a row for each."""
    return {name: np.repeat(value, images, axis=0) if value.ndim else value for name, value in constants.items()}


class _Assembler:
    """Fills batches from chunks of any length."""

    def __init__(
        self, source: ImageSource | TensorSource, batch_size: int, constants: Mapping[str, NDArray[Any]]
    ) -> None:
        self._source = source
        self._constants = constants
        self._batch_size = batch_size
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._indices: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._first_name = ""

    def full_batches(self, chunk: _Chunk) -> Iterator[Batch]:
        """Add a chunk and yield the batches that it completes."""
        at = 0
        while at < len(chunk.indices):
            taken = min(self._batch_size - len(self._indices), len(chunk.indices) - at)
            self._take(chunk, at, at + taken)
            at += taken
            if len(self._indices) == self._batch_size:
                yield self._batch()

    def last_batch(self) -> Iterator[Batch]:
        """Yield the samples that are left over, if any."""
        if self._indices:
            yield self._batch()

    def _take(self, chunk: _Chunk, start: int, end: int) -> None:
        filled = len(self._indices)
        self._first_name = self._first_name or self._source.names[chunk.indices[start]]
        for name, samples in chunk.inputs.items():
            if name not in self._arrays:
                self._arrays[name] = np.empty((self._batch_size, *samples[start].shape), samples[start].dtype)
            target = self._arrays[name]
            if isinstance(samples, np.ndarray):
                target[filled : filled + end - start] = samples[start:end]
                continue
            for place, index in enumerate(range(start, end), start=filled):
                if samples[index].shape != target.shape[1:]:
                    raise self._size_error(chunk.indices[index], samples[index].shape, target.shape[1:])
                target[place] = samples[index]
        self._indices.extend(chunk.indices[start:end])
        self._sizes.extend((chunk.sizes or [])[start:end])

    def _batch(self) -> Batch:
        count = len(self._indices)
        indices = np.array(self._indices, np.int64)
        inputs = {name: array[:count] for name, array in self._arrays.items()}
        inputs.update(repeated(self._constants, count))
        labels = None if self._source.labels is None else self._source.labels[indices]
        sizes = np.array(self._sizes, np.int64) if self._sizes else None
        batch = Batch(inputs, indices, tuple(self._source.names[index] for index in self._indices), labels, sizes)
        # The next batch gets new arrays, because this one belongs to its receiver. They keep the same shape.
        self._arrays = {name: np.empty_like(array) for name, array in self._arrays.items()}
        self._indices, self._sizes = [], []
        return batch

    def _size_error(self, index: int, found: tuple[int, ...], expected: tuple[int, ...]) -> DatasetError:
        return DatasetError(
            f"{self._source.names[index]}: {found[0]} x {found[1]} pixels (height x width), but {self._first_name} has "
            f"{expected[0]} x {expected[1]}; give one size to resize all images to (--size)"
        )
