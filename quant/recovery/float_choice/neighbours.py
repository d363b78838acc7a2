"""Which products follow each other in a graph, with nothing but other operators between."""

from __future__ import annotations

from collections.abc import Mapping

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.operators import node_key
from quant.qdq.placement import DEFAULT_PLACEMENT, is_quantized_kernel


def product_neighbours(editor: GraphEditor) -> dict[str, frozenset[str]]:
    """For each product that INT8 can compute, those before and behind it.

    Args:
        editor: A prepared graph, its nodes in the order in which they run.
    """
    reaching: dict[str, frozenset[str]] = {}  # by tensor: the last products on all ways to it
    before: dict[str, frozenset[str]] = {}
    for node in editor.nodes:
        sources: frozenset[str] = frozenset().union(*(reaching.get(name, frozenset()) for name in node.input))
        if is_quantized_kernel(node, editor, DEFAULT_PLACEMENT):
            before[node_key(node)] = sources
            sources = frozenset((node_key(node),))
        reaching.update(dict.fromkeys(node.output, sources))
    return {
        name: sources.union(other for other, its_sources in before.items() if name in its_sources)
        for name, sources in before.items()
    }


def with_islands(in_float: frozenset[str], neighbours: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Products in float, and those in INT8 of whose neighbours all are in float."""
    islands = {name for name, others in neighbours.items() if others and others <= in_float}
    return in_float | islands
