"""Rules of placement: which tensors stay INT8 between the kernels of a convolutional net, and which products do not.

An explicit build computes in INT8 where a pair is, and nowhere else. With pairs before kernels alone, what lies between
them is written and read as floats: twice or four times the bytes. An implicit build keeps such tensors in INT8 by
itself. Each rule says of some tensors that they are INT8 for all of their readers. `RULES` holds all of them with their
reasons; docs/gpu-results.md has what they save.

Transformers are another matter: there, pairs on sums cost more than they save (`Placement.results` says what helps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property

import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.qdq.operators import CONVOLUTIONS, FUSED_OPS, POOLING_OPS, QUANTIZED_OPS, node_key, only_moves

SMALLEST_PRODUCT = 16  # rows or columns of weights: INT8 tensor cores take 16 values at a time
# Activations that no kernel of TensorRT 8.6 fuses, as one operator; SiLU and others come as several.
_APART = {"HardSwish", "Mish", "Gelu", "Elu", "Selu", "Softplus", "PRelu", "Sigmoid", "HardSigmoid", "Tanh"}
_SUMS = {"Add", "Sum", "Sub", "Mul", "Div", "Max", "Min"}
_READERS = _APART | _SUMS | POOLING_OPS | FUSED_OPS | {"Concat"}  # besides those that move data


@dataclass(frozen=True)
class Rule:
    """A rule of placement.

    Attributes:
        reason: Why, in a sentence.
        tensors: The tensors that it keeps in INT8 for all of their readers.
    """

    reason: str
    tensors: Callable[[Between], set[str]]


class Between:
    """What lies between the kernels of a prepared graph.

    Attributes:
        editor: The graph.
        kernels: Indices of the nodes that compute in INT8.
        quantized: Tensors that have a pair so far.
    """

    def __init__(self, editor: GraphEditor, kernels: Set[int], quantized: Set[str]) -> None:
        self.editor, self.kernels, self.quantized = editor, kernels, set(quantized)

    @cached_property
    def readers(self) -> dict[str, list[tuple[int, int]]]:
        """The reads of each tensor: index of the node, and which of its inputs."""
        found: dict[str, list[tuple[int, int]]] = {}
        for i, node in enumerate(self.editor.nodes):
            for position, name in enumerate(node.input):
                found.setdefault(name, []).append((i, position))
        return found

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that writes each tensor."""
        return self.editor.producers()

    def carries(self, node: onnx.NodeProto) -> bool:
        """Does a node's output hold only values of its first input?"""
        if node.op_type == "Resize":
            mode = next((a.s for a in node.attribute if a.name == "mode"), b"nearest")
            return bool(mode == b"nearest") and node.input[0] not in self.editor.constants
        return node.op_type == "Split" or only_moves(node, self.editor)

    def is_activation(self, name: str) -> bool:
        """Is it a float tensor that a node or the image gives?"""
        return bool(name) and name not in self.editor.constants and self.editor.is_float32(name)

    @cached_property
    def entering(self) -> set[str]:
        """Tensors whose values INT8 kernels read, as they are or through nodes that carry or join them."""
        found: set[str] = set()
        for i in reversed(range(len(self.editor.nodes))):
            node = self.editor.nodes[i]
            if i in self.kernels:
                found.update(node.input[:2])
            elif found.intersection(node.output):
                found.update(node.input if node.op_type == "Concat" else node.input[:1] if self.carries(node) else ())
        return found

    def results(self) -> Iterator[str]:
        """The results of INT8 convolutions, with their bias where it is added apart."""
        for i in sorted(self.kernels):
            if self.editor.nodes[i].op_type in CONVOLUTIONS:
                result = self.editor.nodes[i].output[0]
                after = self.nodes_after(result)
                if len(after) == 1 and after[0].op_type == "Add" and self._adds_a_constant(after[0]):
                    result = after[0].output[0]
                yield result

    def nodes_after(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return [self.editor.nodes[i] for i, _ in self.readers.get(name, [])]

    def _adds_a_constant(self, node: onnx.NodeProto) -> bool:
        return any(name in self.editor.constants for name in node.input)


def _before_activations(between: Between) -> set[str]:
    """Results of convolutions that only an activation reads which does not fuse: x * f(x), HardSwish."""
    found = set()
    for result in between.results():
        after = between.nodes_after(result)
        kinds = {node.op_type for node in after}
        is_gated = "Mul" in kinds and len(after) > 1 and not kinds & {"Concat", *QUANTIZED_OPS}
        if result not in between.editor.outputs and (is_gated or (after and kinds <= _APART - {"Sigmoid", "Tanh"})):
            found.add(result)
    return found


def _joined(between: Between) -> set[str]:
    """What a Concat joins for INT8 kernels, and what that was carried from."""
    found: set[str] = set()
    for node in between.editor.nodes:
        if node.op_type != "Concat" or node.output[0] not in between.entering:
            continue
        if not all(between.is_activation(name) for name in node.input):
            continue
        found.update(node.output)
        for name in node.input:
            while name not in found:
                found.add(name)
                writer = between.producers.get(name)
                if writer is not None and between.carries(writer):
                    name = writer.input[0]  # noqa: PLW2901 - the walk back
    return found


def _with_other_readers(between: Between) -> set[str]:
    """What has a pair for one reader."""
    return set(between.quantized)


def _before_gates(between: Between) -> set[str]:
    """What a squeeze-excite block pools and then multiplies with its gate, for INT8 kernels."""
    found: set[str] = set()
    for node in between.editor.nodes:
        if node.op_type != "Mul" or node.output[0] not in between.entering:
            continue
        pooled = [n for n in node.input if any(after.op_type in POOLING_OPS for after in between.nodes_after(n))]
        found.update(name for name in pooled if between.is_activation(name))
    return found


RULES: dict[str, Rule] = {
    "activations": Rule(
        "SiLU, HardSwish and the like are kernels of their own, so the convolution before them writes its result: "
        "in INT8 a quarter of the bytes",
        _before_activations,
    ),
    "gates": Rule(
        "the input of squeeze-excite is read by the pooling and by the product with the gate, by no kernel; without a "
        "pair it is written as floats",
        _before_gates,
    ),
    "joins": Rule(
        "a Concat whose inputs share its scale costs nothing, because they are written where it wants them; with "
        "scales of their own, each is copied",
        _joined,
    ),
    "readers": Rule(
        "one reader of floats makes the node before it write floats as well; sums after an activation, pooling and "
        "nearest Resize read INT8",
        _with_other_readers,
    ),
}
ALL_RULES = frozenset(RULES)


def tensors_of_rules(between: Between, rules: Iterable[str]) -> set[str]:
    """The tensors that rules keep in INT8, in the order of `RULES`; each sees what those before it found.

    Args:
        between: The graph; `quantized` grows.
        rules: Names of `RULES`.
    """
    found: set[str] = set()
    for name in (name for name in RULES if name in set(rules)):
        found |= RULES[name].tensors(between)
        between.quantized |= found
    return found


def reads_in_int8(between: Between, tensors: Set[str]) -> Iterator[tuple[str, int, int]]:
    """The reads that get a pair if these tensors are INT8 for all readers: tensor, index of the node, which input.

    Products keep what they have: those in float read floats, because they stay float for their accuracy.
    """
    for name in sorted(tensors):
        if not between.is_activation(name):
            continue
        for i, position in between.readers.get(name, []):
            node = between.editor.nodes[i]
            if node.op_type in _READERS or (position == 0 and between.carries(node)):
                yield name, i, position


def shared_scales(between: Between, tensors: Set[str]) -> dict[str, tuple[str, ...]]:
    """Tensors that need one scale because a Concat joins them, and whose scales that one is made of.

    All that Concats join directly or through nodes that carry data belongs together. A Concat's output holds the values
    of all its inputs, so the group's scale is the largest of its Concats' outputs.

    Args:
        between: The graph.
        tensors: All that have pairs.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    joins = []
    for node in between.editor.nodes:
        if node.op_type == "Concat" and all(name in tensors for name in node.input) and node.output[0] in tensors:
            joins.append(node.output[0])
            for name in node.input:
                parent[root(name)] = root(node.output[0])
        elif between.carries(node) and node.input[0] in tensors:
            for name in tensors & set(node.output):
                parent[root(name)] = root(node.input[0])
    groups: dict[str, list[str]] = {}
    for name in joins:
        groups.setdefault(root(name), []).append(name)
    return {name: tuple(groups[root(name)]) for name in tensors if root(name) in groups}


def small_products(editor: GraphEditor) -> frozenset[str]:
    """Products of matrices with fewer than 16 rows or columns of weights, by `node_key`: they stay float.

    INT8 tensor cores multiply 16 values at a time, so such a product is padded, or runs on slower cores; as floats it
    costs next to nothing, and a pair costs a copy.
    """
    found = set()
    for node in editor.nodes:
        weights = editor.constants.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weights is not None and weights.ndim >= 2 and min(weights.shape[-2:]) < SMALLEST_PRODUCT:
            found.add(node_key(node))
    return frozenset(found)
