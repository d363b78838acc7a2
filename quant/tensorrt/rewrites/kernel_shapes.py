"""States the kernel's shape on convolutions that leave it to be inferred."""

from __future__ import annotations

import onnx

from quant.onnx_graph.constant_folding import PAIRS
from quant.qdq.operators import CONVOLUTIONS, state_kernel_shape


def state_kernel_shapes(proto: onnx.ModelProto) -> None:
    """Add, in place, `kernel_shape` to each convolution that lacks it and whose weights are constants.

    TensorRT's parser needs it where a pair stands between the constant and the convolution, as in Q/DQ models of any
    tool: "the input tensor shape misaligns with the input kernel shape".
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
        elif node.op_type in PAIRS and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
        elif node.op_type in CONVOLUTIONS and node.input[1] in shapes:
            state_kernel_shape(node, shapes[node.input[1]])
