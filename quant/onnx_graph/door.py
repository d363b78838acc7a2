"""What a model must be before anything is done with it: readable names, an interface, sizes that can be run.

ONNX itself asks for none of this: a name may be any bytes, a type any number, and a shape any size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from datasets.guards.regular_file import kind_of
from quant.errors import ModelError
from quant.onnx_graph.tracing import names_read, nodes_within

MOST_FILE_BYTES = 2**31  # protobuf reads no larger message; weights beyond that are in files beside the model
MOST_BATCH = 4096  # of a model with a fixed batch: a run of it takes that many images, however few there are
MOST_VALUES = 2**28  # of an input, for one image: 1 GiB as float32
_DIVISORS = ("strides", "dilations", "kernel_shape", "group", "blocksize", "num_groups")
MOST_AT_ONCE = 2**29  # of an input of a model with a fixed batch, which cannot be run in parts; of any other tensor
MOST_LIVE = 2**28  # of the tensors that are held at a time for one image; three times its input if that is more
MOST_LIVE_VARIABLE = "CALIB_MAX_LIVE_VALUES"  # sets another number
_MOST_LIVE_AT_ONCE = 2**30  # of a model with a fixed batch


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


def check_activations(inferred: onnx.ModelProto, inputs: Collection[str], path: Path) -> None:
    """Check that the model can be run on one image, as far as shapes can be told without running it.

    Args:
        inferred: The model with the shapes that ONNX can infer; open sizes count as 1.
        inputs: Its inputs that are no weights.
        path: Where it was read from.

    Raises:
        ModelError: A node gives a tensor that is too large, or too much is held at a time; the message names the node.
    """
    values = {
        value.name: math.prod(max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    for node in inferred.graph.node:
        large = next((name for name in node.output if values.get(name, 0) > MOST_AT_ONCE), None)
        if large is not None:
            raise ModelError(
                f"{path}: expected tensors of at most {MOST_AT_ONCE:,} values, found '{large}' of {node.op_type} "
                f"'{node.name}' with {values[large]:,} ({_shape_of(inferred, large)}); export it for smaller images"
            )
    _check_live(inferred, inputs, values, path)


def _check_live(inferred: onnx.ModelProto, inputs: Collection[str], values: Mapping[str, int], path: Path) -> None:
    shapes = [value.type.tensor_type.shape.dim for value in inferred.graph.input if value.name in inputs]
    sizes = [[max(dim.dim_value, 1) for dim in shape] for shape in shapes]
    batch = max((size[0] for size in sizes if len(size) > 1), default=1)
    given = 3 * max(map(math.prod, sizes), default=1)
    most = _set_in_the_environment() or max(min(MOST_LIVE * batch, _MOST_LIVE_AT_ONCE), given)
    held, node = most_live(inferred.graph, values)
    if held <= most:
        return
    images = "an image" if batch == 1 else f"a batch of {batch:,}"
    raise ModelError(
        f"{path}: expected a model that holds at most {most:,} values at a time for {images}, found {held:,} "
        f"({held * 4 / 2**30:.1f} GiB as float32) at {node.op_type} '{node.name}'; export it for smaller images, or "
        f"set {MOST_LIVE_VARIABLE}={held} if there is memory for several times as much"
    )


def most_live(graph: onnx.GraphProto, values: Mapping[str, int]) -> tuple[int, onnx.NodeProto]:
    """How many values are held at a time when the nodes are run in order, and at which node these are most.

    A tensor is held from the node that gives it to the last that reads it; outputs to the end. Weights do not count.

    Args:
        graph: The graph; it has a node.
        values: How many values the tensors have; others count as none.
    """
    last = {name: at for at, node in enumerate(graph.node) for name in names_read(node)}
    last |= dict.fromkeys((value.name for value in graph.output), len(graph.node))
    most, where, total = 0, graph.node[0], 0
    held: dict[str, int] = {}
    for at, node in enumerate(graph.node):
        given = {name: values.get(name, 0) for name in node.output}
        held |= given
        total += sum(given.values())
        if total > most:
            most, where = total, node
        for name in (*names_read(node), *node.output):
            if last.get(name, at) <= at:
                total -= held.pop(name, 0)
    return most, where


def _set_in_the_environment() -> int:
    text = os.environ.get(MOST_LIVE_VARIABLE, "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise ModelError(f"{MOST_LIVE_VARIABLE}: expected a number of values, such as 1000000000, found {text[:40]!r}")
    return int(text or 0)


def _shape_of(inferred: onnx.ModelProto, name: str) -> str:
    value = next(value for value in (*inferred.graph.value_info, *inferred.graph.output) if value.name == name)
    return " x ".join(str(max(dim.dim_value, 1)) for dim in value.type.tensor_type.shape.dim)
