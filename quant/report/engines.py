"""What TensorRT's builder made of the graph, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def engine_text(details: Mapping[str, Any]) -> str:
    """Layers by precision, what was fused and folded, memory, and tensors without a scale.

    Args:
        details: What the TensorRT back end tells of a build.
    """
    graph = details["graph"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in graph["precisions"].items())
    text = (
        f"layers: {kinds}, {graph['reformats']} copies; {graph['onnx_nodes']} ONNX nodes became "
        f"{graph['engine_layers']} layers ({len(graph['fused'])} of several nodes, "
        f"{len(graph['pruned'])} nodes folded); "
        f"{details['device_memory_bytes'] / 1e6:,.1f} MB of device memory at batch {details['batch']}"
    )
    without = details["without_scale"]
    return text + (f"; {len(without)} tensors have no scale and stay float" if without else "")
