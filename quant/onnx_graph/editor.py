"""An editable copy of a graph, with the look-ups that rewrites need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from quant.errors import ModelError

_MAX_FOLDED_VALUES = 1 << 24  # constant nodes are folded only if their inputs hold no more values than this


_MAX_GROWN_VALUES = 1 << 20  # and only if repeating values does not give more than this


class GraphEditor:
    """An editable copy of a model, with the look-ups that rewrites need.

    Attributes:
        proto: The copy.
        nodes: Its nodes, in order; `model` puts them back.
        constants: Values of initializers and Constant nodes, by name.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        self.nodes: list[onnx.NodeProto] = list(self.proto.graph.node)
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in self.proto.graph.initializer
        }
        self.outputs = {value.name for value in self.proto.graph.output}
        self._taken = {*self.constants, *(value.name for value in self.proto.graph.input)}
        self._taken.update(name for node in self.nodes for name in (*node.output, node.name))
        self._fold_constants()

    def _fold_constants(self) -> None:
        """Turn Constant nodes, and nodes that depend only on constants, into initializers."""
        kept = []
        for node in self.nodes:
            names = [name for name in node.input if name]
            foldable = (
                node.domain in ("", "ai.onnx")
                and all(name in self.constants for name in names)
                and not any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
                and not any(name in self.outputs for name in node.output)
                and not node.op_type.startswith(("Random", "Multinomial", "Bernoulli"))
                and sum(self.constants[name].size for name in names) <= _MAX_FOLDED_VALUES
                and node.op_type not in ("QuantizeLinear", "DequantizeLinear")
                and self._values_after(node) <= _MAX_GROWN_VALUES
            )
            if not foldable:
                kept.append(node)
                continue
            from onnx.reference import ReferenceEvaluator  # slow to import, and most models have nothing to fold

            graph = onnx.helper.make_graph(
                [node],
                "constant",
                [
                    onnx.helper.make_tensor_value_info(
                        name, onnx.helper.np_dtype_to_tensor_dtype(self.constants[name].dtype), None
                    )
                    for name in dict.fromkeys(names)
                ],
                [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
            )
            model = onnx.helper.make_model(graph, opset_imports=self.proto.opset_import)
            results = ReferenceEvaluator(model).run(None, {name: self.constants[name] for name in names})
            self.constants.update(zip((name for name in node.output if name), map(np.asarray, results), strict=True))
        self.nodes = kept

    def _values_after(self, node: onnx.NodeProto) -> int:
        """How many values a node that repeats constants would give; 0 for others."""
        if node.op_type not in ("ConstantOfShape", "Expand", "Tile"):
            return 0
        sizes = self.constants[node.input[-1]].astype(np.int64)
        before = 1 if node.op_type == "ConstantOfShape" else self.constants[node.input[0]].size
        return int(before * np.maximum(sizes, 1).astype(np.float64).prod())

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
        """The edited model; constants that nothing reads are dropped."""
        graph = self.proto.graph
        used = set(self.consumers())
        inputs = {value.name for value in graph.input}
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.initializer[:]
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
            for name, value in self.constants.items()
            if name in used
        )
        unused = [value for value in graph.input if value.name in self.constants and value.name in inputs]
        for value in unused:
            graph.input.remove(value)
        alive = {name for node in self.nodes for name in node.output}
        info = [value for value in graph.value_info if value.name in alive]
        del graph.value_info[:]
        graph.value_info.extend(info)
        return self.proto


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, including those read inside its branches and loops."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            for inner in graph.node:
                yield from names_read(inner)
            yield from (value.name for value in graph.output)


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
