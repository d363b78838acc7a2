"""Where Q/DQ pairs go: the placement that TensorRT's explicit quantization fuses best.

Source: NVIDIA TensorRT Developer Guide, "Explicit quantization", Q/DQ placement recommendations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.operators import (
    CONVOLUTIONS,
    FUSED_OPS,
    MOVING_OPS,
    POOLING_OPS,
    QUANTIZED_OPS,
    groups_of,
    node_key,
    only_moves,
)
from quant.qdq.rules import Between, reads_in_int8, shared_scales, tensors_of_rules

# Sums and normalisations (ReduceMean starts one that is split into nodes): a pair before them fuses with nothing.
_READERS_OF_FLOATS = ("Add", "Sum", "ReduceMean", "LayerNormalization", "InstanceNormalization", "GroupNormalization")


@dataclass(frozen=True)
class Placement:
    """Where pairs go, besides the inputs of kernels and skip connections.

    Attributes:
        moves: On reads that only move a quantized tensor's data.
        pooling: On inputs of averaging.
        depthwise: On inputs of depthwise convolutions.
        results: On the result of a product with constant weights and its bias, unless a sum or a normalisation reads
            it: the kernel then writes INT8.
        float_nodes: Kernels that stay float, by `node_key`.
        unscaled: Activations without a scale: they get no pair, and the kernels that read them stay float.
        rules: Names of `quant.qdq.rules.RULES`: on all reads of the tensors that these keep in INT8.
        held: Other tensors that are INT8 for all of their readers.
        joined: With rules or tensors that are held: one scale for all that a Concat joins, which then copies nothing.
    """

    moves: bool = True
    pooling: bool = False
    depthwise: bool = True
    results: bool = False
    float_nodes: frozenset[str] = frozenset()
    unscaled: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    joined: bool = True


DEFAULT_PLACEMENT = Placement()


@dataclass(frozen=True)
class QuantizableInput:
    """An edge that gets a Q/DQ pair.

    Attributes:
        tensor: Activation that is quantized.
        node: Index of the node that reads it, among the nodes of the edited graph.
        position: Which of the node's inputs.
        scale: Tensor whose scale is used: the one that the data was moved from, or the same one.
        joined: Other tensors of which the same holds, where a Concat joins them; the largest scale is used.
    """

    tensor: str
    node: int
    position: int
    scale: str
    joined: tuple[str, ...] = ()

    @property
    def scales(self) -> tuple[str, ...]:
        """All tensors that the scale is made of."""
        return (self.scale, *self.joined)


def product_inputs(proto: onnx.ModelProto) -> set[str]:
    """Inputs of matrix products (MatMul, as in transformers), and the tensors that their data was moved from.

    Gemm, the classifier at the end of most convolutional nets, is not included: TensorRT's rule holds there.
    """
    producers = {name: node for node in proto.graph.node for name in node.output}
    found: set[str] = set()
    for node in proto.graph.node:
        for tensor in node.input if node.op_type == "MatMul" else ():
            name = tensor
            while name not in found:
                found.add(name)
                writer = producers.get(name)
                if writer is not None and writer.op_type in MOVING_OPS:
                    name = writer.input[0]
    return found


def quantizable_inputs(editor: GraphEditor, placement: Placement = DEFAULT_PLACEMENT) -> list[QuantizableInput]:
    """The activations that get a Q/DQ pair, edge by edge, in the order of the graph."""
    edges = _computing_edges(editor, placement)
    if placement.results:
        edges = _in_order({*edges, *_result_edges(editor, placement)})
    if placement.rules or placement.held:
        return _between_kernels(editor, placement, edges)
    return _with_moves(editor, placement, edges) if placement.moves else edges


def _in_order(edges: Iterable[QuantizableInput]) -> list[QuantizableInput]:
    return sorted(edges, key=lambda edge: (edge.node, edge.position))


def _between_kernels(
    editor: GraphEditor, placement: Placement, edges: list[QuantizableInput]
) -> list[QuantizableInput]:
    """The same, and those that the placement's rules add."""
    kernels = {i for i, node in enumerate(editor.nodes) if is_quantized_kernel(node, editor, placement)}
    between = Between(editor, kernels, {edge.tensor for edge in edges})
    tensors = (tensors_of_rules(between, placement.rules) | placement.held) - placement.unscaled
    taken = {(edge.node, edge.position) for edge in edges}
    added = [
        QuantizableInput(tensor, node, position, tensor)
        for tensor, node, position in reads_in_int8(between, tensors)
        if (node, position) not in taken
    ]
    edges = _in_order([*edges, *added])
    if placement.moves:
        edges = _with_moves(editor, placement, edges)
    if not placement.joined:
        return edges
    shared = shared_scales(between, {edge.tensor for edge in edges} | tensors)
    return [
        replace(edge, scale=shared[edge.tensor][0], joined=shared[edge.tensor][1:]) if edge.tensor in shared else edge
        for edge in edges
    ]


