"""The graph that quantization works on: constants and BatchNormalization folded, Gemm rewritten, opset 13 or later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx import helper

from quant.errors import BuildError
from quant.onnx_graph.batch_norm import fold_batch_norm
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.light_model import AnyModel, LightModel, light_model
from quant.onnx_graph.model import is_quantized, opset_of
from quant.onnx_graph.opset import converted
from quant.qdq.placement import is_product

MIN_OPSET = 13  # the first whose DequantizeLinear takes one scale per channel


def _is_half(proto: onnx.ModelProto) -> bool:
    """Are all weights of products float16?"""
    weights = {node.input[1] for node in proto.graph.node if is_product(node)}
    kinds = {tensor.data_type for tensor in proto.graph.initializer if tensor.name in weights}
    return onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds


def prepared_for_quantization(model: AnyModel) -> GraphEditor:
    """The graph that quantization works on: constants and BatchNormalization folded, Gemm with constants rewritten.

    Raises:
        BuildError: The model is already quantized, or cannot be converted to opset 13.
    """
    light = light_model(model)
    if is_quantized(light.proto):
        raise BuildError("the model is already quantized; give the FP32 model")
    if _is_half(light.proto):
        raise BuildError("the model's weights are float16, expected float32; give the FP32 model")
    editor = GraphEditor(_in_opset(light))
    for _, step in _STEPS:
        step(editor)
    return editor


def _in_opset(model: LightModel) -> LightModel:
    return model if opset_of(model.proto) >= MIN_OPSET else converted(model, MIN_OPSET)


def stages(model: LightModel) -> Iterator[tuple[str, LightModel]]:
    """The model after each step of its preparation, with what the step is: to find the one that changes it."""
    light = _in_opset(model)
    yield f"the conversion from opset {opset_of(model.proto)} to {MIN_OPSET}", light
    editor = GraphEditor(light)
    yield "the folding of constants", _copied(editor.light())
    for name, step in _STEPS:
        step(editor)
        yield name, _copied(editor.light())


def _copied(model: LightModel) -> LightModel:
    result = onnx.ModelProto()
    result.CopyFrom(model.proto)
    return LightModel(result, model.weights)


def _rewrite_gemm(editor: GraphEditor) -> None:
    """Rewrite each Gemm with constant weights as MatMul + Add."""
    nodes = []
    for node in editor.nodes:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        weight = editor.constants.get(node.input[1]) if node.op_type == "Gemm" and is_product(node) else None
        bias = node.input[2] if len(node.input) > 2 else ""
        if weight is None or attributes.get("transA", 0) or (bias and bias not in editor.constants):
            nodes.append(node)
            continue
        weight = weight.T if attributes.get("transB", 0) else weight
        weight_name = editor.fresh_name(f"{node.input[1]}_matmul")
        alpha = attributes.get("alpha", 1.0)  # where it is 1, as nearly always, no copy is needed
        editor.constants[weight_name] = weight if alpha == 1 else (weight * alpha).astype(weight.dtype)
        product = editor.fresh_name(f"{node.output[0]}_matmul") if bias else node.output[0]
        name = node.name or node.output[0]  # which stays that of the product, so that people and reports mean the same
        nodes.append(helper.make_node("MatMul", [node.input[0], weight_name], [product], name=name))
        if bias:
            bias_name = editor.fresh_name(f"{bias}_add")
            editor.constants[bias_name] = (editor.constants[bias] * attributes.get("beta", 1.0)).astype(weight.dtype)
            nodes.append(helper.make_node("Add", [product, bias_name], [node.output[0]], name=f"{name}_bias"))
    editor.nodes = nodes


_STEPS: tuple[tuple[str, Callable[[GraphEditor], Any]], ...] = (
    ("the folding of BatchNormalization", fold_batch_norm),
    ("the rewriting of Gemm", _rewrite_gemm),
)
