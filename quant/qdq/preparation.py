"""The graph that quantization works on: constants and BatchNormalization folded, Gemm rewritten, opset 13 or later."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from quant.errors import BuildError
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.model import opset_of


def fold_batch_norm(editor: GraphEditor) -> int:
    """Fold each BatchNormalization that alone reads a Conv or ConvTranspose into its weights; returns how many.

    The convolution then writes the tensor that the BatchNormalization wrote, under the same name.
    """
    producers, consumers = editor.producers(), editor.consumers()
    removed = set()
    for node in editor.nodes:
        conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or consumers[conv.output[0]] != 1:
            continue
        names = [*node.input[1:5], conv.input[1], *(conv.input[2:3] if len(conv.input) > 2 else [])]
        if not all(name in editor.constants for name in names if name):
            continue
        scale, shift, mean, variance = (editor.constants[name].astype(np.float64) for name in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        weight = editor.constants[conv.input[1]]
        bias = editor.constants[conv.input[2]] if len(conv.input) > 2 and conv.input[2] else np.zeros(())
        folded_weight = editor.fresh_name(f"{conv.input[1]}_folded")
        editor.constants[folded_weight] = _scaled(weight, factor, conv).astype(weight.dtype)
        folded_bias = editor.fresh_name(f"{conv.input[1]}_folded_bias")
        editor.constants[folded_bias] = ((bias - mean) * factor + shift).astype(weight.dtype)
        data = conv.input[0]
        del conv.input[:]
        conv.input.extend([data, folded_weight, folded_bias])
        conv.output[0] = node.output[0]
        producers[node.output[0]] = conv
        removed.add(id(node))
    editor.nodes = [node for node in editor.nodes if id(node) not in removed]
    return len(removed)


def _scaled(weight: NDArray[Any], factor: NDArray[np.float64], conv: onnx.NodeProto) -> NDArray[np.float64]:
    """Convolution weights times a factor for each output channel."""
    if conv.op_type == "Conv":
        return np.asarray(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))
    # ConvTranspose: [in channels, out channels / groups, ...]; the input channels come group by group.
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    scaled = grouped * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return np.asarray(scaled.reshape(weight.shape))


MIN_OPSET = 13  # the first whose DequantizeLinear takes one scale per channel


_INTEGER_OPS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
}


def prepared_for_quantization(proto: onnx.ModelProto) -> GraphEditor:
    """The graph that quantization works on: constants and BatchNormalization folded, Gemm with constants rewritten.

    Raises:
        BuildError: The model is already quantized, or cannot be converted to opset 13.
    """
    if any(node.op_type in _INTEGER_OPS for node in proto.graph.node):
        raise BuildError("the model is already quantized; give the FP32 model")
    if opset_of(proto) < MIN_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, MIN_OPSET)
        except Exception as error:  # the converter raises RuntimeError and its own errors
            reason = (str(error).splitlines() or [""])[0]
            raise BuildError(
                f"opset {opset_of(proto)} cannot be converted to {MIN_OPSET}, which INT8 needs ({reason}); "
                "export the model with opset 17"
            ) from error
    editor = GraphEditor(proto)
    fold_batch_norm(editor)
    _rewrite_gemm(editor)
    return editor


def _rewrite_gemm(editor: GraphEditor) -> None:
    """Rewrite each Gemm with constant weights as MatMul + Add."""
    nodes = []
    for node in editor.nodes:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        weight = editor.constants.get(node.input[1]) if node.op_type == "Gemm" else None
        bias = node.input[2] if len(node.input) > 2 else ""
        if weight is None or attributes.get("transA", 0) or (bias and bias not in editor.constants):
            nodes.append(node)
            continue
        weight = weight.T if attributes.get("transB", 0) else weight
        weight_name = editor.fresh_name(f"{node.input[1]}_matmul")
        editor.constants[weight_name] = (weight * attributes.get("alpha", 1.0)).astype(weight.dtype)
        product = editor.fresh_name(f"{node.output[0]}_matmul") if bias else node.output[0]
        name = node.name or node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight_name], [product], name=f"{name}_matmul"))
        if bias:
            bias_name = editor.fresh_name(f"{bias}_add")
            editor.constants[bias_name] = (editor.constants[bias] * attributes.get("beta", 1.0)).astype(weight.dtype)
            nodes.append(helper.make_node("Add", [product, bias_name], [node.output[0]], name=f"{name}_bias"))
    editor.nodes = nodes
