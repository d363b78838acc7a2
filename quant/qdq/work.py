"""How much a model's products have to do, by shape inference: multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.operators import node_key
from quant.qdq.placement import is_product


def macs_by_product(editor: GraphEditor) -> dict[str, int]:
    """Multiply-accumulates of each product, by `node_key`; 0 where inference does not know the shapes."""
    return {node_key(node): _macs(node, editor) for node in editor.nodes if is_product(node)}


def share_of_work(macs: dict[str, int], products: Collection[str]) -> float | None:
    """The share of all multiply-accumulates that some products have, 0 to 1; None if none are known."""
    total = sum(macs.values())
    return sum(macs.get(name, 0) for name in products) / total if total else None


def _macs(node: onnx.NodeProto, editor: GraphEditor) -> int:
    first, second = (editor.sizes(name) for name in node.input[:2])
    result = editor.sizes(node.output[0])
    if not first or not second:
        return 0
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(second[1:]) if result else 0
    if len(second) == 2:  # whether or not the result's name is one that the rewriting of a Gemm made
        return math.prod(first) * math.prod(second) // first[-1]
    return math.prod(result) * first[-1] if result else 0
