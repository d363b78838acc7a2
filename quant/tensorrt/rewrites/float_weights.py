"""Turns the weights of matrix products into floats, in a model with Q/DQ."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from quant.onnx_graph.editor import GraphEditor


def with_float_products(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The Q/DQ model with a QuantizeLinear of floats instead of INT8 constants as inputs of matrix products.

    The INT8 values stay the same. TensorRT 8.6 hands a transformer's body to another compiler (Myelin), which fails
    on INT8 constants where FP16 is allowed ("convertMyelinWeightsToFp32 ... Assertion params.weights.type() !=
    DataType::kINT8 failed").

    Args:
        proto: The model; not edited.
    """
    editor = GraphEditor(proto)
    entering = {name for node in editor.nodes if node.op_type == "MatMul" for name in node.input}
    nodes: list[onnx.NodeProto] = []
    for node in editor.nodes:
        floats = _floats(node, editor) if entering.intersection(node.output) else None
        if floats is not None:
            name = node.input[0]
            values, quantized = editor.fresh_name(f"{name}_floats"), editor.fresh_name(f"{name}_again")
            editor.constants[values] = floats
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            zero = editor.fresh_name(f"{name}_zero")  # without a zero point, QuantizeLinear gives uint8
            editor.constants[zero] = np.zeros(editor.constants[node.input[1]].shape, np.int8)
            inputs = [node.input[1], zero]
            nodes.append(
                helper.make_node("QuantizeLinear", [values, *inputs], [quantized], name=quantized, **attributes)
            )
            del node.input[:]
            node.input.extend([quantized, *inputs])
        nodes.append(node)
    editor.nodes = nodes
    return editor.model()


def _floats(node: onnx.NodeProto, editor: GraphEditor) -> np.ndarray | None:
    """The result of a DequantizeLinear of INT8 constants with zero point 0, by tensor or axis; None for other nodes."""
    if node.op_type != "DequantizeLinear" or any(name not in editor.constants for name in node.input):
        return None
    values, scale = (editor.constants[name] for name in node.input[:2])
    zero_point = editor.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if values.dtype != np.int8 or scale.dtype != np.float32 or zero_point.any():
        return None
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    shape = [1] * values.ndim
    if scale.size > 1:
        if scale.ndim != 1 or not -values.ndim <= axis < values.ndim or scale.size != values.shape[axis]:
            return None  # scales per block, as opset 21 allows
        shape[axis] = -1
    return np.asarray(values * scale.reshape(shape), np.float32)
