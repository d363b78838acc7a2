"""Which channels of which tensors can be scaled together so that a network computes the same.

If a convolution's output channel is divided by s and the next convolution's weights for that channel are multiplied by
s, nothing changes, as long as all between lets a positive factor pass (M. Nagel et al., 2019, "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV; G. Xiao et al., 2023, "SmoothQuant", ICML). Here this is found
for a whole graph at once: every element of every tensor bears the number of a factor, operators say which of these
numbers must be the same, and constants take up the factors where numbers change. Sums make one group of all channels of
a residual stream; Reshape, Transpose, Split or Concat carry numbers to wherever their elements go, through attention's
heads too; whatever is not homogeneous fixes its factors at 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.tracing import names_read
from quant.recovery.channels.rules import RULES
from quant.recovery.channels.walk import FIXED, Array, Ids, ScaledConstant, Walk, is_float, small


@dataclass(frozen=True)
class ChannelGroups:
    """Factors that leave a network as it is, whatever positive values they have.

    Attributes:
        tensors: Numbers of the factors of each float tensor's elements, for one batch, by name; stride 0 where they do
            not change along an axis.
        constants: The constants that take them up.
        count: Numbers are below this.
    """

    tensors: Mapping[str, Ids]
    constants: tuple[ScaledConstant, ...]
    count: int


def channel_groups(editor: GraphEditor, values: Mapping[str, Array]) -> ChannelGroups:
    """Find the factors of a prepared graph.

    Args:
        editor: The graph, see `quant.qdq.preparation`.
        values: All its tensors for a batch, by name.
    """
    walk = Walk(editor, values)
    for i, node in enumerate(editor.nodes):
        _visit(walk, i, node)
    for name in editor.outputs:
        walk.fix(name)
    numbers = walk.final_numbers()

    def final(ids: Ids | None) -> Ids | None:
        return None if ids is None else _mapped(numbers, ids)

    return ChannelGroups(
        {name: _mapped(numbers, ids) for name, ids in walk.ids.items()},
        tuple(ScaledConstant(c.node, c.position, final(c.enters), final(c.leaves)) for c in walk.constants),
        int(numbers.max()) + 1,
    )


def _visit(walk: Walk, index: int, node: onnx.NodeProto) -> None:
    """Give numbers to what a node writes."""
    own = node.domain in ("", "ai.onnx") and not any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
    rule = RULES.get(node.op_type) if own else None
    activations = [name for name in node.input if name in walk.ids]
    if rule is None or not activations or not rule(walk, index, node):
        for name in names_read(node):
            walk.fix(name)
        for name in node.output:
            if name and is_float(walk.values.get(name)):
                walk.write(name, np.asarray(FIXED))


def _mapped(numbers: Ids, ids: Ids) -> Ids:
    few = small(ids)
    mapped = np.where(few < 0, FIXED, numbers[np.maximum(few, 0)])
    return np.broadcast_to(mapped, ids.shape)
