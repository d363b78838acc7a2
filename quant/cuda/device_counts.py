"""The histograms of a model's tensors in GPU memory, counted there: the same counts as on the CPU, bit for bit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calib.histograms import kernels
from calib.histograms.counting import Counted
from calib.histograms.split_histogram import SplitHistogram
from calib.histograms.tables import BINS
from quant.cuda.counting_kernels import (
    AGAIN,
    ALIGNMENT,
    CLIP_REQUIRED,
    DROPPED,
    NOT_FINITE,
    OPTIONAL,
    RECTIFIED,
    REQUIRED,
    ROWS,
    STATE,
    TENSOR,
    Shape,
)
from quant.cuda.device import DeviceBuffer, DeviceError, PinnedBuffer, Stream

BYTES_OF_TENSOR = ROWS * BINS * (8 + 4)  # of device memory: its counts, and those of one batch
_MOST_VALUES = 1 << 32  # of a tensor in a batch, which are counted in uint32
_MOST_ROUNDS = 4  # one to find NaN, one to find that bins are too narrow, one to count; and one more


class Kernels(Protocol):
    """What counts: the compiled kernels, see `quant.cuda.counting_kernels`."""

    shape: Shape

    def count(  # noqa: D102 - see the class
        self, stream: Stream, tensors: int, amount: int, states: int, fresh: int, *, again: bool
    ) -> None: ...
    def settle(  # noqa: D102 - see the class
        self, stream: Stream, tensors: int, amount: int, states: int, fresh: int, counts: int, *, again: bool
    ) -> None: ...


class DeviceCounts:
    """Counts of tensors that lie in GPU memory; a context manager that frees them."""

    def __init__(
        self,
        limits: Mapping[str, float],
        compiled: Kernels,
        stream: Stream,
        *,
        required: Collection[str] | None = None,
        required_clipped: Collection[str] = (),
    ) -> None:
        """Allocate empty histograms; the arguments are those of `calib.histograms.counting.Counts`.

        Args:
            limits: For each tensor to count, the limit of its `SplitHistogram`.
            compiled: The kernels.
            stream: Where they run; arrays that are counted are written by earlier work in it.
            required: Tensors in which NaN and infinity are errors; None for all.
            required_clipped: Tensors of which only the values clipped to [0, limit] are required.

        Raises:
            OutOfDeviceMemoryError: They do not fit into the GPU's memory.
        """
        self._kernels, self._stream = compiled, stream
        self._place = {name: i for i, name in enumerate(limits)}
        self._limits = {name: float(np.float32(limit)) for name, limit in limits.items()}
        amount = len(limits)
        with contextlib.ExitStack() as stack:
            self._tensors_there: DeviceBuffer = stack.enter_context(DeviceBuffer((amount + 1) * TENSOR.itemsize))
            self._tensors: PinnedBuffer = stack.enter_context(PinnedBuffer((amount + 1,), TENSOR))
            self._states_there: DeviceBuffer = stack.enter_context(DeviceBuffer(amount * STATE.itemsize))
            self._states: PinnedBuffer = stack.enter_context(PinnedBuffer((amount,), STATE))
            self._fresh: DeviceBuffer = stack.enter_context(DeviceBuffer(amount * ROWS * BINS * 4))
            self._counts: DeviceBuffer = stack.enter_context(DeviceBuffer(amount * ROWS * BINS * 8))
            self._read: PinnedBuffer = stack.enter_context(PinnedBuffer((ROWS, BINS), np.int64))
            self._start(required, required_clipped)
            self._resources = stack.pop_all()

    def _start(self, required: Collection[str] | None, required_clipped: Collection[str]) -> None:
        """Fill in what stays, and empty the counts."""
        tensors, states = self._tensors.array, self._states.array
        tensors[:] = states[:] = 0
        for name, i in self._place.items():
            tensors[i]["limit"] = self._limits[name]
            tensors[i]["rows"] = _rows(self._limits[name])
            if required is None or name in required:
                tensors[i]["policy"] = REQUIRED
            else:
                tensors[i]["policy"] = CLIP_REQUIRED if name in required_clipped else OPTIONAL
        states["slots"][:, : kernels.ZEROS] = kernels.UNSET
        states["low"], states["high"] = np.iinfo(np.int32).max, np.iinfo(np.int32).min
        self._stream.copy_to_device(self._states_there, self._states)
        self._stream.clear(self._fresh)
        self._stream.clear(self._counts)
        self._stream.synchronize()

    def count(self, arrays: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
        """Count float32 arrays after the work that the stream holds, and wait for it.

        Args:
            arrays: Address on the device and number of values, by tensor.

        Returns:
            Tensors that hold NaN or infinity where that is an error, in the order of the histograms.

        Raises:
            DeviceError: CUDA fails, or an array cannot be counted.
        """
        counted = self._given(arrays)
        for attempt in range(_MOST_ROUNDS):
            verdicts = self._round(again=attempt > 0)
            if not (verdicts[counted] == AGAIN).any():
                return tuple(name for name, i in self._place.items() if counted[i] and verdicts[i] == NOT_FINITE)
        raise DeviceError(f"counting on the GPU: expected an end after {_MOST_ROUNDS} rounds; use --collector cpu")

    def repeat(self) -> None:
        """Queue one more counting of the arrays of the last `count` without waiting for it, so that it can be timed."""
        self._queue_round(again=False)

    def _given(self, arrays: Mapping[str, tuple[int, int]]) -> NDArray[np.bool_]:
        """Tell the GPU where a batch's arrays are; gives which tensors are counted."""
        tensors = self._tensors.array
        tensors["size"] = 0
        for name, (pointer, size) in arrays.items():
            if pointer % ALIGNMENT or size >= _MOST_VALUES:
                raise DeviceError(
                    f"tensor '{name}': expected up to {_MOST_VALUES} values at a multiple of {ALIGNMENT} bytes, found "
                    f"{size} at {pointer:#x}; use a smaller --batch-size"
                )
            tensors[self._place[name]]["values"] = pointer
            tensors[self._place[name]]["size"] = size
        tiles = -(-tensors["size"] // self._kernels.shape.tile)
        tensors["first_tile"] = np.cumsum(tiles) - tiles
        self._stream.copy_to_device(self._tensors_there, self._tensors)
        counted: NDArray[np.bool_] = tensors["size"][:-1] > 0
        return counted

    def _queue_round(self, *, again: bool) -> None:
        tables = self._tensors_there.pointer, len(self._place), self._states_there.pointer, self._fresh.pointer
        self._kernels.count(self._stream, *tables, again=again)
        self._kernels.settle(self._stream, *tables, self._counts.pointer, again=again)

    def _round(self, *, again: bool) -> NDArray[np.int32]:
        """Count once; the verdicts by tensor."""
        self._queue_round(again=again)
        self._stream.copy_to_host(self._states, self._states_there)
        self._stream.synchronize()
        verdicts: NDArray[np.int32] = self._states.array["verdict"]
        return verdicts

    def counted(self) -> Counted:
        """What has been counted so far; each histogram is copied from the GPU when it is asked for."""
        modes = {name: int(self._states.array[i]["mode"]) for name, i in self._place.items()}
        return Counted(
            _Histograms(self),
            dropped=frozenset(name for name, mode in modes.items() if mode == DROPPED),
            rectified=frozenset(name for name, mode in modes.items() if mode == RECTIFIED),
        )

    def histogram(self, name: str) -> SplitHistogram:
        """A tensor's histogram."""
        i, limit = self._place[name], self._limits[name]
        self._stream.copy_from(self._read, self._counts.pointer + i * self._read.bytes, self._read.bytes)
        self._stream.synchronize()
        slots = self._states.array[i]["slots"]
        return SplitHistogram.from_counts(limit, self._read.array[: _rows(limit)].copy(), slots.copy())

    @property
    def names(self) -> Collection[str]:
        """The tensors."""
        return self._place.keys()

    def close(self) -> None:
        """Free the memory; a second call does nothing."""
        self._resources.close()

    def __enter__(self) -> DeviceCounts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Histograms(Mapping[str, SplitHistogram]):
    """Histograms that are read when they are asked for: those of thousands of tensors take a gigabyte."""

    def __init__(self, counts: DeviceCounts) -> None:
        self._counts = counts

    def __getitem__(self, name: str) -> SplitHistogram:
        return self._counts.histogram(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts.names)

    def __len__(self) -> int:
        return len(self._counts.names)


def _rows(limit: float) -> int:
    return ROWS - 1 if math.isinf(limit) else ROWS
