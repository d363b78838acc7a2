"""What each operator says of the factors of its channels, and which of its constants take them up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper

from quant.onnx_graph.light_model import session_options
from quant.qdq.operators import groups_of
from quant.recovery.channels.walk import ANY, FIXED, Array, Ids, Walk, narrow

# The output holds elements of the first input, and zeros.
_MOVING = {
    "Identity", "Dropout", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Expand",
    "Tile", "Gather", "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
_HOMOGENEOUS = {"Relu", "LeakyRelu", "PRelu", "Abs", "Neg"}
_OVER_PLACES = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"}  # channel by channel
_REDUCING = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"}
_SUMS = {"Add", "Sum", "Sub", "Mean"}


Rule = Callable[[Walk, int, onnx.NodeProto], bool]  # False where a node's factors are 1 on both sides


def _move(walk: Walk, _: int, node: onnx.NodeProto) -> bool:
    source = node.input[0]
    if source not in walk.ids or any(name in walk.ids for name in node.input[1:]):
        return False
    names = [name for name in node.output if name]
    moved = dict(zip(names, _executed(walk, node, {source: walk.ids[source]}), strict=True))
    walk.ids.update({name: moved[name] for name in names if name in walk.values})
    return True


def _pad(walk: Walk, index: int, node: onnx.NodeProto) -> bool:
    mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    value = walk.constant(node, 2) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if mode != b"constant":
        return _move(walk, index, node)
    if value is None or value.any() or node.input[0] not in walk.ids:
        return False
    pads = walk.values.get(node.input[1], walk.constant(node, 1))
    axes = walk.values.get(node.input[3], walk.constant(node, 3)) if len(node.input) > 3 and node.input[3] else None
    ids = walk.ids[node.input[0]]
    where = range(ids.ndim) if axes is None else [int(axis) % ids.ndim for axis in axes]
    if pads is None or (np.asarray(pads) < 0).any():
        return False
    widths = [(0, 0)] * ids.ndim
    for place, axis in enumerate(where):
        widths[axis] = (int(pads[place]), int(pads[place + len(pads) // 2]))
    walk.ids[node.output[0]] = np.pad(ids, widths, constant_values=ANY)
    return True


def _pass(walk: Walk, _: int, node: onnx.NodeProto) -> bool:
    if node.op_type == "PRelu" and walk.constant(node, 1) is None:
        return False
    walk.write(node.output[0], walk.ids[node.input[0]])
    return True


def _read_shape(*_: object) -> bool:
    """What only reads a shape says nothing of the factors."""
    return True


def _clip(walk: Walk, _: int, node: onnx.NodeProto) -> bool:
    """Only a Clip at 0 alone is homogeneous."""
    bounds = []
    for position, default in ((1, -np.inf), (2, np.inf)):
        given = len(node.input) > position and node.input[position]
        constant = walk.constant(node, position) if given else np.array(default)
        if constant is None or constant.size != 1:
            return False
        bound = float(constant.reshape(()))
        largest = np.finfo(constant.dtype).max if constant.dtype.kind == "f" else np.inf
        bounds.append(bound if abs(bound) < largest else float(np.sign(bound)) * np.inf)
    if not all(bound in (0, np.inf, -np.inf) for bound in bounds):
        return False
    walk.write(node.output[0], walk.ids[node.input[0]])
    return True


def _per_channel(walk: Walk, _: int, node: onnx.NodeProto) -> bool:
    ids = walk.ids[node.input[0]]
    walk.write(node.output[0], walk.along(ids, range(2, ids.ndim)))
    return True


def _resize(walk: Walk, _: int, node: onnx.NodeProto) -> bool:
    ids = walk.ids[node.input[0]]
    found, made = walk.values[node.input[0]].shape, walk.values[node.output[0]].shape
    if len(found) != len(made) or found[:2] != made[:2]:
        return False
    walk.write(node.output[0], walk.along(ids, range(2, ids.ndim)))
    return True


def _reduce(walk: Walk, _: int, node: onnx.NodeProto) -> bool:
    ids = walk.ids[node.input[0]]
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        given = walk.constant(node, 1)
        if given is None:
            return False
        axes = [int(axis) for axis in given]
    axes = [axis % ids.ndim for axis in axes] if axes else list(range(ids.ndim))
    ids = walk.along(ids, axes)
    if not next((a.i for a in node.attribute if a.name == "keepdims"), 1):
        ids = ids.reshape([size for axis, size in enumerate(ids.shape) if axis not in axes])
    walk.write(node.output[0], ids)
    return True


def _sum(walk: Walk, index: int, node: onnx.NodeProto) -> bool:
    """All summands have the same factors; constants take them up."""
    constants = [position for position, name in enumerate(node.input) if name not in walk.ids]
    if any(walk.constant(node, position) is None for position in constants):
        return False
    shape = walk.values[node.output[0]].shape
    parts = [np.broadcast_to(walk.ids[name], shape) for name in node.input if name in walk.ids]
    walk.same(*parts)
    for position in constants:
        walk.take_up(index, position, leaves=parts[0])
    walk.write(node.output[0], parts[0])
    return True


def _concat(walk: Walk, index: int, node: onnx.NodeProto) -> bool:
    axis = next(a.i for a in node.attribute if a.name == "axis")
    parts = []
    for position, name in enumerate(node.input):
        if name in walk.ids:
            parts.append(walk.ids[name])
            continue
        constant = walk.constant(node, position)
        if constant is None or constant.size == 0:
            return False
        parts.append(np.full(constant.shape, FIXED if constant.any() else ANY, np.int64))
    walk.ids[node.output[0]] = narrow(np.concatenate(parts, axis))
    return True


def _scale(walk: Walk, index: int, node: onnx.NodeProto) -> bool:
    """A product of elements: a vector of constants takes up the factors, a number lets them pass."""
    first, second = (name in walk.ids for name in node.input)
    shape = walk.values[node.output[0]].shape
    if first and second:
        passing = [i for i in range(2) if walk.is_fixed(node.input[1 - i])]
        if node.op_type == "Div":
            passing = [i for i in passing if i == 0]
        if not passing or node.input[0] == node.input[1]:
            return False
        walk.write(node.output[0], walk.ids[node.input[passing[0]]])
        return True
    position = 1 if first else 0
    constant = walk.constant(node, position)
    if constant is None or (node.op_type == "Div" and not first):
        return False
    entering = np.broadcast_to(walk.ids[node.input[1 - position]], shape)
    axis = _long_axis(constant, len(shape))
    if node.op_type == "Div" or axis is None or constant.shape[axis - len(shape)] != shape[axis]:
        walk.write(node.output[0], entering)
        return True
    channels = walk.fresh(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    walk.take_up(index, position, enters=entering, leaves=channels)
    walk.write(node.output[0], channels)
    return True


def _long_axis(constant: Array, rank: int) -> int | None:
    """The only axis along which a constant changes, among those of what it is multiplied with."""
    long = [axis for axis in range(-constant.ndim, 0) if constant.shape[axis] > 1]
    return long[0] % rank if len(long) == 1 else None


def _convolve(walk: Walk, index: int, node: onnx.NodeProto) -> bool:
    weights, source = walk.constant(node, 1), node.input[0]
    bias = walk.constant(node, 2) if len(node.input) > 2 and node.input[2] else None
    if weights is None or source not in walk.ids or (len(node.input) > 2 and node.input[2] and bias is None):
        return False
    ids, groups = walk.ids[source], groups_of(node)
    entering = walk.along(ids, [0, *range(2, ids.ndim)]).reshape(groups, -1)  # by group
    transposed = node.op_type == "ConvTranspose"
    count = weights.shape[1] * groups if transposed else weights.shape[0]
    leaving = walk.fresh(count)
    places = (1,) * (weights.ndim - 2)
    if transposed:
        enters = entering.reshape(-1, 1, *places)
        leaves = np.repeat(leaving.reshape(groups, -1), entering.shape[1], axis=0).reshape(len(enters), -1, *places)
    else:
        enters = np.repeat(entering, count // groups, axis=0).reshape(count, -1, *places)
        leaves = leaving.reshape(-1, 1, *places)
    walk.take_up(index, 1, enters=enters, leaves=leaves)
    if bias is not None:
        walk.take_up(index, 2, leaves=leaving)
    walk.write(node.output[0], leaving.reshape(1, -1, *places))
    return True


def _multiply(walk: Walk, index: int, node: onnx.NodeProto) -> bool:
    left, right = node.input
    shape = walk.values[node.output[0]].shape
    if left in walk.ids and right in walk.ids:
        return _multiply_activations(walk, node)
    weights = walk.constant(node, 1 if left in walk.ids else 0)
    if weights is None or weights.ndim < 1:
        return False
    if left in walk.ids:
        ids = walk.ids[left]
        entering = walk.along(ids, range(ids.ndim - 1)).reshape(-1)
        if weights.ndim == 1:
            return False
        leaving = walk.fresh(weights.shape[-1])
        walk.take_up(index, 1, enters=entering[:, None], leaves=leaving)
        walk.write(node.output[0], leaving)
        return True
    ids = walk.ids[right]
    if weights.ndim == 1 or ids.ndim < 2:
        return False
    entering = walk.along(ids, [axis for axis in range(ids.ndim) if axis != ids.ndim - 2]).reshape(-1)
    leaving = walk.fresh(weights.shape[-2])
    walk.take_up(index, 0, enters=entering, leaves=leaving[:, None])
    walk.write(node.output[0], np.broadcast_to(leaving[:, None], shape))
    return True


def _multiply_activations(walk: Walk, node: onnx.NodeProto) -> bool:
    """Attention's weights, which have no factors, times values, whose columns keep theirs."""
    left, right = node.input
    if min(walk.ids[left].ndim, walk.ids[right].ndim) < 2:
        return False
    if walk.is_fixed(left):
        walk.write(node.output[0], walk.along(walk.ids[right], [walk.ids[right].ndim - 2]))
        return True
    if walk.is_fixed(right):
        walk.write(node.output[0], walk.along(walk.ids[left], [walk.ids[left].ndim - 1]))
        return True
    return False


