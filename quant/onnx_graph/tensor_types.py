"""Which tensors of a model are activations, and of what type."""

from __future__ import annotations

import onnx

from quant.onnx_graph.light_model import inferred_shapes
from quant.onnx_graph.model import FLOAT_TYPES


def activation_names(proto: onnx.ModelProto) -> list[str]:
    """Tensors that may need a scale: float inputs, then float results of nodes, in the order of the graph.

    Constants are left out. A tensor is listed if type inference cannot tell its type; the back end that runs the model
    sees it.
    """
    return list(activation_types(proto))


def activation_types(proto: onnx.ModelProto) -> dict[str, int]:
    """As `activation_names`, with ONNX's number for each tensor's type; 0 if type inference cannot tell."""
    inferred = inferred_shapes(proto)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    }
    initializers = {tensor.name for tensor in proto.graph.initializer}
    names = [value.name for value in proto.graph.input if value.name not in initializers]
    for node in proto.graph.node:
        if node.op_type != "Constant":
            names += [name for name in node.output if name]
    known = {name: types.get(name, onnx.TensorProto.UNDEFINED) for name in names}
    return {name: kind for name, kind in known.items() if kind in (onnx.TensorProto.UNDEFINED, *FLOAT_TYPES)}
