"""A deserialised engine: its inputs and outputs, batch sizes and execution; buffers are up to whoever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calib.interrupts import interrupts_deferred
from quant.cuda.device import OutOfDeviceMemoryError, Stream, use_device
from quant.errors import BuildError, ModelError
from quant.tensorrt.bindings import TensorRT, load_tensorrt
from quant.tensorrt.log import log_section, logger


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


class LoadedEngine:
    """A deserialised engine and its execution context.

    Attributes:
        name: What to call it in messages.
        smallest: Smallest batch that it executes.
        largest: Largest batch that it executes.
        tensors: Inputs and outputs, with shapes at the largest batch.
        device_memory: Bytes that an execution needs besides weights, inputs and outputs.
        layers: Number of layers of the engine.
        batch: Size of the batch that is executed; 0 before it is set.
    """

    def __init__(self, data: bytes, name: str, tensorrt: TensorRT | None = None) -> None:
        """Load an engine.

        Args:
            data: The serialised engine.
            name: What to call it in messages.
            tensorrt: What built it; None for the TensorRT that is installed.

        Raises:
            BuildError: TensorRT cannot load it: another release or GPU, or a damaged file.
            OutOfDeviceMemoryError: It does not fit into the GPU's memory.
        """
        self._tensorrt = tensorrt or load_tensorrt()
        trt = self._tensorrt.module
        self.name, self.batch = name, 0
        use_device()
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

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Its inputs."""
        return tuple(tensor for tensor in self.tensors if tensor.is_input)

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
        names = self._names()
        free = {name for name in names if int((*self._engine.get_tensor_shape(name), 0)[0]) < 0}
        for name in names:
            if self._is_input(name) and name in free:
                _, _, most = self._engine.get_tensor_profile_shape(name, 0)  # height and width may have ranges too
                self._context.set_input_shape(name, (self.largest, *tuple(most)[1:]))
        tensors = []
        for name in names:
            shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
            dtype = self._tensorrt.numpy_type(self._engine.get_tensor_dtype(name))
            has_batch = bool(shape) and (name in free or shape[0] == self.largest)
            tensors.append(EngineTensor(name, shape, dtype, self._is_input(name), has_batch))
        return tuple(tensors)

    def set_address(self, tensor: str, pointer: int) -> None:
        """Say where an input or output lies in GPU memory."""
        self._context.set_tensor_address(tensor, pointer)

    def set_batch(self, batch: int) -> None:
        """Choose how many images an execution takes."""
        if batch == self.batch:
            return
        if self.smallest != self.largest:
            for tensor in self.inputs:
                self._context.set_input_shape(tensor.name, (batch, *tensor.shape[1:]))
        self.batch = batch

    def queue(self, stream: Stream) -> None:
        """Queue an execution.

        Raises:
            ModelError: TensorRT refuses it.
        """
        with log_section() as log:
            if not self._context.execute_async_v3(int(stream.handle)):
                raise ModelError(f"{self.name}: TensorRT cannot run it: {log.reason()}")

    def layer_seconds(self, stream: Stream, addresses: Mapping[str, int], runs: int) -> dict[str, float]:
        """Seconds of each layer in one execution, by TensorRT's name, over some runs of the batch that is set.

        They run in a context of their own, so that the profiler, which waits after each layer, slows nothing else down.

        Args:
            stream: Where to run.
            addresses: Where inputs and outputs lie in GPU memory.
            runs: How many executions to average, after one for warm-up.

        Raises:
            ModelError: TensorRT refuses it.
        """
        with interrupts_deferred(), log_section() as log:
            context: Any = self._engine.create_execution_context()
            if context is None:
                raise ModelError(f"{self.name}: TensorRT cannot profile it: {log.reason()}")
            for tensor in self.tensors:
                context.set_tensor_address(tensor.name, addresses[tensor.name])
                if tensor.is_input and self.smallest != self.largest:
                    context.set_input_shape(tensor.name, (self.batch, *tensor.shape[1:]))
            profiler = _profiler(self._tensorrt.module)
            for run in range(runs + 1):
                if run == 1:
                    context.profiler = profiler
                if not context.execute_async_v3(int(stream.handle)):
                    raise ModelError(f"{self.name}: TensorRT cannot profile it: {log.reason()}")
                stream.synchronize()
            del context  # before the profiler that it reports to
        return {name: milliseconds / 1000 / runs for name, milliseconds in profiler.milliseconds.items()}

    def layer_text(self) -> str:
        """The engine inspector's description of all layers, JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._tensorrt.module.LayerInformationFormat.JSON)
        return text

    def close(self) -> None:
        """Free it; a second call does nothing."""
        self._context = self._engine = self._runtime = None


def _profiler(trt: Any) -> Any:  # noqa: ANN401 - the bindings have no types
    """What adds up the milliseconds that TensorRT reports of each layer."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.milliseconds: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.milliseconds[layer_name] = self.milliseconds.get(layer_name, 0.0) + ms

    return Profiler()
