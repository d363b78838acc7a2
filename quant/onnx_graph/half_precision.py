"""The FP16 model: the FP32 model with float16 weights and activations; inputs and outputs stay float32."""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.errors import BuildError
from quant.onnx_graph.batch_norm import fold_batch_norm, split_batch_norm
from quant.onnx_graph.editor import GraphEditor, sorted_nodes
from quant.onnx_graph.light_model import (
    AnyModel,
    LightModel,
    blocks,
    constant_aside,
    inferred_shapes,
    is_aside,
    light_model,
    whole_model,
    with_initializers,
)
from quant.onnx_graph.tracing import names_within, nodes_within, with_tensors_renamed, with_unique_inner_names

_LARGEST, _SMALLEST = float(np.finfo(np.float16).max), 2.0**-24  # magnitudes that half precision has
_GIVING = {"Add", "Sub", "Where", "Max", "Min", "Clip"}  # give the constant, or what is about as large
# Names of the casts that the converter adds, and of what they give.
_CONVERTERS = re.compile(r"graph_(in|out)put_cast_?\d+|.*_cast_to_(fp32|fp16|bfloat16)(_node)?")
_MASK = 1e30  # a magnitude that only masks have
_LOSES = 2e-3  # relative error of a constant in half precision: four times that of rounding


def half_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """As `light_half_model`, as one message."""
    return whole_model(light_half_model(proto))


def light_half_model(model: AnyModel) -> LightModel:
    """Type a model as FP16 with ONNX Runtime's converter; inputs and outputs keep their types.

    Constants and BatchNormalization are folded first, in double precision: a small variance is no number that half
    precision holds. Nodes with constants that it cannot hold stay FP32, and so do operators that have no float16 kernel
    anywhere, between casts. The converter sees the graph alone; the weights that it types as float16 are converted
    after it, one by one.

    Raises:
        BuildError: The converter fails on this model.
    """
    light = light_model(model)
    try:
        named, back = _with_own_names(light)
        editor = GraphEditor(named)
        fold_batch_norm(editor)
        split_batch_norm(editor)
        for i, node in enumerate(editor.nodes):
            node.name = node.name or editor.fresh_name(f"{node.op_type}_{i}")
        lost: dict[tuple[str, bool], bool] = {}
        too_fine = [node.name for node in editor.nodes if _loses_a_constant(node, editor, lost)]
        folded = editor.light()
        proto = with_tensors_renamed(sorted_nodes(_typed(folded.proto, too_fine)), back)
        types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
        folded_weights = {back.get(name, name): array for name, array in folded.weights.items()}
        weights = {name: _in_type(array, types[name]) for name, array in folded_weights.items()}
    except Exception as error:  # the converter raises whatever its graph surgery runs into
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BuildError(f"FP16: the model cannot be converted: {reason}") from error
    return LightModel(proto, weights)


def _with_own_names(model: LightModel) -> tuple[LightModel, dict[str, str]]:
    """A copy in which nothing has a name that the converter gives: it does not look whether one is taken.

    A model that was converted before has such names, whatever tool around the converter did it; so has what was cut out
    of one, whose inputs and outputs they may be.

    Returns:
        The copy, and the names to give its converted form, which restore those of inputs and outputs.
    """
    proto = with_unique_inner_names(model.proto)
    taken = set(names_within(proto.graph))

    def fresh(name: str) -> str:
        while name in taken:
            name += "_before"
        taken.add(name)
        return name

    fixed = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    renamed = {name: fresh(name) for name in sorted(taken) if _CONVERTERS.fullmatch(name)}
    result = with_tensors_renamed(proto, renamed)
    for node in nodes_within(result.graph):
        if _CONVERTERS.fullmatch(node.name):
            node.name = fresh(node.name)
    weights = {renamed.get(name, name): values for name, values in model.weights.items()}
    back = {new: name for name, new in renamed.items() if name in fixed}
    return LightModel(result, weights), back | {name: new for new, name in back.items()}  # the converter's own swap


