"""Which layers run in which precision: from TensorRT's engine inspector, or from a model's DequantizeLinear nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx

from quant.onnx_graph.constant_folding import PAIRS
from quant.report.contents.figures import rounded


def layers_from_build(
    precision: str,
    details: Mapping[str, Any],
    model: onnx.ModelProto | None,
    milliseconds: Mapping[str, float] | None = None,
) -> dict[str, Any] | None:
    """Layers of a build with the precision of each, and what became of the nodes; None if it cannot be known.

    Args:
        precision: Precision of the build.
        details: The back end's details of it; on TensorRT, `graph` holds the engine inspector's layers.
        model: The graph that was built; on ONNX Runtime.
        milliseconds: Of the layers of an engine in an execution, by TensorRT's name.
    """
    nodes: list[dict[str, Any]] = []
    graph = details.get("graph")
    if graph is not None:
        layers, source = [dict(layer) for layer in graph["layers"]], "engine inspector"
        nodes = [dict(node) for node in graph.get("nodes", ())]
        _add_times(layers, nodes, milliseconds or {})
        counts = dict(graph["precisions"])
    elif model is not None:
        layers, source = layers_from_qdq(model, precision), "Q/DQ nodes"
        counts = dict(Counter(layer["precision"] for layer in layers).most_common())
    else:
        return None
    document = {"build": precision, "source": source, "precisions": counts, "layers": layers}
    return document | ({"nodes": nodes} if nodes else {})


def _add_times(layers: list[dict[str, Any]], nodes: list[dict[str, Any]], milliseconds: Mapping[str, float]) -> None:
    """Add `ms` to layers, and to nodes the sum over their layers, which other nodes may share."""
    if not milliseconds:
        return
    alike = Counter(layer["name"] for layer in layers)
    for layer in layers:
        found = milliseconds.get(layer["name"])  # of all layers of that name
        layer["ms"] = None if found is None else rounded(found / alike[layer["name"]], 5)
    for node in nodes:
        times = [layers[i]["ms"] for i in node["layers"] if layers[i]["ms"] is not None]
        node["ms"] = rounded(sum(times), 5) if times else None


def layers_from_qdq(proto: onnx.ModelProto, precision: str = "int8") -> list[dict[str, str]]:
    """Nodes of an ONNX model and their precision: INT8 if both data and weights come dequantized.

    Args:
        proto: A model as this package writes it: with Q/DQ pairs, or typed as FP16.
        precision: The model's precision; nodes of an INT8 model that are not INT8 are FP32.
    """
    dequantized = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    rest = "fp32" if precision == "int8" else precision
    rows = []
    for i, node in enumerate(proto.graph.node):
        if node.op_type in PAIRS or node.op_type == "Constant":
            continue
        reads = [name for name in node.input[:2] if name]
        quantized = bool(reads) and all(name in dequantized for name in reads)
        name = node.name or next((output for output in node.output if output), f"node_{i}")
        rows.append({"name": name, "type": node.op_type, "precision": "int8" if quantized else rest})
    return rows
