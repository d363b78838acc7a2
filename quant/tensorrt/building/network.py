"""From an ONNX model to TensorRT's network: batch sizes and parsing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx

from quant.errors import BuildError
from quant.onnx_graph.model import OnnxModel, opset_of
from quant.onnx_graph.model_file import serialized
from quant.settings.batch_range import BatchRange, SideRange
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.log import LogSection, logger
from quant.tensorrt.rewrites.kernel_shapes import state_kernel_shapes
from quant.tensorrt.rewrites.shape_parts import split_shape_parts

_CHANNELS = (1, 3, 4)
NEWEST_OPSET = {8: 17, 10: 22}  # that the release's parser reads; 11 reads all that this project's onnx writes


def fitted_batch(model: OnnxModel, batch: BatchRange, note: Callable[[str], None]) -> BatchRange:
    """The batch size that a model requires, which a note says; the one that is wanted if it requires none."""
    fixed = model.fixed_batch
    if fixed is None or batch.smallest == batch.largest == fixed:
        return batch
    note(f"{model.path}: requires a batch of {fixed}, which is used instead of {batch}")
    return BatchRange(fixed, fixed, fixed, batch.sides)


def prepared_proto(proto: onnx.ModelProto, batch: BatchRange, name: str) -> onnx.ModelProto:
    """A copy for the parser: with a name for every node, and with the batch size in the inputs if there is only one.

    What the parser of TensorRT 8.6 would misread is rewritten, see `split_shape_parts` and `state_kernel_shapes`.

    Fixing the size in the model, not in a profile, lets the builder fold all shape arithmetic. Heights and widths that
    have ranges stay open.

    Args:
        proto: The model; not edited.
        batch: Sizes wanted.
        name: What to call the model in messages.

    Raises:
        BuildError: The model fixes another batch size, height or width, or leaves an axis open that has no range, see
            `open_axes`.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    initializers = {tensor.name for tensor in copy.graph.initializer}
    if batch.sides is not None:
        _check_sides([v for v in copy.graph.input if v.name not in initializers], batch.sides, name)
    for value in copy.graph.input:
        if value.name not in initializers:
            _set_batch(value, batch, name)
    if batch.is_static:
        del copy.graph.value_info[:]  # inferred for the old batch
    for i, node in enumerate(copy.graph.node):
        if not node.name:
            node.name = next((output for output in node.output if output), f"node_{i}")
    split_shape_parts(copy)
    state_kernel_shapes(copy)
    return copy


def _set_batch(value: onnx.ValueInfoProto, batch: BatchRange, name: str) -> None:
    dims = value.type.tensor_type.shape.dim
    if not dims:
        raise BuildError(f"{name}: input '{value.name}' has no batch axis; TensorRT builds need one")
    ranged = side_axes([dim.dim_value for dim in dims]) if batch.sides is not None else ()
    open_axes = [i for i, dim in enumerate(dims) if i and dim.dim_value <= 0 and i not in ranged]
    if open_axes:
        raise BuildError(
            f"{name}: input '{value.name}': expected sizes on all axes but the batch, found axis {open_axes[0]} open; "
            "state the size with --input-size HEIGHTxWIDTH, or give data, which fixes it"
        )
    fixed = dims[0].dim_value
    if fixed > 0 and not batch.smallest == batch.largest == fixed:
        raise BuildError(
            f"{name}: input '{value.name}' has the fixed batch {fixed}, expected {batch}; "
            "export the model with a free batch axis"
        )
    if batch.is_static:
        dims[0].Clear()
        dims[0].dim_value = batch.usual


def side_axes(sizes: Sequence[int]) -> tuple[int, int] | tuple[()]:
    """Which axes of an input are the height and width of images, by its sizes, of which open ones are not positive.

    None if it does not hold images: [N, C, H, W], or [N, H, W, C] with 1, 3 or 4 channels.
    """
    if len(sizes) != 4:
        return ()
    return (1, 2) if sizes[3] in _CHANNELS and sizes[1] not in _CHANNELS else (2, 3)


def _check_sides(inputs: Sequence[onnx.ValueInfoProto], sides: tuple[SideRange, SideRange], name: str) -> None:
    """Check that ranges of height and width are of open axes, and that there are some.

    Raises:
        BuildError: They are not.
    """
    found = False
    for value in inputs:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for axis, side, word in zip(side_axes(sizes), sides, ("height", "width"), strict=False):
            found |= sizes[axis] <= 0
            if sizes[axis] > 0 and not side.smallest == side.largest == sizes[axis]:
                raise BuildError(
                    f"{name}: input '{value.name}' has the fixed {word} {sizes[axis]}, expected {side}; "
                    f"give {sizes[axis]} for the {word}, or a model that leaves it open"
                )
    if not found:
        raise BuildError(
            f"{name}: expected an input of images whose height or width is open, for the ranges of --dynamic, found "
            "none; give a range for the batch only"
        )


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
        BuildError: TensorRT cannot read the model; the message names the node and quotes TensorRT.
    """
    trt = tensorrt.module
    newest = NEWEST_OPSET.get(tensorrt.major)
    opset = opset_of(proto)
    network = builder.create_network(tensorrt.network_flags(strongly_typed=strongly_typed))
    parser = trt.OnnxParser(network, logger(tensorrt))
    if not parser.parse(serialized(proto, "TensorRT's parser")):
        hint = ""
        if newest is not None and opset > newest:
            hint = (
                f"; TensorRT {tensorrt.release} reads opsets up to {newest}, this is {opset}: export with an older one"
            )
        raise BuildError(f"TensorRT {tensorrt.release} cannot read {_parser_errors(parser, proto, log)}{hint}")
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
    said = " ".join(error.desc().split())
    if said == "false":  # an assertion without words; its code says what kind of fault it is
        said = str(error.code()).rpartition(".")[2]
    return f"{where}: {said}{more}"
