"""From an ONNX model to TensorRT's network: batch sizes, parsing, and the scales of TensorRT's inner tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quant.errors import BuildError
from quant.tensorrt_log import LogSection, logger
from quant.tensorrt_version import TensorRT

NEWEST_OPSET = {8: 17, 10: 22}  # what the parser of each release reads; 11 reads all that this project's onnx writes


@dataclass(frozen=True)
class BatchRange:
    """Batch sizes that an engine takes.

    Attributes:
        smallest: At least this; smaller batches are filled up.
        usual: What the engine is tuned for.
        largest: At most this; larger batches run in pieces.
    """

    smallest: int
    usual: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.usual <= self.largest:
            raise BuildError(
                f"dynamic batch: expected 1 <= MIN <= OPT <= MAX, found {self.smallest}:{self.usual}:{self.largest}"
            )

    @property
    def is_static(self) -> bool:
        """One size only."""
        return self.smallest == self.largest

    def __str__(self) -> str:
        return f"{self.usual}" if self.is_static else f"{self.smallest}:{self.usual}:{self.largest}"


def batch_range_from_text(text: str) -> BatchRange:
    """MIN:OPT:MAX.

    Raises:
        BuildError: Not three whole numbers in rising order.
    """
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", text)
    if match is None:
        raise BuildError(f"dynamic batch: expected MIN:OPT:MAX, 1:8:64 for instance, found '{text}'")
    return BatchRange(*(int(part) for part in match.groups()))


def prepared_proto(proto: onnx.ModelProto, batch: BatchRange, name: str) -> onnx.ModelProto:
    """A copy for the parser: batch size written into the inputs where it is one, and a name for every node.

    Fixing the size in the model, and not by a profile, lets the builder fold all shape arithmetic.

    Args:
        proto: The model; not edited.
        batch: Sizes wanted.
        name: What to call the model in messages.

    Raises:
        BuildError: The model fixes another batch size, or leaves another axis than the batch open.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    initializers = {tensor.name for tensor in copy.graph.initializer}
    for value in copy.graph.input:
        if value.name not in initializers:
            _set_batch(value, batch, name)
    if batch.is_static:
        del copy.graph.value_info[:]  # inferred for the old batch
    for i, node in enumerate(copy.graph.node):
        if not node.name:
            node.name = next((output for output in node.output if output), f"node_{i}")
    return copy


def _set_batch(value: onnx.ValueInfoProto, batch: BatchRange, name: str) -> None:
    dims = value.type.tensor_type.shape.dim
    if not dims:
        raise BuildError(f"{name}: input '{value.name}' has no batch axis; TensorRT builds need one")
    open_axes = [i for i, dim in enumerate(dims) if i and dim.dim_value <= 0]
    if open_axes:
        raise BuildError(
            f"{name}: input '{value.name}': expected sizes on all axes but the batch, found axis {open_axes[0]} open; "
            "export the model with fixed sizes"
        )
    fixed = dims[0].dim_value
    if fixed > 0 and (not batch.is_static or fixed != batch.largest):
        raise BuildError(
            f"{name}: input '{value.name}' has the fixed batch {fixed}, expected {batch}; "
            "export the model with a free batch axis"
        )
    if batch.is_static:
        dims[0].Clear()
        dims[0].dim_value = batch.usual


def fixed_batch(proto: onnx.ModelProto) -> int | None:
    """The batch size that the model demands; None when any will do."""
    initializers = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in initializers and dims and dims[0].dim_value > 0:
            return int(dims[0].dim_value)
    return None


def network_from_proto(
    tensorrt: TensorRT,
    builder: Any,  # noqa: ANN401 - the bindings have no types
    proto: onnx.ModelProto,
    log: LogSection,
    *,
    strongly_typed: bool,
) -> tuple[Any, Any]:
    """Parse a model.

    Returns:
        The network, and the parser: it owns the weights and must live until the build is done.

    Raises:
        BuildError: TensorRT cannot read the model; names the node and quotes TensorRT.
    """
    trt = tensorrt.module
    newest = NEWEST_OPSET.get(tensorrt.major)
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    network = builder.create_network(tensorrt.network_flags(strongly_typed=strongly_typed))
    parser = trt.OnnxParser(network, logger())
    if not parser.parse(proto.SerializeToString()):
        hint = ""
        if newest is not None and opset > newest:
            hint = f"; TensorRT {tensorrt.version} reads opsets up to {newest}, this is {opset}: export an older one"
        raise BuildError(f"TensorRT cannot read {_parser_errors(parser, proto, log)}{hint}")
    return network, parser


