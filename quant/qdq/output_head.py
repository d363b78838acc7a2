"""The head of a model, found by its graph: the last products before the outputs, which a detector keeps in float.

A detector's last convolutions write boxes and scores, and the mean of a distribution (DFL, X. Li et al., 2020,
"Generalized Focal Loss") follows as another product. Rounding their inputs costs most of what INT8 costs a detector,
and they are a small part of its work. Names differ from exporter to exporter; the graph does not.
"""

from __future__ import annotations

import numpy as np
import onnx

from quant.errors import BuildError
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.light_model import AnyModel
from quant.qdq.operators import node_key
from quant.qdq.placement import is_product
from quant.qdq.preparation import prepared_for_quantization

# What these give says nothing about the values of what they read.
_SHAPES = {"Shape", "Size", "ConstantOfShape", "NonZero"}


def head_nodes(model: AnyModel, *, in_int8: bool = False) -> frozenset[str]:
    """The products of a model's head that stay float, by `quant.qdq.operators.node_key` of the prepared graph.

    From each output the graph is walked backwards up to the first product that learned something. Products that only
    recompute, such as DFL's, belong to the head as well, and the walk goes on behind them.

    Args:
        model: The FP32 model.
        in_int8: Is the head to be quantized? Then only products stay float that read what it wrote, but for a DFL's:
            boxes in pixels and scores may share a tensor there, and one scale would serve neither.

    Returns:
        The products; none where the model cannot be prepared, or has no others.
    """
    try:
        editor = prepared_for_quantization(model)
    except BuildError:
        return frozenset()  # the build says what is wrong
    learned, recomputing = _last_products(editor)
    if in_int8:
        return frozenset(_readers(editor, learned, beyond_softmax=False))
    head = learned | recomputing
    products = {node_key(node) for node in editor.nodes if is_product(node)}
    return frozenset() if products <= head else frozenset(head | _readers(editor, head))


def _last_products(editor: GraphEditor) -> tuple[set[str], set[str]]:
    """Those that learned something, and those behind them that did not."""
    producers = editor.producers()
    waiting, seen = sorted(editor.outputs), set(editor.outputs)
    learned: set[str] = set()
    recomputing: set[str] = set()
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.op_type in _SHAPES:
            continue
        if is_product(node) and not _recomputes(node, editor):
            learned.add(node_key(node))
            continue
        if is_product(node):
            recomputing.add(node_key(node))
        for name in node.input:
            if name and name not in seen:
                seen.add(name)
                waiting.append(name)
    return learned, recomputing


def _recomputes(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    """Does a product only compute something of what was predicted: the mean of a distribution, other forms of boxes?

    Its constants were written down, not learned: they are whole numbers or halves.
    """
    constants = [editor.constants[name] for name in node.input[:2] if name in editor.constants]
    return bool(constants) and all(bool((2 * values == np.rint(2 * values)).all()) for values in constants)


def _readers(editor: GraphEditor, head: set[str], *, beyond_softmax: bool = True) -> set[str]:
    """Products that read what the head wrote, directly or through other nodes."""
    after = {name for node in editor.nodes if node_key(node) in head for name in node.output}
    readers = set()
    for node in editor.nodes:
        if not after & set(node.input) or (node.op_type == "Softmax" and not beyond_softmax):
            continue
        after.update(node.output)
        if is_product(node):
            readers.add(node_key(node))
    return readers
