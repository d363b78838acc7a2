"""Products that an engine computes together, so that they stay in float together or not at all.

The products of attention (queries by keys, the result of their Softmax by values) become one kernel in engines that
fuse it; with one of them in INT8 and the other in float, none does. An activation belongs to its product by itself: a
product in float writes floats.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.operators import node_key
from quant.qdq.placement import DEFAULT_PLACEMENT, is_quantized_kernel

# What may stand between the products of attention and the Softmax: scale, mask, types, layout.
_BETWEEN = frozenset(
    ("Add", "Sub", "Mul", "Div", "Where", "Cast", "Identity", "Dropout", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
)
_STEPS = 8  # nodes between a product and the Softmax, at most


@dataclass(frozen=True)
class ProductGroup:
    """Products that are in one precision.

    Attributes:
        nodes: Their names, see `quant.qdq.operators.node_key`, in the order of the graph.
        op_types: Their operators, in the same order.
    """

    nodes: tuple[str, ...]
    op_types: tuple[str, ...]

    @property
    def name(self) -> str:
        """All names in one text."""
        return " + ".join(self.nodes)


def product_groups(editor: GraphEditor, without: frozenset[str] = frozenset()) -> list[ProductGroup]:
    """The products of a prepared graph that INT8 can compute, grouped, in the order of the graph.

    Args:
        editor: The graph.
        without: Products that are in float whatever is found.
    """
    products = {
        node_key(node): node
        for node in editor.nodes
        if is_quantized_kernel(node, editor, DEFAULT_PLACEMENT) and node_key(node) not in without
    }
    together: dict[str, list[str]] = {name: [name] for name in products}
    for node in editor.nodes:
        if node.op_type == "Softmax":
            before = _products_before(editor, node, products)
            after = _products_after(editor, node, products)
            if before and after:
                members = [name for name in products if any(name in together[other] for other in before + after)]
                together.update(dict.fromkeys(members, members))
    groups = dict.fromkeys(tuple(members) for members in together.values())
    return [ProductGroup(names, tuple(products[name].op_type for name in names)) for names in groups]


def _products_before(editor: GraphEditor, softmax: onnx.NodeProto, products: Iterable[str]) -> list[str]:
    """The products whose results the Softmax gets, through nodes that attention has there."""
    found, at, producers = [], list(softmax.input[:1]), editor.producers()
    for _ in range(_STEPS):
        writers = [producers[name] for name in at if name in producers]
        found += [node_key(node) for node in writers if node.op_type == "MatMul" and node_key(node) in products]
        at = [name for node in writers if node.op_type in _BETWEEN for name in node.input]
    return found


def _products_after(editor: GraphEditor, softmax: onnx.NodeProto, products: Iterable[str]) -> list[str]:
    """The products that read the Softmax's result."""
    found, at = [], list(softmax.output[:1])
    for _ in range(_STEPS):
        readers = [node for node in editor.nodes if any(name in at for name in node.input)]
        found += [node_key(node) for node in readers if node.op_type == "MatMul" and node_key(node) in products]
        at = [name for node in readers if node.op_type in _BETWEEN for name in node.output]
    return found
