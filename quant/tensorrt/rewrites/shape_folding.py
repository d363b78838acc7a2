"""Computes the shape arithmetic of a model with fixed sizes once, instead of in every execution."""

from __future__ import annotations

import numpy as np
import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.light_model import inferred_shapes


def with_shapes_folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constants for sizes that inference knows, and for everything computed from them.

    TensorRT 8.6 does this itself in implicit builds, but not if a model has Q/DQ. There, the arithmetic that exporters
    put around attention keeps it from using the fast kernels (docs/gpu-results.md has the figures).

    Args:
        proto: The model, in which the sizes to be folded are fixed; not edited.
    """
    while True:
        editor = GraphEditor(proto)  # folds what depends only on constants
        proto = editor.model()
        sizes = _known_sizes(proto)
        kept = []
        for node in editor.nodes:
            shape = (
                sizes.get(node.input[0]) if node.op_type == "Shape" and node.output[0] not in editor.outputs else None
            )
            if shape is None:
                kept.append(node)
                continue
            bounds = {a.name: a.i for a in node.attribute}
            part = shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
            editor.constants[node.output[0]] = np.array(part, np.int64)
        if len(kept) == len(editor.nodes):
            return proto
        editor.nodes = kept
        proto = editor.model()


def _known_sizes(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of tensors whose every axis is known."""
    graph = inferred_shapes(proto, of_values=True).graph
    sizes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.dim_value > 0 for dim in tensor.shape.dim):
            sizes[value.name] = [dim.dim_value for dim in tensor.shape.dim]
    return sizes
