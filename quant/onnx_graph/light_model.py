"""A model as its graph and its weights, apart: work on the graph neither copies nor holds the weights.

This is the form in which models are edited, run and written here, whatever their size. Protobuf holds no message of
2 GiB, and copies a message each time that it is edited, serialised or read.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calib.processors import usable_processors
from quant.onnx_graph.tracing import names_read

Array = NDArray[Any]

SMALL = 1024  # values in a constant that type and shape inference may need: a shape, axes, bounds
_BLOCK = 1 << 19  # values that are worked on at a time
_ASIDE = "aside"  # the place that a light model's weights name; no file
# What NumPy and ONNX Runtime can both use in place. Weights of other types stay in the graph.
DTYPES: Mapping[int, type[np.generic]] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.INT8: np.int8,
    onnx.TensorProto.UINT8: np.uint8,
    onnx.TensorProto.INT16: np.int16,
    onnx.TensorProto.UINT16: np.uint16,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.UINT32: np.uint32,
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.UINT64: np.uint64,
    onnx.TensorProto.BOOL: np.bool_,
}


@dataclass(frozen=True, eq=False)
class LightModel:
    """A model whose large weights stand beside its graph.

    Attributes:
        proto: The model; its large constants have a name, a type and a shape there, and no values.
        weights: The values of these, by name, in memory or mapped from a file; never written to.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, Array] = field(default_factory=dict)

    def constants(self) -> dict[str, Array]:
        """Values of all initializers of the graph."""
        return {
            tensor.name: self.weights[tensor.name] if is_aside(tensor) else numpy_helper.to_array(tensor)
            for tensor in self.proto.graph.initializer
        }

    @property
    def bytes_of_weights(self) -> int:
        """Bytes of the weights beside the graph."""
        return sum(array.nbytes for array in self.weights.values())

    @property
    def values(self) -> int:
        """How many values the weights beside the graph have."""
        return sum(array.size for array in self.weights.values())


AnyModel = onnx.ModelProto | LightModel


def is_aside(tensor: onnx.TensorProto) -> bool:
    """Do the values of a constant of a light model stand beside the graph?"""
    return bool(
        tensor.data_location == onnx.TensorProto.EXTERNAL
        and any(entry.key == "location" and entry.value == _ASIDE for entry in tensor.external_data)
    )


def light_model(model: AnyModel) -> LightModel:
    """A model in its light form; one that is in it already, as it is.

    Weights of rarely used types stay in the graph, and so do those whose values do not fit their shape.
    """
    if isinstance(model, LightModel):
        return model
    weights: dict[str, Array] = {}
    taken: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        array = _array(tensor) if is_large(tensor) else None
        if array is None:
            taken.append(tensor)
        else:
            weights[tensor.name] = array
            taken.append(constant_aside(tensor.name, tensor.data_type, array.shape))
    return LightModel(with_initializers(model, taken), weights)


def whole_model(model: LightModel) -> onnx.ModelProto:
    """The model as one message, weights included."""
    result = onnx.ModelProto()
    result.CopyFrom(model.proto)
    for tensor in result.graph.initializer:
        if is_aside(tensor):
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = model.weights[tensor.name].tobytes()
    return result


def is_large(tensor: onnx.TensorProto) -> bool:
    """Does a constant stand beside the graph in a light model, if it has one of the types that can?"""
    return bool(math.prod(tensor.dims) > SMALL)


def is_large_constant(node: onnx.NodeProto) -> bool:
    """Is a node a large constant that could stand beside the graph?"""
    if node.op_type != "Constant" or [a.name for a in node.attribute] != ["value"]:
        return False
    tensor = node.attribute[0].t
    return bool(is_large(tensor) and _array(tensor) is not None)


def constant_aside(name: str, data_type: int, shape: tuple[int, ...]) -> onnx.TensorProto:
    """What stands in the graph for a constant whose values are beside it."""
    tensor = onnx.TensorProto(name=name, data_type=data_type, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=_ASIDE)
    return tensor


def constant_from_array(name: str, array: Array, weights: dict[str, Array]) -> onnx.TensorProto:
    """A constant for the graph of a light model; a large one's values go into `weights`."""
    data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    if array.size > SMALL and data_type in DTYPES:
        weights[name] = array
        return constant_aside(name, data_type, array.shape)
    return numpy_helper.from_array(np.ascontiguousarray(array) if array.ndim else array, name)


def with_initializers(proto: onnx.ModelProto, initializers: list[onnx.TensorProto]) -> onnx.ModelProto:
    """A copy of a model with other initializers; those that it has are not copied on the way."""
    result = onnx.ModelProto()
    for descriptor, value in proto.ListFields():
        if descriptor.name != "graph":
            _copy_field(result, descriptor.name, value)
    result.graph.SetInParent()
    for descriptor, value in proto.graph.ListFields():
        if descriptor.name != "initializer":
            _copy_field(result.graph, descriptor.name, value)
    result.graph.initializer.extend(initializers)
    return result


def _copy_field(target: Any, name: str, value: Any) -> None:  # noqa: ANN401 - messages and fields of any kind
    if hasattr(value, "MergeFrom"):  # a message, or a repeated field
        getattr(target, name).MergeFrom(value)
    else:
        setattr(target, name, value)