def _typed(proto: onnx.ModelProto, kept: list[str]) -> onnx.ModelProto:
    """A graph typed as FP16; the nodes of these names stay FP32.

    The converter reads the values of every constant, and infers shapes from them. So shapes are inferred before it, and
    large constants are empty on the way through it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    given = {value.name for value in proto.graph.input}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer if is_aside(tensor)}
    inferred = with_initializers(
        inferred_shapes(proto),
        [
            onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0], raw_data=b"")
            if tensor.name in shapes
            else tensor
            for tensor in proto.graph.initializer
        ],
    )
    for value in [value for value in inferred.graph.input if value.name not in given]:
        inferred.graph.input.remove(value)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # one a weight that loses digits: the accuracy says whether it mattered
        result: onnx.ModelProto = convert_float_to_float16(
            inferred, keep_io_types=True, disable_shape_infer=True, node_block_list=kept
        )
    for tensor in result.graph.initializer:
        if tensor.name in shapes:
            tensor.CopyFrom(constant_aside(tensor.name, tensor.data_type, shapes[tensor.name]))
    _mend_shapes(result.graph, shapes)
    return result


def _mend_shapes(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write the shapes of constants to the casts that the converter put behind them: it took them for empty."""
    casts = {
        node.output[0]: shapes[node.input[0]]
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in shapes
    }
    for value in graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if value.name in casts and [dim.dim_value for dim in dims] == [0]:
            del dims[:]
            for size in casts[value.name]:
                dims.add(dim_value=size)


def _in_type(array: NDArray[np.generic], data_type: int) -> NDArray[np.generic]:
    """Weights in half precision, if that is the type; nothing becomes infinite or zero that was not.

    So they are what the converter makes of them (`onnxruntime.transformers.float16.convert_np_to_float16`), which takes
    several times as long.
    """
    if data_type != onnx.TensorProto.FLOAT16 or array.dtype == np.float16:
        return array
    result = np.empty(array.shape, np.float16)
    for part, half in blocks(array, result):
        with np.errstate(over="ignore"):
            half[...] = part
        for wrong, value in ((np.isinf(half) & np.isfinite(part), _LARGEST), ((half == 0) & (part != 0), _SMALLEST)):
            if wrong.any():
                half[wrong] = np.copysign(np.float16(value), part[wrong])
    return result


def _loses_a_constant(node: onnx.NodeProto, editor: GraphEditor, known: dict[tuple[str, bool], bool]) -> bool:
    """Does a node read a constant that half precision cannot hold? `known` keeps what was found."""
    gives = node.op_type in _GIVING
    for name in node.input:
        if name in editor.constants and (name, gives) not in known:
            known[name, gives] = _is_lost(editor.constants[name], gives=gives)
    return any(known.get((name, gives), False) for name in node.input)


def _is_lost(constant: NDArray[np.generic], *, gives: bool) -> bool:
    """Is a constant one that half precision cannot hold: too large, or too small?

    A mask is not: its values are only beyond all others, and the largest half is so too, where infinity may give NaN.

    Args:
        constant: Its values.
        gives: Whether the node that reads it gives the constant, or what is about as large.
    """
    if constant.dtype != np.float32:
        return False
    clips = gives or any(
        np.max(np.abs(part), initial=0, where=np.isfinite(part)) >= _MASK for (part,) in blocks(constant)
    )
    sums = [_squares(part, clips=clips) for (part,) in blocks(constant)]
    size, error = (math.sqrt(sum(column)) for column in zip(*sums, strict=True))
    return bool(size and not error <= _LOSES * size)


def _squares(constant: NDArray[np.generic], *, clips: bool) -> tuple[float, float]:
    """The squares of a constant's finite values, summed, and of what half precision changes in them."""
    finite = np.isfinite(constant)
    exact = constant if finite.all() else constant[finite]  # infinity stays infinity
    if clips:
        exact = np.clip(exact, -_LARGEST, _LARGEST)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16)
    if np.isinf(half).any():
        return 1.0, math.inf
    error = np.subtract(half, exact, dtype=np.float32)  # has no more digits than float32 holds
    return _norm(exact) ** 2, _norm(error) ** 2


def _norm(values: NDArray[np.generic]) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))
