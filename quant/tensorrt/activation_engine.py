"""An FP32 engine that gives inner tensors of a model, and leaves them in GPU memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from quant.cuda.batch_feed import FeedInput
from quant.cuda.device import Stream
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.engines.loaded_engine import LoadedEngine

_ALIGNMENT = 256  # bytes, as that of CUDA's own allocations


@dataclass(frozen=True)
class DeviceArray:
    """A float32 array in GPU memory.

    Attributes:
        pointer: Its address.
        shape: Its shape.
    """

    pointer: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class ActivationEngine:
    """A model's engine for one batch size, whose outputs are the tensors that were asked for.

    It is built with the least effort: an engine that gives every activation fuses little, whatever the effort. TF32 is
    off, since it keeps 10 bits of each factor.

    Attributes:
        inputs: The engine's inputs.
        bytes: Of GPU memory that the tensors take.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        tensors: Sequence[str],
        batch: int,
        options: BuilderOptions,
        name: str,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """Build the engine.

        Args:
            proto: FP32 model.
            tensors: Tensors to give, all of them float32.
            batch: Images in a batch.
            options: How engines are built; the effort is not used.
            name: What to call the model in messages.
            note: Called with lines to display.

        Raises:
            BuildError: TensorRT cannot build it, or gives a tensor in another type.
            OutOfDeviceMemoryError: The GPU has too little memory.
        """
        least = replace(options, level=0, tf32=False)
        made = engine_from_onnx(
            with_outputs(proto, tensors), "fp32", BatchRange(batch, batch, batch), least, name=name, note=note
        )
        self._engine = LoadedEngine(made.data, f"{name} (activations)")
        self._engine.set_batch(batch)
        self.inputs = tuple(FeedInput(t.name, t.shape, t.dtype) for t in self._engine.inputs)
        shapes = {t.name: t.shape for t in self._engine.tensors if not t.is_input}
        for tensor in self._engine.tensors:
            if not tensor.is_input and tensor.dtype != "float32":
                self.close()
                raise BuildError(f"{name}: tensor '{tensor.name}': expected float32, found {tensor.dtype}")
        missing = [tensor for tensor in tensors if tensor not in shapes]
        if missing:
            self.close()
            raise BuildError(f"{name}: TensorRT's engine does not give tensor '{missing[0]}'")
        self._shapes = {tensor: shapes[tensor] for tensor in tensors}
        self.bytes = sum(_aligned(math.prod(shape) * 4) for shape in self._shapes.values())

    def place(self, pointer: int) -> Mapping[str, DeviceArray]:
        """Say where the `bytes` for its tensors are; returns each tensor's place."""
        arrays = {}
        for name, shape in self._shapes.items():
            arrays[name] = DeviceArray(pointer, shape)
            self._engine.set_address(name, pointer)
            pointer += _aligned(math.prod(shape) * 4)
        return arrays

    def run(self, inputs: Mapping[str, int], stream: Stream) -> None:
        """Queue a run.

        Args:
            inputs: Addresses of whole batches, by input.
            stream: The queue.

        Raises:
            ModelError: TensorRT refuses it.
        """
        for name, pointer in inputs.items():
            self._engine.set_address(name, pointer)
        self._engine.queue(stream)

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        self._engine.close()


def with_outputs(proto: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy of a model whose outputs are these float32 tensors, and no others."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.output[:]
    for name in tensors:
        value = result.graph.output.add(name=name)
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return result


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
