"""The ONNX model: reading and checking it, its float tensors, and the rewrites that go before quantization."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from quant.errors import ModelError

FLOAT_TYPES = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
_MAX_FOLDED_VALUES = 1 << 24  # a constant sub-graph is not folded into a larger array than this
_MAX_GROWN_VALUES = 1 << 20  # nor where that repeats values to more than this


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output.

    Attributes:
        name: Tensor name.
        shape: Sizes; a string or None where an axis is free.
        dtype: NumPy name of the element type.
    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: str


class ModelInterface(Protocol):
    """What data must fit: a model, or an engine."""

    @property
    def path(self) -> Path: ...  # noqa: D102 - see the class
    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...  # noqa: D102 - see the class
    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class OnnxModel:
    """A model that parsed and checked; `proto` is never edited in place.

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
        """Size of the first axis of the first input when the model fixes it; None when it is free."""
        shape = self.inputs[0].shape
        return shape[0] if shape and isinstance(shape[0], int) else None


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
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise ModelError(f"{path}: expected an ONNX model, found {found}; give the file with --model")
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
    newest = onnx.defs.onnx_opset_version()
    if opset_of(proto) > newest:
        raise ModelError(
            f"{path}: expected an opset up to {newest} (onnx {onnx.__version__}), found {opset_of(proto)}; "
            "export with an older opset, 17 for instance, or upgrade onnx and onnxruntime"
        )
    external = _load_external_data(proto, path)
    with ThreadPoolExecutor(1) as pool:  # a large model takes as long to hash as to check
        sha256 = pool.submit(_sha256, [path, *external])
        _check(path, proto, from_file=not external and _is_utf8(path))
        model = OnnxModel(path, proto, sha256.result())
    if not model.inputs:
        raise ModelError(f"{path}: expected a model with an input, found none")
    return model


def _load_external_data(proto: onnx.ModelProto, path: Path) -> list[Path]:
    """Load tensors that lie in files beside the model; returns those files."""
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
    except Exception as error:  # onnx raises several kinds, depending on what of the file is wrong
        raise ModelError(
            f"{path}: external data cannot be read: {_first_line(error)}; export the model again"
        ) from error
    return sorted(files)


def _check(path: Path, proto: onnx.ModelProto, *, from_file: bool) -> None:
    """Check a model; the checker is quicker with a file than with a model, which has to be written out for it."""
    try:
        if from_file:
            onnx.checker.check_model(str(path))
        elif proto.ByteSize() < 2**31 - 1:  # a larger one cannot be written out; ONNX Runtime checks it again
            onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path}: not a valid ONNX model: {_first_line(error)}; export it again") from error


def _is_utf8(path: Path) -> bool:
    """Can the checker be given a path? It takes no other encoding, which files may well have."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _sha256(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def with_free_batch(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the first axis of its inputs free, whatever it was; shapes that may depend on it are forgotten."""
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