def _parser_errors(parser: Any, proto: onnx.ModelProto, log: LogSection) -> str:  # noqa: ANN401 - no types
    if parser.num_errors == 0:
        return f"the model: {log.reason()}"
    error = parser.get_error(0)
    index = error.node()
    where = "the model"
    if 0 <= index < len(proto.graph.node):
        node = proto.graph.node[index]
        where = f"node '{node.name}' ({node.op_type})"
    more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    return f"{where}: {' '.join(error.desc().split())}{more}"


def inner_amax(
    tensorrt: TensorRT,
    network: Any,  # noqa: ANN401 - the bindings have no types
    proto: onnx.ModelProto,
    amax: Mapping[str, float],
) -> dict[str, float]:
    """Amax of tensors that exist in TensorRT's network only, as far as it follows from the model and known amax.

    A Gemm becomes constants, a matrix product, a reshaped bias and a sum; TensorRT runs none of these in INT8 when one
    scale is missing. A constant gets its largest magnitude: its values are known, so nothing need be clipped. What only
    moves data (Shuffle) gets what it moves. The product is the output minus the bias, so the sum of both magnitudes
    bounds it. All else stays without a scale, and in float.

    Args:
        tensorrt: The release.
        network: Parsed from `proto`.
        proto: The model.
        amax: Of the model's own tensors, activation units.

    Returns:
        Additional entries by TensorRT's tensor name, activation units; all positive.
    """
    trt = tensorrt.module
    constants = _constant_maxima(proto)
    products = _product_bounds(proto, constants, amax)
    found: dict[str, float] = {}
    for layer in _layers(network):
        if not layer.num_outputs:
            continue
        tensor = layer.get_output(0)
        if tensor.name in amax or tensor.dtype not in (trt.DataType.FLOAT, trt.DataType.HALF):
            continue
        value = None
        if layer.type == trt.LayerType.CONSTANT:
            value = constants.get(layer.name, constants.get(re.sub(r"_\d+$", "", layer.name)))
        elif layer.type == trt.LayerType.SHUFFLE:
            source = layer.get_input(0).name
            value = amax.get(source, found.get(source))
        elif layer.type == trt.LayerType.MATRIX_MULTIPLY:
            value = products.get(layer.name)
        if value is not None:
            found[tensor.name] = value if value > 0 else 1.0  # zeros: any positive scale represents them
    return found


def _layers(network: Any) -> Iterator[Any]:  # noqa: ANN401 - the bindings have no types
    for i in range(network.num_layers):
        yield network.get_layer(i)


def _constant_maxima(proto: onnx.ModelProto) -> dict[str, float]:
    """Largest magnitude of each float constant, by the names TensorRT may give its layer."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is not None:
            tensors[node.output[0]] = value
            tensors[node.name] = value
    maxima = {}
    for name, tensor in tensors.items():
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            array = numpy_helper.to_array(tensor)
            maxima[name] = float(np.abs(array.astype(np.float32)).max()) if array.size else 0.0
    return maxima


def _product_bounds(
    proto: onnx.ModelProto, constants: Mapping[str, float], amax: Mapping[str, float]
) -> dict[str, float]:
    """Bound of the product inside each Gemm, by node name."""
    bounds = {}
    for node in proto.graph.node:
        if node.op_type != "Gemm" or node.output[0] not in amax:
            continue
        beta = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "beta"), 1.0)
        bias = node.input[2] if len(node.input) > 2 else ""
        if not bias or bias in constants:
            bounds[node.name] = amax[node.output[0]] + abs(beta) * constants.get(bias, 0.0)
    return bounds
