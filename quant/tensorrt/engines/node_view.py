"""From the nodes of a model to the layers of its engine: which layers each became, and why some became none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from quant.onnx_graph.constant_folding import PAIRS

_SHAPES = {"Shape", "Size"}
_VIEWS = {"Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_REGION = re.compile(r"\{ForeignNode\[(.*?)\.\.\.(.*)\]\}", re.DOTALL)


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's name.
        kind: TensorRT's type of layer.
        precision: What it computes in: int8, fp16, fp32, int (indices, booleans) or unknown.
        nodes: Names of the ONNX nodes that it stands for.
        is_reformat: Whether it only copies between memory layouts or types.
        tensors: The tensors that it reads and writes, with the type of each there.
    """

    name: str
    kind: str
    precision: str
    nodes: tuple[str, ...]
    is_reformat: bool
    tensors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NodeView:
    """A node of the model and what became of it.

    Attributes:
        name: The node.
        op_type: Its operator.
        precision: What its layer computes in; empty without one.
        layers: Indices of its layers, in the engine's order.
        reason: Why it has none, as far as the graph tells; empty where it has.
    """

    name: str
    op_type: str
    precision: str
    layers: tuple[int, ...]
    reason: str = ""


def node_names(proto: onnx.ModelProto) -> list[str]:
    """What each node is called: its name, its first output where it has none, or its number."""
    return [node.name or next((o for o in node.output if o), f"node_{i}") for i, node in enumerate(proto.graph.node)]


def with_regions_filled(layers: Sequence[EngineLayer], proto: onnx.ModelProto) -> tuple[EngineLayer, ...]:
    """The layers, with all nodes in those that are named by their first and last node only.

    TensorRT 8.6 calls a part of the graph that it compiles as a whole `{ForeignNode[first...last]}`. Of the nodes that
    no other layer has, those between the two in the model's order are taken to be in it. An end that is no node of the
    model, but a constant or a reshape of TensorRT's, sets no bound.
    """
    names = node_names(proto)
    index = {name: i for i, name in enumerate(names)}
    taken = {node for layer in layers for node in layer.nodes}
    filled = []
    for layer in layers:
        region = _REGION.search(layer.name)
        if region is None:
            filled.append(layer)
            continue
        first, last = (
            [index[part] for part in re.split(r" \+ ", end) if part in index] for end in (region[1], region[2])
        )
        low, high = min(first, default=0), max(last, default=len(names) - 1)
        inside = tuple(n for n in names[low : high + 1] if n not in taken or n in layer.nodes)
        taken.update(inside)
        filled.append(EngineLayer(layer.name, layer.kind, layer.precision, inside, layer.is_reformat, layer.tensors))
    return tuple(filled)


def node_views(layers: Sequence[EngineLayer], proto: onnx.ModelProto) -> tuple[NodeView, ...]:
    """All nodes of a model but its Q/DQ pairs and constants, in its order.

    Args:
        layers: The engine's.
        proto: The model that was built.
    """
    reasons = _Reasons(proto)
    places: dict[str, list[int]] = {}
    for i, layer in enumerate(layers):
        for node in layer.nodes:
            places.setdefault(node, []).append(i)
    views = []
    for node, name in zip(proto.graph.node, node_names(proto), strict=True):
        if node.op_type in (*PAIRS, "Constant"):
            continue
        found = places.get(name, [])
        precision = _precision(name, [layers[i] for i in found])
        reason = "" if found else reasons.of(node, places)
        views.append(NodeView(name, node.op_type, precision, tuple(found), reason))
    return tuple(views)


def _precision(name: str, layers: Sequence[EngineLayer]) -> str:
    """What a node computes in: the precision of the layer that is called after it, else of its first one.

    TensorRT 10, 11 and TensorRT for RTX name a node in its own layer and in those that quantize for it or finish it.
    """
    own = [layer for layer in layers if name in layer.name]
    return next((layer.precision for layer in (*own, *layers)), "")


class _Reasons:
    """Why nodes have no layer."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self._writers = {
            output: (name, node)
            for name, node in zip(node_names(proto), graph.node, strict=True)
            for output in node.output
            if output
        }
        self._constants = {tensor.name for tensor in graph.initializer}
        self._shapes: set[str] = set()
        for node in graph.node:
            read = {name for name in node.input if name}
            if node.op_type == "Constant" or (read and read <= self._constants):
                self._constants.update(node.output)
            elif node.op_type in _SHAPES or (read and read <= self._constants | self._shapes):
                self._shapes.update(node.output)
        self._needed = {value.name for value in graph.output}
        for node in reversed(graph.node):
            if self._needed.intersection(node.output):
                self._needed.update(node.input)

    def of(self, node: onnx.NodeProto, places: Mapping[str, Sequence[int]]) -> str:
        """Why a node has none; `places` has the layers of the others."""
        if not self._needed.intersection(node.output):
            return "no output needs it"
        if self._constants.issuperset(node.output):
            return "computed from constants when the engine was built"
        if self._shapes.issuperset(node.output):
            return "works on shapes, not on data"
        if node.op_type in _VIEWS:
            return "changes the shape alone, which moves nothing"
        if node.op_type == "Concat":
            return "what it joins is written to one place"
        before = self._before(node, places)
        return f"TensorRT does not name it; '{before}' before it has a layer" if before else "TensorRT does not name it"

    def _before(self, node: onnx.NodeProto, places: Mapping[str, Sequence[int]]) -> str:
        """The nearest node before it that has a layer."""
        waiting, seen = [name for name in node.input if name], set(node.input)
        while waiting:
            name, writer = self._writers.get(waiting.pop(0), ("", None))
            if writer is None:
                continue
            if name in places and writer.op_type not in PAIRS:
                return name
            fresh = [read for read in writer.input if read and read not in seen]
            seen.update(fresh)
            waiting += fresh
        return ""
