"""Nodes that depend on constants alone, computed once.

ONNX Runtime computes them, which is what FP32 is measured with: another implementation of an operator may give other
values. Only tensors are folded; what ONNX Runtime refuses, and what is no tensor, stays a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from quant.onnx_graph.light_model import session_options

Array = NDArray[Any]

_MAX_FOLDED_VALUES = 1 << 24  # a constant sub-graph is not folded into a larger array than this
_MAX_GROWN_VALUES = 1 << 20  # nor where that repeats values to more than this
_MOVING = {"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"}  # as many values as before
_RANDOM = ("Random", "Multinomial", "Bernoulli")
PAIRS = ("QuantizeLinear", "DequantizeLinear")


def fold(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Array], proto: onnx.ModelProto, kept: Callable[[str], bool]
) -> list[onnx.NodeProto]:
    """Add the values of foldable nodes to the constants; returns the nodes that are left, in order.

    Args:
        nodes: Of the graph, in order.
        constants: By name; what is folded is added.
        proto: The model: its opset.
        kept: Must this tensor stay the result of a node?
    """
    left = list(nodes)
    refused: set[int] = set()
    while True:
        ready = [node for node in left if id(node) not in refused and _is_foldable(node, constants, kept)]
        if not ready:
            return left
        found = _values(ready, constants, proto)
        refused |= {id(node) for node in ready if any(name and name not in found for name in node.output)}
        done = {id(node) for node in ready} - refused
        constants.update((name, found[name]) for node in ready if id(node) in done for name in node.output if name)
        left = [node for node in left if id(node) not in done]


def _is_foldable(node: onnx.NodeProto, constants: Mapping[str, Array], kept: Callable[[str], bool]) -> bool:
    names = [name for name in node.input if name]
    if node.domain not in ("", "ai.onnx") or node.op_type in PAIRS or node.op_type.startswith(_RANDOM):
        return False
    if any(name not in constants for name in names) or any(kept(name) for name in node.output):
        return False
    if node.op_type == "Dropout" and len(names) > 2:  # in training mode
        return False
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return False
    large = sum(constants[name].size for name in names) > _MAX_FOLDED_VALUES
    return not (large and node.op_type not in _MOVING) and _grown_values(node, constants) <= _MAX_GROWN_VALUES


def _grown_values(node: onnx.NodeProto, constants: Mapping[str, Array]) -> int:
    """How many values a node that repeats constants would give; 0 for others."""
    if node.op_type not in ("ConstantOfShape", "Expand", "Tile"):
        return 0
    sizes = constants[node.input[-1]].astype(np.int64)
    before = 1 if node.op_type == "ConstantOfShape" else constants[node.input[0]].size
    return int(before * np.maximum(sizes, 1).astype(np.float64).prod())


def _values(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], proto: onnx.ModelProto
) -> dict[str, Array]:
    """Results of nodes whose inputs are all constants; of those that give no tensor, or fail, none."""
    plain = {node.output[0]: value for node in nodes if (value := _plain_value(node, constants)) is not None}
    others = [node for node in nodes if node.output[0] not in plain and node.op_type != "Constant"]
    if not others:
        return plain
    try:
        return plain | _run(others, constants, proto)
    except Exception:  # noqa: BLE001 - onnxruntime raises a class for each status; one of the nodes cannot be computed
        if len(others) == 1:
            return plain
    for node in others:
        plain |= _values([node], constants, proto)
    return plain


def _plain_value(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Array | None:
    """The value of a node that computes nothing: a Constant, or a view of another constant; None for other nodes."""
    given = constants.get(node.input[0]) if len(node.input) == 1 else None
    if given is not None and node.op_type == "Identity":
        return given
    if given is not None and node.op_type == "Transpose":
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(given.ndim))[::-1])
        return given.transpose(order) if sorted(order) == list(range(given.ndim)) else None
    return _value_of_constant(node)


def _value_of_constant(node: onnx.NodeProto) -> Array | None:
    """The value of a Constant node; None for other nodes, and for one that holds no tensor of numbers."""
    if node.op_type != "Constant" or not node.attribute:
        return None
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    if attribute.name == "sparse_value":
        return dense_array(value)
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.array(value, kinds[attribute.name]) if attribute.name in kinds else None


def dense_array(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse tensor with its zeros."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        result.reshape(-1)[indices] = values
    else:
        result[tuple(indices.T)] = values
    return result


def _run(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], proto: onnx.ModelProto) -> dict[str, Array]:
    import onnxruntime

    names = list(dict.fromkeys(name for node in nodes for name in node.input if name))
    outputs = [name for node in nodes for name in node.output if name]
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(constants[name].dtype), constants[name].shape
        )
        for name in names
    ]
    graph = onnx.helper.make_graph(
        list(nodes), "constants", inputs, [onnx.helper.make_empty_tensor_value_info(name) for name in outputs]
    )
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=max(proto.ir_version, 4))
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run(outputs, {name: constants[name] for name in names})
    return {
        name: np.asarray(value)
        for name, value in zip(outputs, results, strict=True)
        if isinstance(value, np.ndarray | np.generic)
    }
