"""Scales of tensors that hold a mask, in a cache for an implicit build: TensorRT would use them, and hide everything.

The toolkit's own calibration gives such tensors no scale (`calib.histograms.masks`). TensorRT's own does, and so do
caches from elsewhere: of a mask of -3.4e38 it is 2.7e36, with which every score beside the mask becomes zero. A smaller
one moves the mask to where it hides nothing. Without a scale the tensor stays float. The values are not known here, so
masks are found in the graph.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from calib.caches.cache import CalibrationCache
from calib.histograms.masks import LEAST_MASK
from quant.onnx_graph.tracing import constant_tensors
from quant.qdq.writer import quantizable_tensors

_NO_ACTIVATION = 1e30  # a magnitude that only masks have
_MIXING = ("Add", "Sub", "Where", "Min", "Max")  # put a mask among values
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_CARRYING = {
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Gather", "Cast",
    "Concat", "Split",
}  # fmt: skip


def scales_of_masks(proto: onnx.ModelProto, cache: CalibrationCache) -> list[str]:
    """Tensors with a scale that no INT8 kernel needs, and that hold a mask; in the order of the cache.

    Args:
        proto: FP32 model, with its weights.
        cache: Its scales.
    """
    masked = masked_tensors(proto)
    found = [name for name, amax in cache.amax.items() if name in masked or amax >= _NO_ACTIVATION]
    needed = set(quantizable_tensors(proto)) if found else set()
    return [name for name in found if name not in needed]


def without_scales_of(cache: CalibrationCache, tensors: list[str]) -> CalibrationCache:
    """The cache without some tensors."""
    gone = set(tensors)
    return CalibrationCache(cache.header, {name: scale for name, scale in cache.scales.items() if name not in gone})


def masked_tensors(proto: onnx.ModelProto) -> set[str]:
    """Tensors in which a mask stands among other values, as far as the graph shows it.

    A mask is a constant of zeros and one negative magnitude of 1000 or more, or values times such a constant, as in
    (1 - seen) * -10000.
    """
    constants = constant_tensors(proto.graph)
    read = {name for node in proto.graph.node if node.op_type in (*_MIXING, *_CARRYING, "Mul") for name in node.input}
    masks = {name for name in read & constants.keys() if _is_mask(constants[name])}
    masked: set[str] = set()
    for node in proto.graph.node:
        data = list(node.input[1:] if node.op_type == "Where" else node.input)
        if node.op_type in _MIXING and masks & set(data):
            alone = all(name in masks or name in constants for name in data)
            (masks if alone else masked).update(node.output)
        elif node.op_type in _CARRYING and data:
            for kind in (masks, masked):
                if kind & set(data):
                    kind.update(node.output)
        elif node.op_type == "Mul" and masks & set(data):
            masks.update(node.output)
    return masked


def _is_mask(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in _FLOATS:
        return False
    values = numpy_helper.to_array(tensor)
    if not values.size or not values.min() <= -LEAST_MASK:
        return False
    hidden = values[values != 0].astype(np.float64)
    return bool(hidden.max() <= min(-LEAST_MASK, hidden.min() / 2))
