"""Which operators compute in INT8, and what the others do to a tensor that is in INT8."""

from __future__ import annotations

import numpy as np
import onnx

from quant.onnx_graph.editor import GraphEditor

QUANTIZED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CONVOLUTIONS = ("Conv", "ConvTranspose")
FUSED_OPS = {"Relu", "Clip", "LeakyRelu"}  # fused into the kernel before them
POOLING_OPS = {"ReduceMean", "GlobalAveragePool", "AveragePool"}
# Ops whose output holds only values of their first input (or zeros), so that the input's scale represents it exactly.
MOVING_OPS = {"Slice", "Pad", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool"}


def only_moves(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    """Does a node's output hold only values of its first input, or zeros?"""
    if node.op_type not in MOVING_OPS or not node.input or node.input[0] in editor.constants:
        return False
    if node.op_type == "Pad":  # padding with zeros, which every scale represents, or with the data's own values
        value = editor.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        return value is not None and not value.any()
    return True


def node_key(node: onnx.NodeProto) -> str:
    """What a node is called: its name, or its first output where it has none."""
    return node.name or next((name for name in node.output if name), "")


def groups_of(node: onnx.NodeProto) -> int:
    """Groups of a convolution."""
    return next((a.i for a in node.attribute if a.name == "group"), 1)