def inference_session(model: LightModel, options: Any, outputs: Sequence[str] = ()) -> tuple[Any, list[Array]]:  # noqa: ANN401 - onnxruntime has no types
    """Open a session on the CPU, and the arrays that must live as long as it does: ONNX Runtime may use them in place.

    Args:
        model: The model.
        options: ONNX Runtime's; each session needs its own.
        outputs: Tensors to give beside the model's outputs.
    """
    import onnxruntime

    graph = model.proto.graph
    read = {value.name for value in graph.output}.union(*(names_read(node) for node in graph.node))
    # ONNX Runtime drops weights that nothing reads before it looks for their values.
    kept = [tensor for tensor in graph.initializer if not is_aside(tensor) or tensor.name in read]
    proto = with_initializers(model.proto, kept)
    existing = {value.name for value in graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in existing)
    arrays = {tensor.name: _in_place(model.weights[tensor.name]) for tensor in kept if is_aside(tensor)}
    if arrays:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
        options.add_external_initializers(list(arrays), values)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    release_pages(model)
    return session, list(arrays.values())


def session_options(threads: int | None = None) -> Any:  # noqa: ANN401 - of a package that is imported when it is used
    """Options of an ONNX Runtime session that keeps to the processors of this process, and says nothing.

    By itself it takes a thread for each core of the machine, also where a container or taskset leaves fewer.

    Args:
        threads: Threads for one run; None for one for each processor that may be used.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: errors are raised anyway, and warnings repeat for every node
    usable = usable_processors()
    if threads is None and usable < (os.cpu_count() or 1):
        threads = usable
    if threads is not None:  # else one for each core, of which each may count as two processors
        options.intra_op_num_threads = threads
    return options


def release_pages(model: LightModel) -> None:
    """Give back the memory of weights that are mapped from files, until they are read again.

    Sessions hold weights in a form of their own, and made models hold other weights: both have read these once.
    """
    for array in model.weights.values():
        mapped = getattr(array.base, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def with_weights_as_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large constants are inputs, which have a type and a shape and need no values."""
    large = [tensor for tensor in proto.graph.initializer if is_large(tensor)]
    result = with_initializers(proto, [tensor for tensor in proto.graph.initializer if not is_large(tensor)])
    declared = {value.name for value in proto.graph.input}
    result.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
        if tensor.name not in declared
    )
    return result


def bytes_of_constants(proto: onnx.ModelProto) -> int:
    """The size of a model's constants, those beside its graph included."""
    constants = [
        a.t for node in proto.graph.node if node.op_type == "Constant" for a in node.attribute if a.HasField("t")
    ]
    return sum(
        math.prod(tensor.dims) * _bytes_of_type(tensor.data_type) for tensor in (*proto.graph.initializer, *constants)
    )


def blocks(array: Array, *others: Array) -> Iterator[tuple[Array, ...]]:
    """An array and others of its shape in pieces, so that what is computed from each of them stays in the cache.

    They are cut along `cut_axis` of the first.
    """
    if array.size <= _BLOCK:
        yield (array, *others)
        return
    axis = cut_axis(array)
    step = max(1, _BLOCK * array.shape[axis] // array.size)
    for start in range(0, array.shape[axis], step):
        place = (slice(None),) * axis + (slice(start, start + step),)
        yield tuple(each[place] for each in (array, *others))


def cut_axis(array: Array) -> int:
    """The axis along which `blocks` cuts: that with the longest way from one slice to the next, if slices are small."""
    axes = [axis for axis, size in enumerate(array.shape) if array.size <= _BLOCK * size]
    if not axes:
        return max(range(array.ndim), key=lambda axis: array.shape[axis], default=0)
    return max(axes, key=lambda axis: abs(array.strides[axis]))


def _in_place(array: Array) -> Array:
    """An array as ONNX Runtime can use it where it lies."""
    return array if array.flags.c_contiguous and array.flags.aligned else np.array(array, order="C")


def _bytes_of_type(data_type: int) -> int:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except KeyError:  # no type of ONNX; the checker says so
        return 4


def _array(tensor: onnx.TensorProto) -> Array | None:
    """Values of a constant; None for rare types, and for a wrong number of values, which ONNX Runtime reports."""
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    if not tensor.HasField("raw_data"):
        try:
            return numpy_helper.to_array(tensor)
        except ValueError:
            return None
    values = tensor.raw_data
    if len(values) != math.prod(tensor.dims) * np.dtype(dtype).itemsize:
        return None
    array: Array = np.frombuffer(values, dtype).reshape(tensor.dims)
    return array


def inferred_shapes(proto: onnx.ModelProto, *, of_values: bool = False) -> onnx.ModelProto:
    """A copy without its weights, with the types and shapes that ONNX can infer.

    Large constants become inputs: inference needs only their types and shapes, and copying them takes long. Where
    inference fails, there are only the types and shapes that the model declares.

    Args:
        proto: The model; not edited.
        of_values: Follow the values of shape tensors too. The shapes that the model declares for its outputs are then
            ignored: they may be for another batch size.
    """
    result = with_weights_as_inputs(proto)
    for value in result.graph.output if of_values else ():
        value.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(result, data_prop=of_values)
    except Exception:  # noqa: BLE001 - it raises errors of several kinds, also on models that run
        return result
