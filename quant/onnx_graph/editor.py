"""An editable copy of a graph, with the look-ups that rewrites need."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.errors import ModelError
from quant.onnx_graph.constant_folding import fold
from quant.onnx_graph.light_model import (
    AnyModel,
    LightModel,
    constant_from_array,
    inferred_shapes,
    light_model,
    whole_model,
)
from quant.onnx_graph.tracing import names_read, names_within


class GraphEditor:
    """An editable copy of a model, with the look-ups that rewrites need.

    Attributes:
        proto: The copy; its large constants have no values there.
        nodes: Its nodes, in order; `light` and `model` put them back.
        constants: Values of initializers and Constant nodes, by name; never written to, because they are the model's.
    """

    def __init__(self, model: AnyModel) -> None:
        light = light_model(model)
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(light.proto)
        self.nodes: list[onnx.NodeProto] = list(self.proto.graph.node)
        self.constants: dict[str, NDArray[Any]] = light.constants()
        self.outputs = {value.name for value in self.proto.graph.output}
        self._taken = {*self.constants, *(value.name for value in self.proto.graph.input)}
        self._taken.update(names_within(self.proto.graph))
        self.nodes = fold(self.nodes, self.constants, self.proto, self.outputs.__contains__)

    @cached_property
    def _inferred(self) -> onnx.ModelProto:
        return inferred_shapes(self.proto)

    @cached_property
    def types(self) -> dict[str, int]:
        """ONNX's number of each tensor's type, as it was when the model came; none where inference cannot tell."""
        graph = self._inferred.graph
        values = (*graph.value_info, *graph.input, *graph.output)
        found = {value.name: value.type.tensor_type.elem_type for value in values}
        return {name: kind for name, kind in found.items() if kind != onnx.TensorProto.UNDEFINED}

    def is_float32(self, name: str) -> bool:
        """Is a tensor float32, as far as can be told?"""
        constant = self.constants.get(name)
        if constant is not None:
            return bool(constant.dtype == np.float32)
        return self.types.get(name, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT

    @cached_property
    def _shapes(self) -> dict[str, list[onnx.TensorShapeProto.Dimension]]:
        graph = self._inferred.graph
        values = (*graph.output, *graph.input, *graph.value_info)
        return {v.name: list(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}

    def rank(self, name: str) -> int | None:
        """How many axes a tensor has; None where inference cannot tell."""
        dims = self._shapes.get(name)
        return None if dims is None else len(dims)

    def sizes(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape; None where inference cannot tell a size."""
        constant = self.constants.get(name)
        if constant is not None:
            return tuple(constant.shape)
        dims = self._shapes.get(name)
        return tuple(dim.dim_value for dim in dims) if dims and all(dim.dim_value > 0 for dim in dims) else None

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> Counter[str]:
        """How often each tensor is read, graph outputs and sub-graphs included."""
        counts = Counter(name for node in self.nodes for name in names_read(node))
        counts.update(self.outputs)
        return counts

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, with a number appended if a tensor or node of that name exists."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def model(self) -> onnx.ModelProto:
        """The edited model as one message, with a copy of its weights."""
        return whole_model(self.light())

    def light(self) -> LightModel:
        """The edited model; constants that nothing reads are dropped."""
        graph = self.proto.graph
        used = set(self.consumers())
        inputs = {value.name for value in graph.input}
        weights: dict[str, NDArray[Any]] = {}
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.initializer[:]
        graph.initializer.extend(
            constant_from_array(name, value, weights) for name, value in self.constants.items() if name in used
        )
        unused = [value for value in graph.input if value.name in self.constants and value.name in inputs]
        for value in unused:
            graph.input.remove(value)
        alive = {name for node in self.nodes for name in node.output}
        info = [value for value in graph.value_info if value.name in alive]
        del graph.value_info[:]
        graph.value_info.extend(info)
        # Initializers that are no inputs came with IR 4; an opset needs the IR that knows it.
        least = onnx.helper.find_min_ir_version_for(list(self.proto.opset_import), ignore_unknown=True)
        self.proto.ir_version = max(self.proto.ir_version, 4, least)
        return LightModel(self.proto, weights)


def sorted_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its nodes in topological order, as ONNX requires; stable where the order is free."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    made = {name for node in graph.node for name in node.output}
    waiting = list(graph.node)
    ordered: list[onnx.NodeProto] = []
    while waiting:
        blocked = []
        for node in waiting:
            # Names that no node of this graph writes come from an outer graph, or belong to a sub-graph itself.
            if all(name in known or name not in made for name in names_read(node)):
                ordered.append(node)
                known.update(node.output)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            raise ModelError(f"the graph has a cycle through node '{blocked[0].name or blocked[0].op_type}'")
        waiting = blocked
    del graph.node[:]
    graph.node.extend(ordered)
    return result
