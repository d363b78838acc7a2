"""Splits LayerNormalization into the operations that it consists of."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.model import opset_of


def with_normalizations_apart(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each LayerNormalization over the last axis split into mean, variance, quotient, gain and shift.

    TensorRT 8.6 has one layer for it, which runs in FP32 in a model with Q/DQ, because its FP16 form does not compile
    ("Could not infer output types for operation ... normalizationScaled").

    Args:
        proto: The model; not edited. Nodes over several axes, and nodes whose other outputs are read, stay.
    """
    editor = GraphEditor(proto)
    read = editor.consumers()
    nodes: list[onnx.NodeProto] = []
    for node in editor.nodes:
        gain = editor.constants.get(node.input[1]) if node.op_type == "LayerNormalization" else None
        # The gain has the axes that are normalised; if it has one axis, that is the last one.
        if gain is None or gain.ndim != 1 or any(read[name] for name in node.output[1:] if name):
            nodes.append(node)
            continue
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        nodes += _parts(node, np.array(epsilon, gain.dtype), editor)
    editor.nodes = nodes
    return editor.model()


def _parts(node: onnx.NodeProto, epsilon: NDArray[Any], editor: GraphEditor) -> list[onnx.NodeProto]:
    x, gain = node.input[:2]
    shift = node.input[2] if len(node.input) > 2 else ""
    result = node.output[0]

    def fresh(what: str) -> str:
        return editor.fresh_name(f"{result}_{what}")

    mean, centred, squares, variance, padded, deviation, quotient = (
        fresh(what) for what in ("mean", "centred", "squares", "variance", "padded", "deviation", "quotient")
    )
    small = fresh("epsilon")
    editor.constants[small] = epsilon
    scaled = fresh("scaled") if shift else result
    parts = [
        _mean(x, mean, editor),
        helper.make_node("Sub", [x, mean], [centred], name=centred),
        helper.make_node("Mul", [centred, centred], [squares], name=squares),
        _mean(squares, variance, editor),
        helper.make_node("Add", [variance, small], [padded], name=padded),
        helper.make_node("Sqrt", [padded], [deviation], name=deviation),
        helper.make_node("Div", [centred, deviation], [quotient], name=quotient),
        helper.make_node("Mul", [quotient, gain], [scaled], name=scaled if shift else node.name or result),
    ]
    if shift:
        parts.append(helper.make_node("Add", [scaled, shift], [result], name=node.name or result))
    return parts


def _mean(tensor: str, result: str, editor: GraphEditor) -> onnx.NodeProto:
    """Mean over the last axis; the axes are an input from opset 18 on."""
    if opset_of(editor.proto) < 18:
        return helper.make_node("ReduceMean", [tensor], [result], name=result, axes=[-1], keepdims=1)
    axes = editor.fresh_name(f"{result}_axes")
    editor.constants[axes] = np.array([-1], np.int64)
    return helper.make_node("ReduceMean", [tensor, axes], [result], name=result, keepdims=1)
