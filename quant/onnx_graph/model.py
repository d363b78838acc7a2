"""The ONNX model: reading and checking it, its inputs and outputs, and its batch size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnx import numpy_helper

from calib.files import sha256_of_files
from quant.errors import ModelError
from quant.onnx_graph.constant_folding import dense_array
from quant.onnx_graph.door import check_interface, check_model_file, check_texts
from quant.onnx_graph.tracing import nodes_within
from quant.onnx_graph.weights_aside import LARGEST_MESSAGE, bytes_of_constants

_QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
    "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger",
}  # fmt: skip
FLOAT_TYPES = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output.

    Attributes:
        name: Tensor name.
        shape: Sizes; a string or None for a free axis.
        dtype: NumPy name of the element type.
    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: str


class ModelInterface(Protocol):
    """What data must fit: a model or an engine."""

    @property
    def path(self) -> Path: ...  # noqa: D102 - see the class
    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...  # noqa: D102 - see the class
    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class OnnxModel:
    """A model that has been parsed and checked; `proto` is never edited in place.

    Attributes:
        path: Where it was read from.
        proto: The model, external data included.
        sha256: Hash of the file and of its external data.
    """

    path: Path
    proto: onnx.ModelProto
    sha256: str

    @cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Graph inputs that are not initializers, in order."""
        initializers = {tensor.name for tensor in self.proto.graph.initializer}
        return tuple(_tensor_info(value) for value in self.proto.graph.input if value.name not in initializers)

    @cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Graph outputs, in order."""
        return tuple(_tensor_info(value) for value in self.proto.graph.output)

    @cached_property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return opset_of(self.proto)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the model requires; None if any will do."""
        return fixed_batch(self.proto)


def opset_of(proto: onnx.ModelProto) -> int:
    """Version of the standard operator set of a model."""
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else (dim.dim_param or None)
        for dim in tensor.shape.dim
    )
    try:
        dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    except (KeyError, ValueError):
        dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return TensorInfo(value.name, shape, dtype)


def load_model(path: str | Path) -> OnnxModel:
    """Read and check an ONNX model.

    Raises:
        ModelError: No such file, not ONNX, truncated, external data missing, or an opset newer than the onnx package.
    """
    path = Path(path)
    check_model_file(path)
    try:
        proto = onnx.load_model(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf raises its own DecodeError; which class depends on its back end
        raise ModelError(
            f"{path}: expected an ONNX model, found a file that does not parse as one; export it again"
        ) from error
    if not proto.graph.node or not proto.ir_version:
        raise ModelError(f"{path}: expected an ONNX model, found a file without a graph; export it again")
    check_texts(proto, path)
    newest = onnx.defs.onnx_opset_version()
    if opset_of(proto) > newest:
        raise ModelError(
            f"{path}: expected an opset up to {newest} (onnx {onnx.__version__}), found {opset_of(proto)}; "
            "export with an older opset, 17 for instance, or upgrade onnx and onnxruntime"
        )
    _refuse_layout_optimized(proto, path)
    check_interface(proto, path)
    external = _load_external_data(proto, path)
    with ThreadPoolExecutor(1) as pool:  # a large model takes as long to hash as to check
        sha256 = pool.submit(sha256_of_files, path, *external)
        _check(path, proto, from_file=not external and _is_utf8(path))
        return OnnxModel(path, _plain(proto), sha256.result())


def refuse_quantized(model: OnnxModel) -> None:
    """Raise where a model that is to be quantized is so already.

    Raises:
        ModelError: It is.
    """
    if is_quantized(model.proto):
        raise ModelError(
            f"{model.path}: expected an FP32 model, found one that is already quantized; give the FP32 model, or "
            "compare it with calib compare"
        )


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Does any node quantize, or compute with quantized numbers? Those in branches and loops count too."""
    return any(node.op_type in _QUANTIZED for node in nodes_within(proto.graph))


def _load_external_data(proto: onnx.ModelProto, path: Path) -> list[Path]:
    """Load tensors from files beside the model; returns those files."""
    files = set()
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            file = path.parent / entries.get("location", "")
            if not file.is_file():
                raise ModelError(
                    f"{path}: expected the external data of '{tensor.name}' in '{entries.get('location')}' beside the "
                    "model, found no such file; copy it there"
                )
            files.add(file)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # onnx raises several kinds, depending on what is wrong with the file
        raise ModelError(
            f"{path}: external data cannot be read: {_first_line(error)}; export the model again"
        ) from error
    return sorted(files)


def _check(path: Path, proto: onnx.ModelProto, *, from_file: bool) -> None:
    """Check a model; the checker is quicker with a file than with a model, which it has to serialise first."""
    try:
        if from_file:
            onnx.checker.check_model(str(path))
        elif bytes_of_constants(proto) < LARGEST_MESSAGE:  # the checker writes it; ONNX Runtime checks it again anyway
            onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        if not _runs(proto):  # a formality, such as a shape or an IR version, is no reason to refuse what runs
            raise ModelError(f"{path}: not a valid ONNX model: {_first_line(error)}; export it again") from error


def _runs(proto: onnx.ModelProto) -> bool:
    """Does ONNX Runtime load it?"""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(_plain(proto).SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - onnxruntime raises a class of its own for each status code
        return False
    return True


def _plain(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without what only few tools read: local functions, sparse constants, an IR older than its form."""
    if proto.functions:
        from onnx.inliner import inline_local_functions

        proto = inline_local_functions(proto)
    graph = proto.graph
    if graph.sparse_initializer:
        graph.initializer.extend(
            numpy_helper.from_array(dense_array(sparse), sparse.values.name) for sparse in graph.sparse_initializer
        )
        del graph.sparse_initializer[:]
    if proto.ir_version < 4 and {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}:
        proto.ir_version = 4
    return proto


def _refuse_layout_optimized(proto: onnx.ModelProto, path: Path) -> None:
    if any(node.domain == "com.microsoft.nchwc" for node in nodes_within(proto.graph)):
        raise ModelError(
            f"{path}: expected a model for any machine, found one that ONNX Runtime saved after optimizing it for one "
            "(nodes of com.microsoft.nchwc); give the model before that"
        )


def _is_utf8(path: Path) -> bool:
    """Whether the checker can be given a path: it takes only UTF-8, but file names may have other encodings."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def with_free_batch(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the first axis of its inputs free; shapes that may depend on it are removed."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    for value in result.graph.input:
        if value.name not in initializers and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del result.graph.value_info[:]
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    return result


def fixed_batch(proto: onnx.ModelProto) -> int | None:
    """The batch size that a model requires: the first axis of its first input; None if any will do."""
    initializers = {tensor.name for tensor in proto.graph.initializer}
    first = next((value for value in proto.graph.input if value.name not in initializers), None)
    dims = first.type.tensor_type.shape.dim if first is not None else ()
    return int(dims[0].dim_value) if dims and dims[0].dim_value > 0 else None
