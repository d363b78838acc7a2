"""Which tensors of a model are activations, and of what type."""

from __future__ import annotations

import onnx

from quant.onnx_graph.light_model import with_weights_as_inputs
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


def inferred_shapes(proto: onnx.ModelProto, *, of_values: bool = False) -> onnx.ModelProto:
    """A copy without its weights, with the types and shapes that ONNX can infer.

    Large constants become inputs: inference needs only their types and shapes, and copying them takes long.

    Args:
        proto: The model; not edited.
        of_values: Follow the values of shape tensors too. The shapes that the model declares for its outputs are then
            ignored: they may be for another batch size.
    """
    result = with_weights_as_inputs(proto)
    for value in result.graph.output if of_values else ():
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(result, data_prop=of_values)