def _with_moves(editor: GraphEditor, placement: Placement, edges: list[QuantizableInput]) -> list[QuantizableInput]:
    """The same, and the reads that only move a quantized tensor's data, with its scale to the end of the chain."""
    producers = editor.producers()
    splits = placement.results or bool(placement.rules or placement.held)
    quantized = {edge.tensor for edge in edges}

    def origin(tensor: str) -> str:
        """The tensor that the data was moved from, if that is quantized as well; else the tensor itself."""
        name = found = tensor
        while (node := producers.get(name)) is not None and (
            only_moves(node, editor) or (splits and node.op_type == "Split")
        ):
            name = node.input[0]
            found = name if name in quantized else found
        return found

    edges = [replace(edge, scale=origin(edge.tensor)) for edge in edges]
    taken = {(edge.node, edge.position) for edge in edges}
    for i, node in enumerate(editor.nodes):
        moves = only_moves(node, editor) and node.input[0] in quantized and (i, 0) not in taken
        if moves and not _from_float_kernel(node.input[0], producers, placement):
            edges.append(QuantizableInput(node.input[0], i, 0, origin(node.input[0])))
    return _in_order(edges)


def _from_float_kernel(tensor: str, producers: Mapping[str, onnx.NodeProto], placement: Placement) -> bool:
    """Whether a kernel that stays float writes a tensor, itself or through what it fuses with.

    Such a tensor is in float, and moving it costs less than turning it into INT8 first; docs/gpu-results.md says by how
    much.
    """
    node = producers.get(tensor)
    while node is not None and node.op_type in FUSED_OPS:
        node = producers.get(node.input[0])
    if node is None:
        return False
    writers = [producers[name] for name in node.input if name in producers] if node.op_type == "Add" else [node]
    kernels = [writer for writer in writers if writer.op_type in QUANTIZED_OPS]
    return bool(kernels) and all(node_key(kernel) in placement.float_nodes for kernel in kernels)


def is_quantized_kernel(node: onnx.NodeProto, editor: GraphEditor, placement: Placement) -> bool:
    """Whether a node computes in INT8."""
    if not is_product(node) or node_key(node) in placement.float_nodes or reason_for_float(node, editor):
        return False
    if not placement.unscaled.isdisjoint(node.input[:2]):
        return False
    return placement.depthwise or not _is_depthwise(node, editor)


def is_product(node: onnx.NodeProto) -> bool:
    """Is a node one of ONNX's own products, of those that can be quantized? Other domains use the same names."""
    return node.op_type in QUANTIZED_OPS and node.domain in ("", "ai.onnx")


def reason_for_float(node: onnx.NodeProto, editor: GraphEditor) -> str:
    """Why a product cannot compute in INT8 here; empty where it can."""
    if not all(editor.is_float32(name) for name in node.input[:2]):
        return "of another type than float32"
    if node.op_type == "ConvTranspose" and groups_of(node) > 1:
        weights = editor.constants.get(node.input[1])
        # Its output channels lie along no single axis of the weights, unless each group has one channel in and out.
        if weights is None or weights.shape[0] != groups_of(node) or weights.shape[1] != 1:
            return "ConvTranspose in groups of several channels"
    return ""


