"""Weights that lie in files beside a model: mapped into memory where they can be used as they lie there."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.errors import ModelError
from quant.onnx_graph.light_model import DTYPES, constant_aside, is_large
from quant.onnx_graph.tracing import inner_graphs

Array = NDArray[Any]


def take_external_data(proto: onnx.ModelProto, path: Path) -> tuple[dict[str, Array], list[Path]]:
    """Find the weights of a model that lie in other files, and take their place in the graph.

    Args:
        proto: The model; edited: small constants get their values, large ones become constants of a light model.
        path: Its file.

    Returns:
        The large weights by name, and the files that weights lie in.

    Raises:
        ModelError: A file is missing, or too short, or lies elsewhere than beside the model.
    """
    weights: dict[str, Array] = {}
    files: set[Path] = set()
    initializers = list(proto.graph.initializer)
    top = {id(tensor) for tensor in initializers}
    functions = chain.from_iterable(function.node for function in proto.functions)
    for tensor in chain(initializers, _tensors_of_graph(proto.graph), _tensors_of_nodes(functions)):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        file, offset, length = _place(tensor, path)
        files.add(file)
        dtype = DTYPES.get(tensor.data_type)
        try:
            if dtype is not None and id(tensor) in top and is_large(tensor):
                weights[tensor.name] = _mapped(file, offset, np.dtype(dtype), tuple(tensor.dims))
                tensor.CopyFrom(constant_aside(tensor.name, tensor.data_type, tuple(tensor.dims)))
                continue
            with file.open("rb") as opened:
                opened.seek(offset)
                tensor.raw_data = opened.read(length)
        except OSError as error:
            raise ModelError(f"{path}: external data cannot be read: {error.strerror or error}") from error
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return weights, sorted(files)


def _place(tensor: onnx.TensorProto, path: Path) -> tuple[Path, int, int]:
    """The file that holds a tensor's values, where they begin in it, and how many bytes they take."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    relative = PurePosixPath(location.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or Path(location).is_absolute():
        raise ModelError(
            f"{path}: expected the external data of '{tensor.name}' beside the model, found '{location}'; export the "
            "model again"
        )
    file = path.parent / relative
    try:
        there = stat.S_ISREG(file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name with a zero in it
        there = False
    except OSError as error:
        raise ModelError(
            f"{path}: expected the external data of '{tensor.name}' beside the model, found a name that cannot be "
            f"opened ({error.strerror}): '{location:.100}'"
        ) from error
    if not there:
        raise ModelError(
            f"{path}: expected the external data of '{tensor.name}' in '{location}' beside the model, found no such "
            "file; copy it there"
        )
    size = file.stat().st_size
    dtype = DTYPES.get(tensor.data_type)
    needed = None if dtype is None else math.prod(tensor.dims) * np.dtype(dtype).itemsize
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else (needed if needed is not None else size - offset)
    except ValueError:
        raise ModelError(
            f"{path}: expected numbers for the place of '{tensor.name}' in '{location}', found {entries}; export the "
            "model again"
        ) from None
    if offset < 0 or length < 0 or offset + length > size or (needed is not None and length != needed):
        raise ModelError(
            f"{path}: expected {needed if needed is not None else length:,} bytes of '{tensor.name}' at byte "
            f"{offset:,} of '{location}', found {length:,} there and {size:,} in all; copy the file again, or export "
            "the model again"
        )
    return file, offset, length


def _mapped(file: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Values in a file, read when they are used; read at once where they do not lie as the processor wants them."""
    if offset % dtype.itemsize:
        with file.open("rb") as opened:
            opened.seek(offset)
            return np.fromfile(opened, dtype, math.prod(shape)).reshape(shape)
    return np.asarray(np.memmap(file, dtype, "r", offset, shape))


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Constants of a graph, but for its own dense initializers, and of the graphs inside it."""
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors
        for graph in inner_graphs(node):
            yield from graph.initializer
            yield from _tensors_of_graph(graph)
