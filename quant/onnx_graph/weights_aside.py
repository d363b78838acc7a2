"""A model apart from its weights, so that work on the graph alone does not copy hundreds of megabytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.errors import BuildError
from quant.onnx_graph.tracing import names_read

LARGEST_MESSAGE = 2**31 - 1  # bytes of a protobuf message
_SMALL = 1024  # values in a constant that type and shape inference may need: a shape, axes, bounds
_DTYPES: Mapping[int, type[np.generic]] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.INT8: np.int8,
}


def bytes_of_constants(proto: onnx.ModelProto) -> int:
    """The approximate size of a model, from its constants: Protobuf would serialise the whole model to count it."""
    constants = [
        a.t for node in proto.graph.node if node.op_type == "Constant" for a in node.attribute if a.HasField("t")
    ]
    return sum(
        math.prod(tensor.dims) * _bytes_of_type(tensor.data_type) for tensor in (*proto.graph.initializer, *constants)
    )


def _bytes_of_type(data_type: int) -> int:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except KeyError:  # no type of ONNX; the checker says so
        return 4


def file_size(proto: onnx.ModelProto) -> int:
    """Bytes of a model's file; those of its constants where one file cannot hold it."""
    size = bytes_of_constants(proto)
    return size if size >= LARGEST_MESSAGE else proto.ByteSize()


def serialized(proto: onnx.ModelProto, name: str) -> bytes:
    """The contents of a model's file.

    Raises:
        BuildError: One file cannot hold it.
    """
    size = bytes_of_constants(proto)
    if size >= LARGEST_MESSAGE:
        raise BuildError(
            f"{name}: expected a model below 2 GiB, which one ONNX file holds, found {size / 2**30:.1f} GiB; "
            "quantize it to INT8, or split it"
        )
    contents: bytes = proto.SerializeToString()
    return contents


def without_weights(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A copy of a model without its large constants, and those constants, which are not copied."""
    result = onnx.ModelProto(ir_version=proto.ir_version)
    result.opset_import.extend(proto.opset_import)
    result.functions.extend(proto.functions)
    graph, weights = proto.graph, []
    result.graph.name = graph.name
    for part in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(result.graph, part).extend(getattr(graph, part))
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            result.graph.initializer.append(tensor)
        else:
            weights.append(tensor)
    return result, weights


def with_weights_aside(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """A copy of a model that calls its weights external, and the weights as arrays, which ONNX Runtime uses in place.

    This avoids writing the weights into one string and reading them from it. Weights of rarely used types stay in the
    copy. So do weights that a caller may replace or that nothing reads: ONNX Runtime drops the latter before it looks
    for the arrays.
    """
    result, weights = without_weights(proto)
    declared = {value.name for value in proto.graph.input}
    read = {value.name for value in proto.graph.output}
    read.update(name for node in proto.graph.node for name in names_read(node))
    arrays: dict[str, NDArray[Any]] = {}
    for tensor in weights:
        array = None if tensor.name in declared or tensor.name not in read else _array(tensor)
        if array is None:
            result.graph.initializer.append(tensor)
            continue
        arrays[tensor.name] = array
        entry = result.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        entry.data_location = onnx.TensorProto.EXTERNAL
        entry.external_data.add(key="location", value="aside")
    return result, arrays


def _array(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    """Values of a tensor; None for other types, and for a wrong number of values, which ONNX Runtime reports."""
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None or not tensor.HasField("raw_data"):
        return None
    values = tensor.raw_data
    if len(values) != math.prod(tensor.dims) * np.dtype(dtype).itemsize:
        return None
    array: NDArray[Any] = np.frombuffer(values, dtype).reshape(tensor.dims)
    return array
