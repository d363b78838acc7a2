"""States the kernel's shape on convolutions that leave it to be inferred."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from quant.onnx_graph.constant_folding import PAIRS
from quant.onnx_graph.tracing import constant_tensors, inner_graphs
from quant.qdq.operators import CONVOLUTIONS, state_kernel_shape

_SAME_SHAPE = {*PAIRS, "Identity", "Cast"}
_Shapes = Mapping[str, tuple[int, ...]]


def state_kernel_shapes(proto: onnx.ModelProto) -> None:
    """Add, in place, `kernel_shape` to each convolution that lacks it and whose weights are constants.

    TensorRT's parser needs it where a pair stands between the constant and the convolution, as in Q/DQ models of any
    tool: "the input tensor shape misaligns with the input kernel shape". Exporters put an Identity behind weights that
    several nodes share, and a Transpose behind those that a framework keeps in another order. A branch or a loop may
    read the weights of the graph around it.
    """
    _state(proto.graph, {})


def _state(graph: onnx.GraphProto, around: _Shapes) -> None:
    own = {value.name for value in graph.input}  # which hide a name of the graph around
    shapes = {name: shape for name, shape in around.items() if name not in own}
    shapes |= {name: tuple(tensor.dims) for name, tensor in constant_tensors(graph).items()}
    for node in graph.node:
        if node.op_type in CONVOLUTIONS and node.input[1] in shapes:
            state_kernel_shape(node, shapes[node.input[1]])
        for inner in inner_graphs(node):
            _state(inner, shapes)
        if node.op_type != "Constant":
            for name in node.output:
                shapes.pop(name, None)
            shape = _moved(node, shapes)
            if shape is not None:
                shapes[node.output[0]] = shape


def _moved(node: onnx.NodeProto, shapes: _Shapes) -> tuple[int, ...] | None:
    """Shape of what a node gives, where it passes values of a known shape on; else None."""
    shape = shapes.get(node.input[0]) if node.input else None
    if shape is None or node.op_type in _SAME_SHAPE:
        return shape
    if node.op_type != "Transpose":
        return None
    order = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "perm"), range(len(shape))[::-1])
    return tuple(shape[axis] for axis in order)
