"""Activations whose histogram follows from another's, so that they need be neither fetched nor counted.

A Reshape moves values without changing them; a Relu is a Clip(0, infinity). The histograms that follow are equal, bit
for bit, to those that counting would give (see `calib.histogram`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from calib.histogram import Histogram, SplitHistogram

# Operators whose only float output holds the values of their first input, each once.
_REARRANGING = {
    "Identity",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "DepthToSpace",
    "SpaceToDepth",
}


@dataclass(frozen=True)
class Origin:
    """Where a tensor's histogram comes from.

    Attributes:
        root: The tensor that is counted; the tensor itself when nothing is derived.
        limit: None when the values are the root's; else they are the root's clipped to [0, limit], maybe infinite.
    """

    root: str
    limit: float | None = None


def origins(proto: onnx.ModelProto, tensors: Collection[str], *, clips: bool = True) -> dict[str, Origin]:
    """The origin of each tensor.

    Args:
        proto: The model.
        tensors: Those that need a histogram, in the order of the graph.
        clips: Derive Relu and Clip; otherwise only rearranged tensors are derived.
    """
    constants = _scalars(proto)
    wanted = set(tensors)
    result: dict[str, Origin] = {name: Origin(name) for name in tensors}
    limits: dict[str, float] = {}  # the one finite limit that each root is counted with
    for node in proto.graph.node:
        source = result.get(node.input[0]) if node.input else None
        if source is None or not node.output or node.output[0] not in wanted or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in _REARRANGING:
            result[node.output[0]] = source
            continue
        limit = _limit(node, constants) if clips else None
        if limit is None:
            continue
        limit = min(limit, math.inf if source.limit is None else source.limit)
        if math.isinf(limit) or limits.setdefault(source.root, limit) == limit:
            result[node.output[0]] = Origin(source.root, limit)
    return result


def split_limits(of: dict[str, Origin]) -> dict[str, float]:
    """The limit that each root is counted with, infinite for most."""
    limits = {origin.root: math.inf for origin in of.values()}
    for origin in of.values():
        if origin.limit is not None and not math.isinf(origin.limit):
            limits[origin.root] = origin.limit
    return limits


def derived_histogram(origin: Origin, counted: SplitHistogram) -> Histogram:
    """A tensor's histogram out of its root's."""
    if origin.limit is None:
        return counted.whole()
    return counted.whole().rectified() if math.isinf(origin.limit) else counted.clipped()


def _limit(node: onnx.NodeProto, constants: dict[str, float]) -> float | None:
    """Upper bound of a node that clips from zero up; None for any other node."""
    if node.op_type == "Relu":
        return math.inf
    if node.op_type != "Clip":
        return None
    attributes = {a.name: a.f for a in node.attribute}
    bounds = []
    for position, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        given = node.input[position] if len(node.input) > position else ""
        if given and given not in constants:
            return None
        bounds.append(constants[given] if given else attributes.get(name, default))
    low, high = bounds
    high = math.inf if high >= np.finfo(np.float32).max else high
    return high if low == 0 and high > 0 else None


def _scalars(proto: onnx.ModelProto) -> dict[str, float]:
    """Values of the constants that are a single number."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    return {
        name: float(numpy_helper.to_array(tensor).reshape(()))
        for name, tensor in tensors.items()
        if math.prod(tensor.dims) == 1 and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
