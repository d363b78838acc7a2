"""Following tensors through a graph, and the names in it and in the graphs inside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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


def constant_tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers and values of Constant nodes, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Branches and loop bodies of a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def nodes_within(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from nodes_within(inner)


def names_within(graph: onnx.GraphProto) -> Iterator[str]:
    """All names of a graph and of the graphs inside it: of nodes, of what they give, of inputs and constants."""
    yield from (value.name for value in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from (*node.output, node.name)
        for inner in inner_graphs(node):
            yield from names_within(inner)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, those inside its branches and loops too."""
    yield from (name for name in node.input if name)
    for graph in inner_graphs(node):
        for inner in graph.node:
            yield from names_read(inner)
        yield from (value.name for value in graph.output)


def with_unique_inner_names(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no name of an inner graph stands in another graph as well, which is legal and confuses tools."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    taken = set(names_within(result.graph))
    seen = {*_own_names(result.graph)}
    for node in result.graph.node:
        for graph in inner_graphs(node):
            _make_unique(graph, {}, seen, taken)
    return result


def with_tensors_renamed(proto: onnx.ModelProto, renamed: Mapping[str, str]) -> onnx.ModelProto:
    """A copy in which tensors have other names, in the graphs inside it too; nodes keep theirs.

    Args:
        proto: The model; not edited.
        renamed: New names by the old ones; no new one stands anywhere in the model, unless it is renamed as well.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    _rename(result.graph, renamed)
    return result


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = renamed.get(value.name, value.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = renamed.get(annotation.tensor_name, annotation.tensor_name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for inner in inner_graphs(node):
            _rename(inner, renamed)


def _own_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.initializer))
    yield from (name for node in graph.node for name in node.output if name)


def _make_unique(graph: onnx.GraphProto, renamed: Mapping[str, str], seen: set[str], taken: set[str]) -> None:
    """Rename what a graph makes where that name was seen; `renamed` holds the names of the graphs around it."""
    own = dict(renamed)
    for name in dict.fromkeys(_own_names(graph)):
        fresh, number = name, 1
        while fresh in seen or (fresh != name and fresh in taken):
            fresh, number = f"{name}_inner{number}", number + 1
        seen.add(fresh)
        own[name] = fresh
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = own.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [own.get(name, name) for name in node.input]
        node.output[:] = [own.get(name, name) for name in node.output]
        for inner in inner_graphs(node):
            _make_unique(inner, own, seen, taken)
