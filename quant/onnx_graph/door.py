"""What a model must be before anything is done with it: readable names, an interface, sizes that can be run.

ONNX itself asks for none of this: a name may be any bytes, a type any number, and a shape any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from datasets.guards.regular_file import kind_of
from quant.errors import ModelError
from quant.onnx_graph.tracing import nodes_within

MOST_FILE_BYTES = 2**31  # protobuf reads no larger message; weights beyond that are in files beside the model
MOST_BATCH = 4096  # of a model with a fixed batch: a run of it takes that many images, however few there are
MOST_VALUES = 2**28  # of an input, for one image: 1 GiB as float32
_DIVISORS = ("strides", "dilations", "kernel_shape", "group", "blocksize", "num_groups")
MOST_AT_ONCE = 2**29  # of an input of a model with a fixed batch, which cannot be run in parts; of any other tensor


def check_model_file(path: Path) -> None:
    """Check, before it is opened, that there is a file which protobuf can read.

    Raises:
        ModelError: There is none, or it is too large.
    """
    found = kind_of(path)
    if found != "a file":
        raise ModelError(f"{path}: expected an ONNX model, found {found}; give the file with --model")
    size = path.stat().st_size
    if size >= MOST_FILE_BYTES:
        raise ModelError(
            f"{path}: expected an ONNX model below 2 GiB, found a file of {size / 2**30:.1f} GiB; export it with its "
            "weights in a file beside it (external data)"
        )


def check_texts(proto: onnx.ModelProto, path: Path) -> None:
    """Check that all names and texts of a model are UTF-8.

    Raises:
        ModelError: One is not; the message says of what it is a field.
    """
    try:
        spoiled = next(_spoiled_texts(proto), None)
    except UnicodeDecodeError as error:
        spoiled = error.object
    if spoiled is not None:
        raise ModelError(f"{path}: expected names and texts in UTF-8, found {spoiled[:40]!r}; export the model again")


def _spoiled_texts(message: Any) -> Iterator[bytes]:  # noqa: ANN401 - protobuf messages have no common type with fields
    """Texts of a message and of those inside it that are not UTF-8; some versions of protobuf raise at the first."""
    if isinstance(message, onnx.TensorProto):  # without its values, which would be copied
        yield from _bytes_of(message.name, message.doc_string)
        for entry in message.external_data:
            yield from _spoiled_texts(entry)
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            if field.type == field.TYPE_STRING:
                yield from _bytes_of(*([value] if isinstance(value, str | bytes) else value))
        elif hasattr(value, "ListFields"):
            yield from _spoiled_texts(value)
        else:
            for item in value:
                yield from _spoiled_texts(item)


def _bytes_of(*texts: str | bytes) -> Iterator[bytes]:
    yield from (text for text in texts if isinstance(text, bytes))


def check_interface(proto: onnx.ModelProto, path: Path) -> None:
    """Check that a model has inputs and outputs of known types, and inputs of a size that can be run.

    Raises:
        ModelError: It does not.
    """
    graph = proto.graph
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    if not inputs:
        raise ModelError(f"{path}: expected a model with an input, found none")
    if not graph.output:
        raise ModelError(f"{path}: expected a model with an output, found none; export it again")
    known = set(onnx.TensorProto.DataType.values())
    for what, values in (("input", inputs), ("output", graph.output)):
        for value in values:
            if value.type.tensor_type.elem_type not in known:
                raise ModelError(
                    f"{path}: expected an {what} '{value.name}' of a type that onnx {onnx.__version__} knows, found "
                    f"number {value.type.tensor_type.elem_type}; export it again"
                )
    for value in inputs:
        _check_size(value, path)
    for node in nodes_within(graph):
        _check_divisors(node, path)


def _check_divisors(node: onnx.NodeProto, path: Path) -> None:
    """Libraries divide by these numbers, and some divide by zero."""
    for attribute in node.attribute:
        numbers = attribute.ints or (attribute.i,)
        if node.domain in ("", "ai.onnx") and attribute.name in _DIVISORS and min(numbers) < 1:
            raise ModelError(
                f"{path}: expected positive {attribute.name} in node '{node.name}' ({node.op_type}), found "
                f"{list(numbers)}; export it again"
            )


def _check_size(value: onnx.ValueInfoProto, path: Path) -> None:
    sizes = [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]
    batch, values = (sizes or [1])[0], math.prod(sizes[1:])
    if values > MOST_VALUES:
        raise ModelError(
            f"{path}: expected an input '{value.name}' of at most {MOST_VALUES:,} values for an image, found "
            f"{values:,} ({' x '.join(map(str, sizes[1:]))}); export it for smaller images"
        )
    if batch > MOST_BATCH or batch * values > MOST_AT_ONCE:
        raise ModelError(
            f"{path}: expected a batch of at most {min(MOST_BATCH, max(MOST_AT_ONCE // values, 1)):,}, found one fixed "
            f"at {batch:,} (input '{value.name}'), which every run would have to fill; export it with a free batch"
        )


def check_activations(inferred: onnx.ModelProto, path: Path) -> None:
    """Check that no node gives a tensor that is too large to be run, as far as shapes can be told without running it.

    Args:
        inferred: The model with the shapes that ONNX can infer; open sizes count as 1.
        path: Where it was read from.

    Raises:
        ModelError: One does; the message names the node.
    """
    writers = {name: node for node in inferred.graph.node for name in node.output}
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        sizes = [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]
        node = writers.get(value.name)
        if node is not None and math.prod(sizes) > MOST_AT_ONCE:
            raise ModelError(
                f"{path}: expected tensors of at most {MOST_AT_ONCE:,} values, found '{value.name}' of {node.op_type} "
                f"'{node.name}' with {math.prod(sizes):,} ({' x '.join(map(str, sizes))}); export it for smaller images"
            )
