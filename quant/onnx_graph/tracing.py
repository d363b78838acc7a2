"""Following tensors through a graph."""

from __future__ import annotations

import onnx

_PASSING = {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Transpose"}


def outputs_after(proto: onnx.ModelProto, op_type: str) -> frozenset[str]:
    """Outputs of the graph that a node of this type gives, directly or through nodes that pass values on."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    found = set()
    for value in proto.graph.output:
        node = producers.get(value.name)
        while node is not None and node.op_type in _PASSING:
            node = producers.get(node.input[0])
        if node is not None and node.op_type == op_type:
            found.add(value.name)
    return frozenset(found)
