"""The ONNX model: reading and checking it, its inputs and outputs, and its batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from quant.onnx_graph.door import check_activations, check_interface, check_model_file, check_texts
from quant.onnx_graph.external_data import take_external_data
from quant.onnx_graph.light_model import (
    AnyModel,
    LightModel,
    constant_from_array,
    inference_session,
    inferred_shapes,
    is_large_constant,
    light_model,
    session_options,
    whole_model,
    with_initializers,
    with_weights_as_inputs,
)
from quant.onnx_graph.model_file import bytes_of_model
from quant.onnx_graph.tracing import nodes_within

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
    """A model that has been parsed and checked; it is never edited in place.

    Attributes:
        path: Where it was read from.
        light: The model, its weights beside the graph. May be given as a message.
        sha256: Hash of the file and of its external data.
        file_bytes: Size of these; None where there is no file.
    """

    path: Path
    light: LightModel
    sha256: str
    file_bytes: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "light", light_model(self.light))

    @property
    def bytes(self) -> int:
        """Size of the files, or of those that the model would have."""
        return bytes_of_model(self.light, self.path.name) if self.file_bytes is None else self.file_bytes

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The model as one message, external data included: a copy of all weights. `graph` costs nothing."""
        return whole_model(self.light)

    @property
    def graph(self) -> onnx.ModelProto:
        """The model without the values of its large weights."""
        return self.light.proto

    @cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Graph inputs that are not initializers, in order."""
        initializers = {tensor.name for tensor in self.graph.graph.initializer}
        return tuple(_tensor_info(value) for value in self.graph.graph.input if value.name not in initializers)

    @cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Graph outputs, in order."""
        return tuple(_tensor_info(value) for value in self.graph.graph.output)

    @cached_property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return opset_of(self.graph)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the model requires; None if any will do."""
        return fixed_batch(self.graph)


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
    mapped, external = take_external_data(proto, path)
    with ThreadPoolExecutor(1) as pool:  # a large model takes as long to hash as to check
        sha256 = pool.submit(sha256_of_files, path, *external)
        light = light_model(proto)
        del proto  # which holds the weights of a model in one file
        light = LightModel(light.proto, {**mapped, **light.weights})
        _check(path, light)
        size = sum(file.stat().st_size for file in (path, *external))
        return OnnxModel(path, _plain(light), sha256.result(), size)


def refuse_quantized(model: OnnxModel) -> None:
    """Raise where a model that is to be quantized is so already.

    Raises:
        ModelError: It is.
    """
    if is_quantized(model.graph):
        raise ModelError(
            f"{model.path}: expected an FP32 model, found one that is already quantized; give the FP32 model, or "
            "compare it with calib compare"
        )


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Does any node quantize, or compute with quantized numbers? Those in branches and loops count too."""
    return any(node.op_type in _QUANTIZED for node in nodes_within(proto.graph))


def _check(path: Path, model: LightModel) -> None:
    """Check a model; its weights need no check but that of their size, which was made when they were read."""
    try:
        onnx.checker.check_model(with_weights_as_inputs(model.proto))
    except onnx.checker.ValidationError as error:
        if not _runs(model):  # a formality, such as a shape or an IR version, is no reason to refuse what runs
            raise ModelError(f"{path}: not a valid ONNX model: {_first_line(error)}; export it again") from error
    _check_activations(model.proto, path)


def check_sizes(model: OnnxModel, sizes: Mapping[str, Sequence[int]]) -> None:
    """Check that a model which leaves sizes open can be run on images of the sizes that it will be given.

    Args:
        model: The model; one whose sizes are fixed was checked when it was read.
        sizes: Shape of one sample of each input, without the batch axis.

    Raises:
        ModelError: It holds too much at a time.
    """
    if all(isinstance(side, int) for info in model.inputs for side in info.shape[1:]):
        return
    proto = onnx.ModelProto()
    proto.CopyFrom(model.graph)
    for value in proto.graph.input:
        for dim, side in zip(value.type.tensor_type.shape.dim[1:], sizes.get(value.name, ()), strict=False):
            if dim.dim_value <= 0:
                dim.dim_value = side
    del proto.graph.value_info[:]  # may be for other sizes
    _check_activations(proto, model.path)


def _check_activations(proto: onnx.ModelProto, path: Path) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name for value in proto.graph.input} - weights
    check_activations(inferred_shapes(proto, of_values=True), inputs, path)


def _runs(model: LightModel) -> bool:
    """Does ONNX Runtime load it?"""
    try:
        inference_session(_plain(model), session_options())
    except Exception:  # noqa: BLE001 - onnxruntime raises a class of its own for each status code
        return False
    return True


def _plain(model: LightModel) -> LightModel:
    """The same model without what only few tools read: local functions, sparse constants, an IR older than its form.

    Large constants of nodes become initializers, whose values need not stand in the graph.
    """
    proto, weights = model.proto, dict(model.weights)
    if proto.functions:
        from onnx.inliner import inline_local_functions

        proto = inline_local_functions(proto)
    graph = proto.graph
    graph.initializer.extend(
        constant_from_array(sparse.values.name, dense_array(sparse), weights) for sparse in graph.sparse_initializer
    )
    del graph.sparse_initializer[:]
    given = {value.name for value in graph.output}
    lifted = [node for node in graph.node if is_large_constant(node) and node.output[0] not in given]
    for node in lifted:
        graph.initializer.append(
            constant_from_array(node.output[0], numpy_helper.to_array(node.attribute[0].t), weights)
        )
        graph.node.remove(node)
    if lifted:
        proto = with_initializers(proto, list(proto.graph.initializer))  # a message keeps what was removed from it
    if proto.ir_version < 4 and {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}:
        proto.ir_version = 4
    return LightModel(proto, weights)


def _refuse_layout_optimized(proto: onnx.ModelProto, path: Path) -> None:
    if any(node.domain == "com.microsoft.nchwc" for node in nodes_within(proto.graph)):
        raise ModelError(
            f"{path}: expected a model for any machine, found one that ONNX Runtime saved after optimizing it for one "
            "(nodes of com.microsoft.nchwc); give the model before that"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def with_free_batch(model: AnyModel) -> LightModel:
    """The model with the first axis of its inputs free; shapes that may depend on it are removed."""
    light = light_model(model)
    result = onnx.ModelProto()
    result.CopyFrom(light.proto)
    initializers = {tensor.name for tensor in result.graph.initializer}
    for value in result.graph.input:
        if value.name not in initializers and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del result.graph.value_info[:]
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    return LightModel(result, light.weights)


def fixed_batch(proto: onnx.ModelProto) -> int | None:
    """The batch size that a model requires: the first axis of its first input; None if any will do."""
    initializers = {tensor.name for tensor in proto.graph.initializer}
    first = next((value for value in proto.graph.input if value.name not in initializers), None)
    dims = first.type.tensor_type.shape.dim if first is not None else ()
    return int(dims[0].dim_value) if dims and dims[0].dim_value > 0 else None
