"""Activations whose histograms follow from others, so that they need not be fetched or counted.

A Reshape moves values without changing them. A Relu is a Clip(0, infinity). A Concat holds the values of all its
inputs, and the input of a Split holds the values of all its outputs. If all values are halved, they stay in the same
bins, which are half as wide. The derived histograms equal, bit for bit, those that counting would give (see
`calib.histograms.histogram`); for halving, this holds for all but subnormal numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from calib.histograms.histogram import Histogram
from calib.histograms.split_histogram import SplitHistogram
from quant.onnx_graph.tracing import constant_tensors

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
    """Where a tensor's values come from.

    Attributes:
        root: The tensor that is counted; the tensor itself when nothing is derived.
        limit: None if the values are the root's; otherwise they are the root's clipped to [0, limit], which may be
            infinite.
        exponent: The values are then multiplied by 2^exponent; never positive.
    """

    root: str
    limit: float | None = None
    exponent: int = 0


Parts = tuple[Origin, ...]  # a tensor holds the values of all of them


def origins(proto: onnx.ModelProto, tensors: Collection[str], *, moved_only: bool = False) -> dict[str, Parts]:
    """Where each tensor's values come from.

    Args:
        proto: The model.
        tensors: Tensors that need a histogram, in the order of the graph.
        moved_only: Derive only tensors that hold exactly the values of another one.
    """
    constants = scalar_constants(proto)
    wanted = set(tensors)
    result: dict[str, Parts] = {name: (Origin(name),) for name in tensors}
    limits: dict[str, float] = {}  # the one finite limit that each root is counted with
    for node in proto.graph.node:
        if not node.output or node.output[0] not in wanted or node.domain not in ("", "ai.onnx"):
            continue
        parts = _moved(node, result)
        if parts is None and not moved_only:
            parts = _joined(node, result) or _scaled(node, result, constants) or _clipped(node, result, constants)
        finite = [(part.root, part.limit) for part in parts or () if part.limit is not None and part.limit < math.inf]
        if parts and all(limits.setdefault(root, limit) == limit for root, limit in finite):
            result[node.output[0]] = parts
    return result if moved_only else _cut(proto, result, limits)


def _cut(proto: onnx.ModelProto, found: Mapping[str, Parts], limits: Collection[str]) -> dict[str, Parts]:
    """Count the outputs of a Split instead of its input, unless the input is counted with its own limit."""
    pieces: dict[str, tuple[str, ...]] = {}
    for node in proto.graph.node:
        if node.op_type != "Split" or node.domain not in ("", "ai.onnx"):
            continue
        source = found.get(node.input[0], ())
        outputs = tuple(node.output)
        whole = len(source) == 1 and source[0] == Origin(source[0].root) and source[0].root not in {*limits, *pieces}
        if whole and all(found.get(name) == (Origin(name),) for name in outputs):
            pieces[source[0].root] = outputs
    return {name: _in_pieces(parts, pieces) for name, parts in found.items()}


def _in_pieces(parts: Parts, pieces: Mapping[str, tuple[str, ...]]) -> Parts:
    """Replace each root that is split by its pieces, which may be split in turn."""
    if not any(part.root in pieces for part in parts):
        return parts
    result: list[Origin] = []
    for part in parts:
        result += (replace(part, root=name) for name in pieces.get(part.root, (part.root,)))
    return _in_pieces(tuple(result), pieces)


def _moved(node: onnx.NodeProto, known: Mapping[str, Parts]) -> Parts | None:
    return known.get(node.input[0]) if node.op_type in _REARRANGING else None


def _joined(node: onnx.NodeProto, known: Mapping[str, Parts]) -> Parts | None:
    if node.op_type != "Concat" or any(name not in known for name in node.input):
        return None
    return tuple(part for name in node.input for part in known[name])


def _scaled(node: onnx.NodeProto, known: Mapping[str, Parts], constants: Mapping[str, float]) -> Parts | None:
    if node.op_type not in ("Mul", "Div"):
        return None
    data, factor = node.input
    if node.op_type == "Mul" and data in constants:
        data, factor = factor, data
    if data not in known or factor not in constants:
        return None
    mantissa, exponent = math.frexp(constants[factor])
    step = exponent - 1 if node.op_type == "Mul" else 1 - exponent
    if mantissa != 0.5 or step > 0:
        return None
    return tuple(replace(part, exponent=part.exponent + step) for part in known[data])


def _clipped(node: onnx.NodeProto, known: Mapping[str, Parts], constants: Mapping[str, float]) -> Parts | None:
    limit = rectifier_limit(node, constants)
    if limit is None or node.input[0] not in known:
        return None
    parts = []
    for part in known[node.input[0]]:
        own = limit * 2.0**-part.exponent  # in the root's units
        parts.append(replace(part, limit=min(own, math.inf if part.limit is None else part.limit)))
    return tuple(parts)


def split_limits(of: Mapping[str, Parts]) -> dict[str, float]:
    """The limit that each root is counted with, infinite for most."""
    limits = {part.root: math.inf for parts in of.values() for part in parts}
    for parts in of.values():
        for part in parts:
            if part.limit is not None and not math.isinf(part.limit):
                limits[part.root] = part.limit
    return limits


def first_holders(of: Mapping[str, Parts]) -> dict[str, str]:
    """The first tensor of the graph that holds each root's values: the root, or the input of its Split."""
    result: dict[str, str] = {}
    for name, parts in of.items():
        for part in parts:
            result.setdefault(part.root, name)
    return result


def derived_histogram(parts: Parts, counted: Mapping[str, SplitHistogram]) -> Histogram:
    """A tensor's histogram, derived from those of its roots."""
    return functools.reduce(Histogram.merged, (_histogram(part, counted[part.root]) for part in parts))


def _histogram(part: Origin, counted: SplitHistogram) -> Histogram:
    if part.limit is None:
        histogram = counted.whole()
    else:
        histogram = counted.whole().rectified() if math.isinf(part.limit) else counted.clipped()
    return histogram.halved(-part.exponent) if part.exponent else histogram


def rectifier_limit(node: onnx.NodeProto, constants: Mapping[str, float]) -> float | None:
    """Upper bound of a node that clips to [0, bound]; None for any other node."""
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


def scalar_constants(proto: onnx.ModelProto) -> dict[str, float]:
    """Values of the constants that are a single number."""
    return {
        name: float(numpy_helper.to_array(tensor).reshape(()))
        for name, tensor in constant_tensors(proto.graph).items()
        if math.prod(tensor.dims) == 1 and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