class GraphEditor:
    """An editable copy of a model, with the look-ups that rewrites need.

    Attributes:
        proto: The copy.
        nodes: Its nodes, in order; `model` puts them back.
        constants: Values of initializers and Constant nodes, by name.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        self.nodes: list[onnx.NodeProto] = list(self.proto.graph.node)
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in self.proto.graph.initializer
        }
        self.outputs = {value.name for value in self.proto.graph.output}
        self._taken = {*self.constants, *(value.name for value in self.proto.graph.input)}
        self._taken.update(name for node in self.nodes for name in (*node.output, node.name))
        self._fold_constants()

    def _fold_constants(self) -> None:
        """Turn Constant nodes, and nodes that depend on constants alone, into initializers."""
        kept = []
        for node in self.nodes:
            names = [name for name in node.input if name]
            foldable = (
                node.domain in ("", "ai.onnx")
                and all(name in self.constants for name in names)
                and not any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
                and not any(name in self.outputs for name in node.output)
                and not node.op_type.startswith(("Random", "Multinomial", "Bernoulli"))
                and sum(self.constants[name].size for name in names) <= _MAX_FOLDED_VALUES
                and node.op_type not in ("QuantizeLinear", "DequantizeLinear")
                and self._values_after(node) <= _MAX_GROWN_VALUES
            )
            if not foldable:
                kept.append(node)
                continue
            from onnx.reference import ReferenceEvaluator  # slow to import, and most models have nothing to fold

            graph = onnx.helper.make_graph(
                [node],
                "constant",
                [
                    onnx.helper.make_tensor_value_info(
                        name, onnx.helper.np_dtype_to_tensor_dtype(self.constants[name].dtype), None
                    )
                    for name in dict.fromkeys(names)
                ],
                [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
            )
            model = onnx.helper.make_model(graph, opset_imports=self.proto.opset_import)
            results = ReferenceEvaluator(model).run(None, {name: self.constants[name] for name in names})
            self.constants.update(zip((name for name in node.output if name), map(np.asarray, results), strict=True))
        self.nodes = kept

    def _values_after(self, node: onnx.NodeProto) -> int:
        """How many values a node that repeats constants would give; 0 for others."""
        if node.op_type not in ("ConstantOfShape", "Expand", "Tile"):
            return 0
        sizes = self.constants[node.input[-1]].astype(np.int64)
        before = 1 if node.op_type == "ConstantOfShape" else self.constants[node.input[0]].size
        return int(before * np.maximum(sizes, 1).astype(np.float64).prod())

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> Counter[str]:
        """How often each tensor is read, graph outputs and sub-graphs included."""
        counts = Counter(name for node in self.nodes for name in names_read(node))
        counts.update(self.outputs)
        return counts

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, or with a number behind it when a tensor or node of that name exists."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def model(self) -> onnx.ModelProto:
        """The edited model; constants that nothing reads are dropped."""
        graph = self.proto.graph
        used = set(self.consumers())
        inputs = {value.name for value in graph.input}
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.initializer[:]
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
            for name, value in self.constants.items()
            if name in used
        )
        unused = [value for value in graph.input if value.name in self.constants and value.name in inputs]
        for value in unused:
            graph.input.remove(value)
        alive = {name for node in self.nodes for name in node.output}
        info = [value for value in graph.value_info if value.name in alive]
        del graph.value_info[:]
        graph.value_info.extend(info)
        return self.proto


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, those inside its branches and loops too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            for inner in graph.node:
                yield from names_read(inner)
            yield from (value.name for value in graph.output)


def fold_batch_norm(editor: GraphEditor) -> int:
    """Fold each BatchNormalization that follows a Conv or ConvTranspose alone into its weights; returns how many.

    The convolution then gives the tensor that the BatchNormalization gave, under that name.
    """
    producers, consumers = editor.producers(), editor.consumers()
    removed = set()
    for node in editor.nodes:
        conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or consumers[conv.output[0]] != 1:
            continue
        names = [*node.input[1:5], conv.input[1], *(conv.input[2:3] if len(conv.input) > 2 else [])]
        if not all(name in editor.constants for name in names if name):
            continue
        scale, shift, mean, variance = (editor.constants[name].astype(np.float64) for name in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        weight = editor.constants[conv.input[1]]
        bias = editor.constants[conv.input[2]] if len(conv.input) > 2 and conv.input[2] else np.zeros(())
        folded_weight = editor.fresh_name(f"{conv.input[1]}_folded")
        editor.constants[folded_weight] = _scaled(weight, factor, conv).astype(weight.dtype)
        folded_bias = editor.fresh_name(f"{conv.input[1]}_folded_bias")
        editor.constants[folded_bias] = ((bias - mean) * factor + shift).astype(weight.dtype)
        data = conv.input[0]
        del conv.input[:]
        conv.input.extend([data, folded_weight, folded_bias])
        conv.output[0] = node.output[0]
        producers[node.output[0]] = conv
        removed.add(id(node))
    editor.nodes = [node for node in editor.nodes if id(node) not in removed]
    return len(removed)


def _scaled(weight: NDArray[Any], factor: NDArray[np.float64], conv: onnx.NodeProto) -> NDArray[np.float64]:
    """Convolution weights times a factor for each output channel."""
    if conv.op_type == "Conv":
        return np.asarray(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))
    # ConvTranspose: [in channels, out channels / groups, ...]; the input channels come group by group.
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    scaled = grouped * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return np.asarray(scaled.reshape(weight.shape))


def sorted_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its nodes in topological order, as ONNX demands; stable where the order is free."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    made = {name for node in graph.node for name in node.output}
    waiting = list(graph.node)
    ordered: list[onnx.NodeProto] = []
    while waiting:
        blocked = []
        for node in waiting:
            # Names that no node of this graph makes come from an outer graph or belong to a sub-graph itself.
            if all(name in known or name not in made for name in names_read(node)):
                ordered.append(node)
                known.update(node.output)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            raise ModelError(f"the graph has a cycle through node '{blocked[0].name or blocked[0].op_type}'")
        waiting = blocked
    del graph.node[:]
    graph.node.extend(ordered)
    return result
