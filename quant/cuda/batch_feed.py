"""A calibrator's batches in GPU memory, decoded and copied one batch ahead of the one in use.

A separate thread takes batches from the calibrator, fills pinned memory and queues the copy to one of two sets of
device buffers, on its own CUDA stream, while TensorRT runs the other set. This module does not need TensorRT.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.calibrator import CalibrationBatch
from calib.errors import CalibrationError, NonFiniteError
from calib.interrupts import heed_interrupt
from datasets.arrays.stream import model_batches
from quant.cuda.device import DeviceBuffer, Event, PinnedBuffer, Stream, synchronize, use_device

_SLOTS = 2


@dataclass(frozen=True)
class FeedInput:
    """An input of the network used for calibration.

    Attributes:
        name: Its name.
        shape: Its shape, batch first.
        dtype: NumPy's name of its type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass
class FeedFigures:
    """Figures of the feeding.

    Attributes:
        images: Images fed, without those that fill up the last batch.
        batches: Batches fed.
        filled_up: Images repeated to fill the last batch.
        decode_seconds: Time that the thread spent waiting for batches and copying them into pinned memory.
        copy_seconds: Time of the copies to the GPU.
        waited_seconds: Time that TensorRT waited for a batch.
    """

    images: int = 0
    batches: int = 0
    filled_up: int = 0
    decode_seconds: float = 0.0
    copy_seconds: float = 0.0
    waited_seconds: float = 0.0


class _Slot:
    """Pinned and device buffers of all inputs for one batch."""

    def __init__(self, inputs: Sequence[FeedInput], stack: contextlib.ExitStack) -> None:
        self.host = {i.name: stack.enter_context(PinnedBuffer(i.shape, i.dtype)) for i in inputs}
        self.device = {i.name: stack.enter_context(DeviceBuffer(self.host[i.name].bytes)) for i in inputs}
        self.started: Event = stack.enter_context(Event())
        self.copied: Event = stack.enter_context(Event())
        self.names: Sequence[str] = ()
        self.copies = 0

    @property
    def images(self) -> int:
        return len(self.names)

    def copy(self, stream: Stream) -> None:
        self.started.record(stream)
        for name, buffer in self.host.items():
            stream.copy_to_device(self.device[name], buffer)
        self.copied.record(stream)
        self.copies += 1

    def copy_seconds(self) -> float:
        self.copied.synchronize()
        return self.copied.milliseconds_since(self.started) / 1000


class CalibrationFeed:
    """Feeds a calibrator's batches; a context manager that frees everything at its end, even after an error.

    Attributes:
        error: The error that stopped the feeding; None if there was none. `next` never raises: it reports that there
            are no more batches, and the caller that runs the build raises this error afterwards.
        figures: What has been fed so far.
    """

    def __init__(
        self, batches: Iterable[Any], inputs: Sequence[FeedInput], advance: Callable[[int], None] | None = None
    ) -> None:
        """Prepare buffers.

        Args:
            batches: A calibrator, or the batches of one; they are fed, from the first.
            inputs: The network's inputs, all with the same batch size.
            advance: Called with the number of images of each batch that is fed.

        Raises:
            OutOfDeviceMemoryError: The buffers do not fit.
        """
        self.error: BaseException | None = None
        self.figures = FeedFigures()
        self._batches, self._inputs, self._advance = batches, tuple(inputs), advance
        self.batch = self._inputs[0].shape[0]
        self._stopped = threading.Event()
        self._free: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        self._current: _Slot | None = None
        self._abandoned = False
        use_device()
        with contextlib.ExitStack() as stack:
            self._stream: Stream = stack.enter_context(Stream())
            slots = [_Slot(self._inputs, stack) for _ in range(_SLOTS)]
            self._resources = stack.pop_all()
        for slot in slots:
            self._free.put(slot)
        self._thread = threading.Thread(target=self._produce, name="calibration-feed", daemon=True)
        self._thread.start()

    @property
    def names(self) -> Sequence[str]:
        """The images of the batch that `next` gave."""
        return self._current.names if self._current is not None else ()

    def next(self, names: Sequence[str]) -> list[int] | None:
        """Device addresses of the next batch, in the order of `names`; None when there is none, or after an error.

        The addresses stay valid until the next call.
        """
        try:
            return self._next(names)
        except BaseException as error:  # noqa: BLE001 - stored, and raised after the build
            self.stop(error)
            return None

    def _next(self, names: Sequence[str]) -> list[int] | None:
        if self._current is not None:
            # TensorRT does not say when it has read a buffer; once the GPU is idle it has.
            synchronize()
            self._free.put(self._current)
            self._current = None
        start = time.perf_counter()
        slot = None if self._stopped.is_set() else self._ready.get()
        self.figures.waited_seconds += time.perf_counter() - start
        if slot is None or self._stopped.is_set():
            self._stopped.set()  # TensorRT may ask again after the end
            return None
        self.figures.copy_seconds += slot.copy_seconds()
        self.figures.batches += 1
        self.figures.images += slot.images
        self.figures.filled_up += self.batch - slot.images
        self._current = slot
        missing = [name for name in names if name not in slot.device]
        if missing:
            raise CalibrationError(f"TensorRT asks for input '{missing[0]}', expected {', '.join(slot.device)}")
        if self._advance is not None:
            self._advance(slot.images)
        return [slot.device[name].pointer for name in names]

    def stop(self, error: BaseException | None = None) -> None:
        """Feed nothing more; the first error is kept."""
        if error is not None and self.error is None:
            self.error = error
        self._stopped.set()
        self._free.put(None)
        self._ready.put(None)

    def abandon(self) -> None:
        """Feed nothing more, and free no memory before the process ends: a build still running may read it."""
        self._abandoned = True
        self.stop()

    def close(self) -> None:
        """Stop the thread and free all memory."""
        self.stop()
        if self._abandoned:
            return
        while self._thread.is_alive():  # a source that hangs must not hold up Ctrl-C
            self._thread.join(0.2)
            heed_interrupt()
        with contextlib.suppress(Exception):  # buffers are freed whatever state the GPU is in
            synchronize()
        self._current = None
        self._resources.close()

    def __enter__(self) -> CalibrationFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _produce(self) -> None:
        """The thread's work: put one batch after another into a free slot."""
        try:
            use_device()
            batches = model_batches(self._batches, self._inputs)
            with contextlib.ExitStack() as stack:
                if hasattr(batches, "close"):
                    stack.callback(batches.close)
                self._produce_from(batches)
        except BaseException as error:  # noqa: BLE001 - stored, and raised after the build
            self.stop(error)
        self._ready.put(None)

    def _produce_from(self, batches: Iterator[CalibrationBatch]) -> None:
        pieces = _pieces(batches, self.batch)
        while not self._stopped.is_set():
            slot = self._free.get()
            if slot is None:
                return
            start = time.perf_counter()
            batch = next(pieces, None)
            if batch is None or self._stopped.is_set():
                return
            fill(slot.host, batch, self._inputs)
            slot.names = batch.names
            self.figures.decode_seconds += time.perf_counter() - start
            slot.copy(self._stream)
            self._ready.put(slot)


