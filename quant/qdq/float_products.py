"""Products of a model that stay float in its INT8 form, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.tracing import inner_graphs, nodes_within
from quant.qdq.placement import is_product, reason_for_float

# Operators that multiply matrices or convolve, and that no Q/DQ placement serves.
_OTHER_PRODUCTS = {
    "Einsum", "FusedConv", "FusedGemm", "FusedMatMul", "Attention", "MultiHeadAttention", "GRU", "LSTM", "RNN",
    "DeformConv", "GroupQueryAttention", "QAttention",
}  # fmt: skip


@dataclass(frozen=True)
class FloatProducts:
    """Products that stay float.

    Attributes:
        reasons: How many stay float, by what is said of them.
        products: How many products the model has.
    """

    reasons: Counter[str]
    products: int

    def __bool__(self) -> bool:
        return bool(self.reasons)

    @property
    def text(self) -> str:
        """For people: how many of how many, and which."""
        which = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
        return f"{self.reasons.total()} of {self.products} products stay float: {which}"


def products_left_float(editor: GraphEditor) -> FloatProducts:
    """Which products of a prepared graph stay float: in branches and loops, of other types, of other operators."""
    reasons: Counter[str] = Counter()
    products = 0
    for node in editor.nodes:
        if is_product(node):
            products += 1
            reason = reason_for_float(node, editor)
            if reason:
                reasons[reason if reason.startswith(node.op_type) else f"{node.op_type} {reason}"] += 1
        elif node.op_type in _OTHER_PRODUCTS:
            products += 1
            reasons[node.op_type] += 1
        for inner in _within(node):
            products += 1
            reasons[f"{inner.op_type} in {node.op_type}"] += 1
    return FloatProducts(reasons, products)


def _within(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Products in the branches and bodies of a node, however deep."""
    for graph in inner_graphs(node):
        yield from (inner for inner in nodes_within(graph) if is_product(inner) or inner.op_type in _OTHER_PRODUCTS)
