"""Runs engines: buffers, execution of any number of images, latency by CUDA events."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.interrupts import interrupts_deferred
from quant.backend import Latency
from quant.cuda.device import DeviceBuffer, Event, OutOfDeviceMemoryError, PinnedBuffer, Stream, use_device
from quant.errors import BuildError, ModelError
from quant.tensorrt.bindings import TensorRT, load_tensorrt
from quant.tensorrt.log import log_section, logger

Array = NDArray[Any]
LATENCY_RUNS = 200
WARM_UP_RUNS = 20


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine.

    Attributes:
        name: Its name.
        shape: Its shape at the largest batch.
        dtype: NumPy's name of its type.
        is_input: Whether it is an input.
        has_batch: Whether the first axis is the batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_input: bool
    has_batch: bool


class Engine:
    """A deserialised engine with its buffers; a context manager, also freed by `close`.

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
        self._tensorrt = tensorrt or load_tensorrt()
        trt = self._tensorrt.module
        self._name = name
        self._order = {output: i for i, output in enumerate(outputs)}
        use_device()
        with contextlib.ExitStack() as stack:
            with interrupts_deferred(), log_section() as log:
                trt.init_libnvinfer_plugins(logger(self._tensorrt), "")
                self._runtime: Any = trt.Runtime(logger(self._tensorrt))
                self._engine: Any = self._runtime.deserialize_cuda_engine(data)
                self._context: Any = self._engine.create_execution_context() if self._engine is not None else None
                if self._context is None:
                    if log.out_of_memory:
                        raise OutOfDeviceMemoryError(f"{name}: {log.reason()}", "cudaErrorMemoryAllocation")
                    raise BuildError(f"{name}: TensorRT {self._tensorrt.release} cannot load it: {log.reason()}")
                self.device_memory = self._tensorrt.device_memory(self._engine)
                self.layers = int(self._engine.num_layers)
                self.smallest, self.largest = self._batch_range()
                self.tensors = self._tensors()
                self._batch = 0
                self._stream: Stream = stack.enter_context(Stream())
                self._host = {t.name: stack.enter_context(PinnedBuffer(t.shape, t.dtype)) for t in self.tensors}
                self._device = {
                    t.name: stack.enter_context(DeviceBuffer(self._host[t.name].bytes)) for t in self.tensors
                }
                for tensor in self.tensors:
                    self._context.set_tensor_address(tensor.name, self._device[tensor.name].pointer)
            self._resources = stack.pop_all()  # only now, so that a deferred Ctrl-C frees the buffers

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Its inputs."""
        return tuple(tensor for tensor in self.tensors if tensor.is_input)

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """Its outputs, in the model's order."""
        found = (tensor for tensor in self.tensors if not tensor.is_input)
        return tuple(sorted(found, key=lambda tensor: self._order.get(tensor.name, len(self._order))))

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _is_input(self, name: str) -> bool:
        return bool(self._engine.get_tensor_mode(name) == self._tensorrt.module.TensorIOMode.INPUT)

    def _batch_range(self) -> tuple[int, int]:
        first = next(name for name in self._names() if self._is_input(name))
        size = int(self._engine.get_tensor_shape(first)[0])
        if size >= 0:
            return size, size
        smallest, _, largest = self._engine.get_tensor_profile_shape(first, 0)
        return int(smallest[0]), int(largest[0])

    def _tensors(self) -> tuple[EngineTensor, ...]:
        """Inputs and outputs with shapes at the largest batch, for which buffers are made once."""
        names = self._names()
        free = {name for name in names if int((*self._engine.get_tensor_shape(name), 0)[0]) < 0}
        for name in names:
            if self._is_input(name) and name in free:
                rest = tuple(self._engine.get_tensor_shape(name))[1:]
                self._context.set_input_shape(name, (self.largest, *rest))
        tensors = []
        for name in names:
            shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
            dtype = self._tensorrt.numpy_type(self._engine.get_tensor_dtype(name))
            has_batch = bool(shape) and (name in free or shape[0] == self.largest)
            tensors.append(EngineTensor(name, shape, dtype, self._is_input(name), has_batch))
        return tuple(tensors)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Outputs for any number of images, in the model's order.

        Args:
            inputs: Arrays by input name; the first axis is the batch.

        Raises:
            ModelError: An input is missing or has another shape, or the execution fails.
        """
        size = len(next(iter(inputs.values())))
        parts = []
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
        self._set_batch(executed)

    def _set_batch(self, batch: int) -> None:
        if batch == self._batch:
            return
        if self.smallest != self.largest:
            for tensor in self.inputs:
                self._context.set_input_shape(tensor.name, (batch, *tensor.shape[1:]))
        self._batch = batch

    def _execute(self) -> None:
        with log_section() as log:
            if not self._context.execute_async_v3(int(self._stream.handle)):
                raise ModelError(f"{self._name}: TensorRT cannot run it: {log.reason()}")

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
        self._upload(inputs, 0, count)
        with contextlib.ExitStack() as stack:
            marks = [(stack.enter_context(Event()), stack.enter_context(Event())) for _ in range(runs)]
            for _ in range(WARM_UP_RUNS):
                self._execute()
            for start, end in marks:
                start.record(self._stream)
                self._execute()
                end.record(self._stream)
            self._stream.synchronize()
            times = [end.milliseconds_since(start) for start, end in marks]
        return Latency(statistics.median(times), self._batch, runs, float(np.percentile(times, 99)))

    def layer_text(self) -> str:
        """The engine inspector's description of all layers, JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._tensorrt.module.LayerInformationFormat.JSON)
        return text

    def close(self) -> None:
        """Free the engine and its buffers; a second call does nothing."""
        self._context = self._engine = self._runtime = None
        self._resources.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
