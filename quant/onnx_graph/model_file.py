"""Models as files: one file, or from a stated size on, the graph in one file and the weights in another beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import onnx

from calib.files import Transaction
from quant.errors import BuildError
from quant.onnx_graph.light_model import AnyModel, LightModel, is_aside, light_model, whole_model, with_initializers
from quant.settings.output_names import data_name

LARGEST_FILE = 1 << 30  # bytes of weights that stand in the model's own file; ONNX allows twice as much
_LARGEST_MESSAGE = 2**31 - 1  # bytes of a Protobuf message
_PAGE = 4096  # weights begin at multiples of it, so that they can be mapped into memory


def stage_model(files: Transaction, name: str, model: AnyModel, *, replaces: bool = True) -> None:
    """Write a model, and its weights beside it where it is large.

    Args:
        files: Where to.
        name: The model's file name; that of its weights is `data_name` of it.
        model: The model.
        replaces: Whether the name is ours, so that a file of weights of an older model beside it goes.

    Raises:
        BuildError: The graph alone is too large for a file.
    """
    light = light_model(model)
    if not has_data_file(light):
        if replaces:
            files.discard(data_name(name))
        files.stage(name).write_bytes(serialized(whole_model(light), name))
        return
    files.discard(name)  # first, so that an older graph never lies beside the new weights, whatever happens in between
    with files.stage(data_name(name)).open("wb") as data:
        for piece in _pieces_of_weights(light):
            data.write(piece)
    files.stage(name).write_bytes(serialized(_with_places(light, data_name(name)), name))


def has_data_file(model: LightModel) -> bool:
    """Do a model's weights lie in a file of their own?"""
    return model.bytes_of_weights >= LARGEST_FILE


def sha256_of_model(model: LightModel, name: str) -> str:
    """SHA-256 (hex) of the file, or of both, one after the other, that `stage_model` would write."""
    if not has_data_file(model):
        return hashlib.sha256(serialized(whole_model(model), name)).hexdigest()
    digest = hashlib.sha256(serialized(_with_places(model, data_name(name)), name))
    for piece in _pieces_of_weights(model):
        digest.update(piece)
    return digest.hexdigest()


def bytes_of_model(model: LightModel, name: str) -> int:
    """Size of the file, or of both, that `stage_model` would write; the weights are not copied to find it."""
    if has_data_file(model):
        places = list(_places(model))
        size: int = _with_places(model, data_name(name)).ByteSize()
        return size + (places[-1][1] + places[-1][2] if places else 0)
    # As Protobuf would serialise it: each field that holds others has a tag of one byte and their length before them.
    rest = with_initializers(model.proto, [tensor for tensor in model.proto.graph.initializer if not is_aside(tensor)])
    graph: int = rest.graph.ByteSize()
    for tensor in model.proto.graph.initializer:
        if is_aside(tensor):
            bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            graph += _framed(bare.ByteSize() + _framed(model.weights[tensor.name].nbytes))
    rest.ClearField("graph")
    return int(rest.ByteSize()) + _framed(graph)


def serialized(proto: onnx.ModelProto, name: str) -> bytes:
    """The contents of a model's file.

    Raises:
        BuildError: One file cannot hold it.
    """
    try:
        contents: bytes = proto.SerializeToString()
    except Exception as error:  # protobuf raises its own EncodeError, or ValueError; which depends on its back end
        raise BuildError(f"{name}: expected a graph below 2 GiB, which one ONNX file holds; split the model") from error
    return contents


def _framed(size: int) -> int:
    """Bytes of a field of Protobuf that holds so many bytes: a tag, their number in groups of 7 bits, and they."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size


def _places(model: LightModel) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each of the weights in a file of their own."""
    offset = 0
    for tensor in model.proto.graph.initializer:
        if is_aside(tensor):
            size = model.weights[tensor.name].nbytes
            yield tensor.name, offset, size
            offset += -(-size // _PAGE) * _PAGE


def _with_places(model: LightModel, location: str) -> onnx.ModelProto:
    """The graph, with the place of each of its weights in the file beside it."""
    places = {name: (offset, size) for name, offset, size in _places(model)}
    result = onnx.ModelProto()
    result.CopyFrom(model.proto)
    for tensor in result.graph.initializer:
        if is_aside(tensor):
            offset, size = places[tensor.name]
            tensor.ClearField("external_data")
            for key, value in (("location", location), ("offset", str(offset)), ("length", str(size))):
                tensor.external_data.add(key=key, value=value)
    return result


def _pieces_of_weights(model: LightModel) -> Iterator[memoryview]:
    """The contents of the file of weights, one of them at a time."""
    end = 0
    for name, offset, size in _places(model):
        yield memoryview(bytes(offset - end))
        yield np.ascontiguousarray(model.weights[name]).reshape(-1).view(np.uint8).data
        end = offset + size