def _normalize(walk: Walk, index: int, node: onnx.NodeProto) -> bool:
    """A normalization fixes what it reads; its gain and shift take up the factors of what it writes."""
    parts = [position for position in (1, 2) if len(node.input) > position and node.input[position]]
    if 1 not in parts or any(walk.constant(node, position) is None for position in parts):
        return False
    walk.fix(node.input[0])
    shape = walk.values[node.output[0]].shape
    by_channel = node.op_type in ("InstanceNormalization", "BatchNormalization")
    gain = walk.constant(node, 1)
    axis = 1 if by_channel else len(shape) - 1
    if gain is None or gain.size != shape[axis] or any(node.output[1:]):
        return False
    leaving = walk.fresh(shape[axis])
    for position in parts:
        walk.take_up(index, position, leaves=leaving.reshape(walk.editor.constants[node.input[position]].shape))
    walk.write(node.output[0], leaving.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
    return True


RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVING, _move),
    **dict.fromkeys(_HOMOGENEOUS, _pass),
    **dict.fromkeys(_OVER_PLACES, _per_channel),
    **dict.fromkeys(_REDUCING, _reduce),
    **dict.fromkeys(_SUMS, _sum),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolve),
    **dict.fromkeys(("Mul", "Div"), _scale),
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "BatchNormalization"), _normalize
    ),
    **dict.fromkeys(("Shape", "Size"), _read_shape),
    "Pad": _pad,
    "Clip": _clip,
    "Resize": _resize,
    "Concat": _concat,
    "MatMul": _multiply,
}


def _executed(walk: Walk, node: onnx.NodeProto, given: Mapping[str, Ids]) -> list[Ids]:
    """What a node that only moves elements makes of their numbers."""
    import onnxruntime

    feeds: dict[str, Array] = {}
    for name in node.input:
        if name:
            value = given[name] if name in given else walk.values.get(name, walk.editor.constants.get(name))
            feeds[name] = np.ascontiguousarray(value)
    bare = onnx.NodeProto()
    bare.CopyFrom(node)
    graph = helper.make_graph(
        [bare],
        "moved",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    model = helper.make_model(
        graph, opset_imports=list(walk.editor.proto.opset_import), ir_version=walk.editor.proto.ir_version
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"]
    )
    found: list[Ids] = session.run(None, feeds)
    return [narrow(ids) for ids in found]
