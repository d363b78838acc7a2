"""Runs engines: buffers, execution of any number of images, latency by CUDA events."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.interrupts import interrupts_deferred
from quant.backend import Latency
from quant.cuda.device import DeviceBuffer, Event, PinnedBuffer, Stream, use_device
from quant.errors import ModelError
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.engines.loaded_engine import EngineTensor, LoadedEngine

Array = NDArray[Any]
LATENCY_RUNS = 200
WARM_UP_RUNS = 20
PROFILED_RUNS = 20


class Engine:
    """A deserialised engine with its buffers; a context manager, also freed by `close`. Threads use it in turn.

    Attributes:
        smallest: Smallest batch that it executes; fewer images are filled up with copies of themselves.
        largest: Largest batch that it executes; more images run in pieces.
        tensors: Inputs and outputs.
        device_memory: Bytes that an execution needs besides weights, inputs and outputs.
        layers: Number of layers of the engine.
    """

    def __init__(
        self, data: bytes, name: str = "engine", outputs: Sequence[str] = (), tensorrt: TensorRT | None = None
    ) -> None:
        """Load an engine.

        Args:
            data: The serialised engine.
            name: What to call it in messages.
            outputs: The model's outputs in its order; without them, TensorRT's order of computation is used.
            tensorrt: What built it; None for the TensorRT that is installed.

        Raises:
            BuildError: TensorRT cannot load it: another release or GPU, or a damaged file.
            OutOfDeviceMemoryError: It does not fit into the GPU's memory.
        """
        self._name, self._lock = name, threading.Lock()
        self._order = {output: i for i, output in enumerate(outputs)}
        with contextlib.ExitStack() as stack:
            with interrupts_deferred():
                self._loaded = LoadedEngine(data, name, tensorrt)
                stack.callback(self._loaded.close)
                self.device_memory, self.layers = self._loaded.device_memory, self._loaded.layers
                self.smallest, self.largest = self._loaded.smallest, self._loaded.largest
                self.tensors = self._loaded.tensors
                self._stream: Stream = stack.enter_context(Stream())
                self._host = {t.name: stack.enter_context(PinnedBuffer(t.shape, t.dtype)) for t in self.tensors}
                self._device = {
                    t.name: stack.enter_context(DeviceBuffer(self._host[t.name].bytes)) for t in self.tensors
                }
                for tensor in self.tensors:
                    self._loaded.set_address(tensor.name, self._device[tensor.name].pointer)
            self._resources = stack.pop_all()  # only now, so that a deferred Ctrl-C frees the buffers

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Its inputs."""
        return self._loaded.inputs

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """Its outputs, in the model's order."""
        found = (tensor for tensor in self.tensors if not tensor.is_input)
        return tuple(sorted(found, key=lambda tensor: self._order.get(tensor.name, len(self._order))))

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Outputs for any number of images, in the model's order.

        Args:
            inputs: Arrays by input name; the first axis is the batch.

        Raises:
            ModelError: An input is missing or has another shape, or the execution fails.
        """
        size = len(next(iter(inputs.values())))
        parts = []
        with self._lock:
            use_device()
            for start in range(0, size, self.largest):
                count = min(self.largest, size - start)
                self._upload(inputs, start, count)
                self._execute()
                parts.append(self._download(count))
        return [
            np.concatenate(column) if tensor.has_batch else column[0]
            for tensor, column in zip(self.outputs, zip(*parts, strict=True), strict=True)
        ]

    def _upload(self, inputs: Mapping[str, Array], start: int, count: int) -> None:
        executed = max(count, self.smallest)
        rows = start + np.arange(executed) % count  # a ragged batch is filled up with its own images
        for tensor in self.inputs:
            array = inputs.get(tensor.name)
            if array is None:
                raise ModelError(f"{self._name}: expected input '{tensor.name}', found {', '.join(inputs) or 'none'}")
            if array.shape[1:] != tensor.shape[1:]:
                raise ModelError(
                    f"{self._name}: input '{tensor.name}': expected shape [N, {', '.join(map(str, tensor.shape[1:]))}],"
                    f" found {list(array.shape)}"
                )
            host = self._host[tensor.name]
            host.array[:executed] = array[rows]
            used = host.bytes // tensor.shape[0] * executed
            self._stream.copy_to_device(self._device[tensor.name], host, used)
        self._loaded.set_batch(executed)

    def _execute(self) -> None:
        self._loaded.queue(self._stream)

    def _download(self, count: int) -> list[Array]:
        for tensor in self.outputs:
            self._stream.copy_to_host(self._host[tensor.name], self._device[tensor.name])
        self._stream.synchronize()
        return [
            self._host[tensor.name].array[:count].copy() if tensor.has_batch else self._host[tensor.name].array.copy()
            for tensor in self.outputs
        ]

    def latency(self, inputs: Mapping[str, Array], runs: int = LATENCY_RUNS) -> Latency:
        """Time executions of one batch by CUDA events, after warm-up and without copies.

        Args:
            inputs: One batch by input name; filled up or cut to a batch size that the engine executes.
            runs: Number of executions to time.
        """
        count = min(len(next(iter(inputs.values()))), self.largest)
        with self._lock, contextlib.ExitStack() as stack:
            self._upload(inputs, 0, count)
            marks = [(stack.enter_context(Event()), stack.enter_context(Event())) for _ in range(runs)]
            for _ in range(WARM_UP_RUNS):
                self._execute()
            for start, end in marks:
                start.record(self._stream)
                self._execute()
                end.record(self._stream)
            self._stream.synchronize()
            times = [end.milliseconds_since(start) for start, end in marks]
        return Latency(statistics.median(times), self._loaded.batch, runs, float(np.percentile(times, 99)))

    def layer_seconds(self, inputs: Mapping[str, Array], runs: int = PROFILED_RUNS) -> dict[str, float]:
        """Seconds that each layer takes in one execution of a batch, by TensorRT's name, averaged over some runs.

        TensorRT's profiler waits after each layer, so the sum is more than the latency.

        Args:
            inputs: One batch by input name; filled up or cut to a batch size that the engine executes.
            runs: Number of executions to average.

        Raises:
            ModelError: An input is missing or has another shape, or the execution fails.
        """
        with self._lock:
            self._upload(inputs, 0, min(len(next(iter(inputs.values()))), self.largest))
            addresses = {name: buffer.pointer for name, buffer in self._device.items()}
            return self._loaded.layer_seconds(self._stream, addresses, runs)

    def layer_text(self) -> str:
        """The engine inspector's description of all layers, JSON."""
        return self._loaded.layer_text()

    def close(self) -> None:
        """Free the engine and its buffers, after what another thread runs; a second call does nothing."""
        with self._lock:
            self._loaded.close()
            self._resources.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