@dataclass(frozen=True)
class _Piece:
    """Part of a batch that is larger than what the network takes."""

    inputs: Mapping[str, NDArray[Any]]
    names: Sequence[str]


def _pieces(batches: Iterator[CalibrationBatch], size: int) -> Iterator[CalibrationBatch]:
    """Cut batches that are larger than `size`: a full GPU may have halved the network's batch size."""
    for batch in batches:
        if len(batch.names) <= size:
            yield batch
            continue
        for start in range(0, len(batch.names), size):
            rows = slice(start, start + size)
            yield _Piece({name: array[rows] for name, array in batch.inputs.items()}, batch.names[rows])


def fill(host: Mapping[str, PinnedBuffer], batch: CalibrationBatch, inputs: Sequence[FeedInput]) -> None:
    """Copy a batch into pinned memory by input name; a ragged batch is filled up with its own images, never zeros.

    Raises:
        CalibrationError: The batch lacks an input, or has another shape or type.
        NonFiniteError: An image holds NaN or infinity; the message names it.
    """
    for wanted in inputs:
        found = batch.inputs.get(wanted.name)
        if found is None:
            raise CalibrationError(
                f"calibration batch: expected input '{wanted.name}', found {', '.join(batch.inputs) or 'none'}; "
                "name the data after the model's inputs"
            )
        _check_batch(found, batch, wanted)
        target = host[wanted.name].array
        rows = np.arange(len(target)) % len(found)
        np.take(found, rows, axis=0, out=target) if found.dtype == target.dtype else np.copyto(target, found[rows])


def _check_batch(found: NDArray[Any], batch: CalibrationBatch, wanted: FeedInput) -> None:
    if found.shape[1:] != wanted.shape[1:] or not 0 < len(found) <= wanted.shape[0]:
        raise CalibrationError(
            f"calibration batch of '{batch.names[0] if batch.names else ''}': input '{wanted.name}': expected shape "
            f"{list(wanted.shape)} or fewer in the batch, found {list(found.shape)}; check the preprocessing"
        )
    if not np.can_cast(found.dtype, wanted.dtype, "same_kind"):
        raise CalibrationError(f"input '{wanted.name}': expected {wanted.dtype}, found {found.dtype}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(axis=1))[0])
        raise NonFiniteError(
            f"image '{batch.names[row]}': input '{wanted.name}' holds NaN or infinity; check the image and the "
            "preprocessing",
            tensor=wanted.name,
        )
