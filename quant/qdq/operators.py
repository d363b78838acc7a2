"""Which operators compute in INT8, and what the others do to a tensor that is in INT8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

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


def state_kernel_shape(node: onnx.NodeProto, weights: Sequence[int]) -> None:
    """Give a convolution the attribute `kernel_shape` if it lacks it, in place.

    ONNX infers it from the weights. TensorRT's parser does so as well, but only where the weights are constants of the
    model: behind a pair, it refuses the node.

    Args:
        node: Any node; others than convolutions stay as they are.
        weights: Shape of its weights: two axes of channels, then the kernel's.
    """
    if node.op_type in CONVOLUTIONS and all(attribute.name != "kernel_shape" for attribute in node.attribute):
        node.attribute.append(helper.make_attribute("kernel_shape", list(weights[2:])))
