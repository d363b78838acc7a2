"""Bias correction: rounded weights shift the mean of what a product gives, channel by channel; its bias takes it back.

The shift of an output channel is the error of its weights times the mean of what they read, which is measured on images
in the quantized model (M. Nagel et al., 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV, section 4.2). Each product's own error is corrected, not what reaches it from others, so all products can be
corrected at once. Correcting measured means of the outputs instead needs a pass for each product, in the order of the
graph: several at once correct the same shift twice, which cost a MobileNetV2 16 dB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.operators import CONVOLUTIONS, node_key
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement
from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.product_data import products_with_rows, rows_of_products, rows_of_weights

Array = NDArray[Any]
Inputs = Mapping[str, Array]
Quantize = Callable[[onnx.ModelProto], onnx.ModelProto]


def with_corrected_biases(
    proto: onnx.ModelProto,
    reference: onnx.ModelProto,
    quantize: Quantize,
    batches: Sequence[Inputs],
    placement: Placement = DEFAULT_PLACEMENT,
) -> onnx.ModelProto:
    """A float model whose products keep their means in INT8.

    Args:
        proto: Float model to correct; not edited.
        reference: FP32 model whose weights are the true ones; its nodes give tensors of the same names.
        quantize: Makes the INT8 form of a model.
        batches: Inputs of the images that the means are taken of.
        placement: Which products are quantized.

    Raises:
        BuildError, ModelError: The INT8 form cannot be built or run.
    """
    editor = prepared_for_quantization(proto)
    products = products_with_rows(editor, placement)
    quantized = quantize(proto)
    totals: dict[str, Array] = {}
    counts: dict[str, int] = {}
    for node, rows in rows_of_products(quantized, batches, products, editor):
        name = node.output[0]
        totals[name] = totals.get(name, 0) + rows.sum(axis=1, dtype=np.float64)  # [groups, inputs]
        counts[name] = counts.get(name, 0) + rows.shape[1]
    true = prepared_for_quantization(reference)
    weights = {node.output[0]: true.constants.get(node.input[1]) for node in true.nodes if len(node.input) > 1}
    rounded = _DequantizedWeights(quantized)
    adds = _bias_adds(editor)
    shifts = {}
    for node in products:
        name = node.output[0]
        right, found = weights.get(name), rounded.read_by(name)
        if right is None or found is None or right.shape != found.shape:
            continue
        error = rows_of_weights(right, node) - rows_of_weights(found, node)
        shift = np.einsum("goi,gi->go", error, totals[name] / max(counts[name], 1)).reshape(-1)
        shifts[adds.get(name, node).output[0]] = shift
    return _shifted(proto, shifts)


class _DequantizedWeights:
    """The weights that the products of a Q/DQ model compute with."""

    def __init__(self, quantized: onnx.ModelProto) -> None:
        self._writers = {name: node for node in quantized.graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in quantized.graph.initializer}

    def read_by(self, output: str) -> Array | None:
        """Those of the product that gives a tensor; None where they are no dequantized constants."""
        product = self._writers.get(output)
        pair = self._writers.get(product.input[1]) if product is not None and len(product.input) > 1 else None
        if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in self._constants:
            return None
        values, scale = (numpy_helper.to_array(self._constants[name]) for name in pair.input[:2])
        axis = next((a.i for a in pair.attribute if a.name == "axis"), 1)
        if scale.ndim:
            scale = scale.reshape([-1 if i == axis % values.ndim else 1 for i in range(values.ndim)])
        result: Array = values * scale
        return result


def _bias_adds(editor: GraphEditor) -> dict[str, onnx.NodeProto]:
    """The Add of a constant vector that alone reads what a matrix product gives, by the product's output."""
    readers = editor.consumers()
    products = {node.output[0] for node in editor.nodes if node.op_type == "MatMul"}
    return {
        name: node
        for node in editor.nodes
        if node.op_type == "Add" and any(other in editor.constants for other in node.input)
        for name in node.input
        if name in products and readers[name] == 1
    }


def _shifted(proto: onnx.ModelProto, shifts: Mapping[str, Array]) -> onnx.ModelProto:
    """The model with something added to each channel of what products and their biases give."""
    editor = prepared_for_quantization(proto)
    adds = {node.output[0]: node for node in _bias_adds(editor).values()}
    nodes = []
    for node in editor.nodes:
        nodes.append(node)
        shift = shifts.get(node.output[0]) if node.output else None
        if shift is None:
            continue
        if node.op_type in CONVOLUTIONS:
            _add_to_bias(editor, node, shift)
        elif node.output[0] in adds:
            place = next(i for i, name in enumerate(node.input) if name in editor.constants)
            old = editor.constants[node.input[place]]
            new = old + shift if old.size in (1, shift.size) or old.shape[-1] == shift.size else old
            node.input[place] = _new_constant(editor, node.input[place], new)
        else:
            nodes.append(_inserted_add(editor, node, shift))
    editor.nodes = nodes
    return editor.model()


def _add_to_bias(editor: GraphEditor, node: onnx.NodeProto, shift: Array) -> None:
    old = node.input[2] if len(node.input) > 2 else ""
    if old and old not in editor.constants:
        return
    bias = (editor.constants[old] if old else 0) + shift
    node.input[:] = [*node.input[:2], _new_constant(editor, old or f"{node.output[0]}_bias", bias)]


def _inserted_add(editor: GraphEditor, node: onnx.NodeProto, shift: Array) -> onnx.NodeProto:
    node.name = node_key(node)  # which goes by the output where there is none
    given, before = node.output[0], editor.fresh_name(f"{node.output[0]}_uncorrected")
    node.output[0] = before
    name = _new_constant(editor, f"{given}_correction", shift)
    return helper.make_node("Add", [before, name], [given], name=editor.fresh_name(f"{node_key(node)}_correction"))


def _new_constant(editor: GraphEditor, wanted: str, values: Array) -> str:
    name = editor.fresh_name(wanted if wanted.endswith("_corrected") else f"{wanted}_corrected")
    editor.constants[name] = np.asarray(values, np.float32)
    return name