def _is_depthwise(node: onnx.NodeProto, editor: GraphEditor) -> bool:
    weights = editor.constants.get(node.input[1]) if node.op_type == "Conv" else None
    return groups_of(node) > 1 and weights is not None and weights.shape[1] == 1


def _computing_edges(editor: GraphEditor, placement: Placement) -> list[QuantizableInput]:
    """Edges into kernels and skip connections."""
    edges = []
    producers = editor.producers()
    consumers = editor.consumers()
    order = {id(node): i for i, node in enumerate(editor.nodes)}
    for i, node in enumerate(editor.nodes):
        if is_quantized_kernel(node, editor, placement):
            edges += [
                QuantizableInput(name, i, position, name)
                for position, name in enumerate(node.input[:2])
                if name and name not in editor.constants
            ]
        elif node.op_type == "Add":
            skip = skip_position(node, editor, producers, consumers, order, placement)
            if skip is not None and node.input[skip] not in placement.unscaled:
                edges.append(QuantizableInput(node.input[skip], i, skip, node.input[skip]))
        elif (
            placement.pooling
            and node.op_type in POOLING_OPS
            and node.input[0] not in editor.constants
            and node.input[0] not in placement.unscaled
        ):
            edges.append(QuantizableInput(node.input[0], i, 0, node.input[0]))
    return edges


def _result_edges(editor: GraphEditor, placement: Placement) -> Iterator[QuantizableInput]:
    """Edges out of products with constant weights."""
    readers: dict[str, list[tuple[int, int]]] = {}
    for i, node in enumerate(editor.nodes):
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((i, position))
    for node in editor.nodes:
        if node.op_type != "MatMul" or not is_quantized_kernel(node, editor, placement):
            continue
        if not any(name in editor.constants for name in node.input):
            continue
        result = node.output[0]
        after = [editor.nodes[i] for i, _ in readers.get(result, [])]
        if len(after) == 1 and after[0].op_type == "Add" and any(name in editor.constants for name in after[0].input):
            result = after[0].output[0]
        found = readers.get(result, [])
        if result not in editor.outputs and not any(editor.nodes[i].op_type in _READERS_OF_FLOATS for i, _ in found):
            yield from (QuantizableInput(result, i, position, result) for i, position in found)


def skip_position(
    node: onnx.NodeProto,
    editor: GraphEditor,
    producers: Mapping[str, onnx.NodeProto],
    consumers: Mapping[str, int],
    order: Mapping[int, int],
    placement: Placement,
) -> int | None:
    """Which input of an Add is the skip connection; None when the Add is not residual.

    The main path ends in a convolution that only this Add reads. If both inputs do, the later one fuses with the Add
    and the other is the skip. A matrix product with its bias does not fuse like this: on a transformer, the pair would
    only turn floats into INT8 and back (docs/gpu-results.md has the figures).
    """
    if node.input[0] == node.input[1] or any(name in editor.constants for name in node.input):
        return None

    def convolution(name: str) -> int | None:
        producer = producers.get(name)
        if producer is None or consumers[name] != 1:
            return None
        if producer.op_type == "Add":  # a separate bias, as some exporters write it
            parts = [part for part in producer.input if part not in editor.constants]
            producer = producers.get(parts[0]) if len(parts) == 1 and consumers[parts[0]] == 1 else None
        if producer is None or producer.op_type not in CONVOLUTIONS:
            return None
        return order[id(producer)] if is_quantized_kernel(producer, editor, placement) else None

    main = [convolution(name) for name in node.input]
    if main[0] is None and main[1] is None:
        return None
    return 1 if (main[0] if main[0] is not None else -1) > (main[1] if main[1] is not None else -1) else 0
