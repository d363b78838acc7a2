"""Splits a Shape that gives only some of the axes into the whole shape and a slice of it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quant.onnx_graph.tracing import inner_graphs, names_within


def split_shape_parts(proto: onnx.ModelProto) -> None:
    """Replace, in place, each Shape with `start` or `end` (opset 15 and later) by Shape and Slice.

    TensorRT 8.6's parser ignores both attributes and takes the whole shape, so that sizes which are computed from a
    part of it are wrong. torch.onnx's exporter writes such nodes.
    """
    taken = set(names_within(proto.graph))
    constants: dict[str, onnx.TensorProto] = {}

    def constant(value: int) -> str:
        name = f"shape_part_bound_{value}"
        while name in taken:
            name += "_"
        constants.setdefault(name, numpy_helper.from_array(np.array([value], np.int64), name))
        return name

    def split(graph: onnx.GraphProto) -> None:
        nodes = []
        for node in graph.node:
            for inner in inner_graphs(node):
                split(inner)
            bounds = {attribute.name: attribute.i for attribute in node.attribute}
            if node.op_type != "Shape" or not bounds.keys() & {"start", "end"}:
                nodes.append(node)
                continue
            whole = f"{node.output[0]}_whole"
            while whole in taken:
                whole += "_"
            taken.add(whole)
            ends = [constant(bounds.get("start", 0)), constant(bounds.get("end", np.iinfo(np.int64).max))]
            nodes.append(helper.make_node("Shape", [node.input[0]], [whole], name=whole))
            nodes.append(helper.make_node("Slice", [whole, *ends], [node.output[0]], name=node.name))
        if len(nodes) > len(graph.node):
            kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(kept)

    split(proto.graph)
    proto.graph.initializer.extend(constants.values())
