"""What the builder made of the graph: the actual precision of each layer, what was fused, and what was removed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from quant.tensorrt.engines.node_view import EngineLayer, NodeView, node_names, node_views, with_regions_filled

_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.*?)\](?=[^\w\[\]]*(?:\[ONNX Layer: |$))", re.DOTALL)
_TYPES = (("int8", ("int8",)), ("fp16", ("fp16", "half")), ("fp32", ("fp32", "float")), ("int", ("int", "bool")))


@dataclass(frozen=True)
class GraphReport:
    """An engine compared with its model.

    Attributes:
        nodes: Number of ONNX nodes.
        layers: The engine's layers.
        pruned: ONNX nodes that are in no layer: folded, merged, or without effect.
        views: The model's nodes, but for Q/DQ pairs and constants, with their layers.
    """

    nodes: int
    layers: tuple[EngineLayer, ...]
    pruned: tuple[str, ...]
    views: tuple[NodeView, ...] = ()

    @property
    def precisions(self) -> dict[str, int]:
        """Number of layers by precision, without those that only copy."""
        return dict(Counter(layer.precision for layer in self.layers if not layer.is_reformat).most_common())

    @property
    def int8_tensors(self) -> frozenset[str]:
        """Tensors that some layer reads or writes in INT8."""
        return frozenset(name for layer in self.layers for name, kind in layer.tensors if kind == "int8")

    @property
    def fused(self) -> tuple[EngineLayer, ...]:
        """Layers that stand for several ONNX nodes."""
        return tuple(layer for layer in self.layers if len(layer.nodes) > 1)

    def document(self) -> dict[str, Any]:
        """The report's JSON."""
        return {
            "onnx_nodes": self.nodes,
            "engine_layers": len(self.layers),
            "reformats": sum(layer.is_reformat for layer in self.layers),
            "precisions": self.precisions,
            "fused": {layer.name: list(layer.nodes) for layer in self.fused},
            "pruned": list(self.pruned),
            "int8_tensors": sorted(self.int8_tensors),
            "layers": [self._layer(layer) for layer in self.layers],
            "nodes": [
                {
                    "name": view.name,
                    "type": view.op_type,
                    "precision": view.precision or None,
                    "layers": list(view.layers),
                    "reason": view.reason or None,
                }
                for view in self.views
            ],
        }

    def _layer(self, layer: EngineLayer) -> dict[str, Any]:
        """A layer, with the nodes that it holds besides Q/DQ pairs."""
        shown = {view.name for view in self.views}
        return {
            "name": layer.name,
            "type": layer.kind,
            "precision": layer.precision,
            "copies": layer.is_reformat,
            "nodes": [node for node in layer.nodes if node in shown],
        }


def graph_report(text: str, proto: onnx.ModelProto) -> GraphReport:
    """Read the engine inspector's JSON.

    Args:
        text: JSON from an engine built with profiling verbosity DETAILED; it may hold raw control characters.
        proto: The model that was built.
    """
    names = node_names(proto)
    described = json.loads(text, strict=False).get("Layers", [])
    layers = with_regions_filled([_layer(entry, names) for entry in described], proto)
    used = {node for layer in layers for node in layer.nodes}
    pruned = tuple(name for name in names if name not in used)
    return GraphReport(len(names), layers, pruned, node_views(layers, proto))


def _layer(entry: Any, names: Sequence[str]) -> EngineLayer:  # noqa: ANN401 - only a name if no more is known
    if not isinstance(entry, dict):
        return EngineLayer(str(entry), "", "unknown", _nodes_in(str(entry), names), is_reformat=False)
    name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", ""))
    is_reformat = kind in ("Reformat", "NoOp") or name.startswith(("Reformatting CopyNode", "copy_"))
    told = _ONNX_LAYER.findall(str(entry.get("Metadata", "")))
    known = set(names)
    nodes = tuple(dict.fromkeys(node for node in told if node in known)) or _nodes_in(name, names)
    return EngineLayer(name, kind, _precision(entry), () if is_reformat else nodes, is_reformat, _tensors(entry))


def _tensors(entry: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and types of what a layer reads and writes."""
    described = [*entry.get("Inputs", []), *entry.get("Outputs", [])]
    return tuple((str(tensor.get("Name", "")), _type_of(tensor)) for tensor in described)


def _nodes_in(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """ONNX nodes in a layer's name, which joins them (a + b) and wraps them (PWN(a, b), {ForeignNode[a...b]})."""
    parts = {part.strip() for part in re.split(r" \+ |\.\.\.|, |[(){}\[\]]|\|\|", name)}
    return tuple(node for node in names if node in parts)


def _precision(entry: dict[str, Any]) -> str:
    """What a layer computes in: the type of its weights if it has any, else the type of its inputs."""
    weights = entry.get("Weights")
    if isinstance(weights, dict) and weights.get("Count") and _type_in(str(weights.get("Type", ""))) != "unknown":
        return _type_in(str(weights["Type"]))
    reads = [_type_of(tensor) for tensor in entry.get("Inputs", [])]
    writes = [_type_of(tensor) for tensor in entry.get("Outputs", [])]
    for found in (reads, writes):
        for precision in ("int8", "fp16", "fp32", "int"):
            if precision in found:
                return precision
    return "unknown"


def _type_of(tensor: dict[str, Any]) -> str:
    """Of a tensor: TensorRT for RTX says it apart, others within the format."""
    kinds = (tensor.get(key) for key in ("Datatype", "Format/Datatype", "Format"))
    return _type_in(str(next((kind for kind in kinds if kind), "")))


def _type_in(text: str) -> str:
    lowered = text.lower()
    return next((name for name, words in _TYPES if any(word in lowered for word in words)), "unknown")
