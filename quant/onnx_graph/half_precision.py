"""The FP16 model: the FP32 model with float16 weights and activations; inputs and outputs stay float32."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.errors import BuildError
from quant.onnx_graph.batch_norm import fold_batch_norm, split_batch_norm
from quant.onnx_graph.editor import GraphEditor, sorted_nodes
from quant.onnx_graph.tracing import with_unique_inner_names
from quant.onnx_graph.weights_aside import LARGEST_MESSAGE, bytes_of_constants

_LARGEST = float(np.finfo(np.float16).max)
_GIVING = {"Add", "Sub", "Where", "Max", "Min", "Clip"}  # give the constant, or what is about as large
_MASK = 1e30  # a magnitude that only masks have
_LOSES = 2e-3  # relative error of a constant in half precision: four times that of rounding


def half_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Type a model as FP16 with ONNX Runtime's converter; inputs and outputs keep their types.

    Constants and BatchNormalization are folded first, in double precision: a small variance is no number that half
    precision holds. Nodes with constants that it cannot hold stay FP32, and so do operators that have no float16 kernel
    anywhere, between casts.

    Raises:
        BuildError: The converter fails on this model, or it is too large for it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    size = bytes_of_constants(proto)
    if size >= LARGEST_MESSAGE:
        raise BuildError(
            f"FP16: expected a model below 2 GiB, as the converter copies it whole, found {size / 2**30:.1f} GiB"
        )
    try:
        editor = GraphEditor(with_unique_inner_names(proto))
        fold_batch_norm(editor)
        split_batch_norm(editor)
        for i, node in enumerate(editor.nodes):
            node.name = node.name or editor.fresh_name(f"{node.op_type}_{i}")
        too_fine = [
            node.name for node in editor.nodes if any(_is_lost(editor.constants.get(name), node) for name in node.input)
        ]
        folded = editor.model()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # one a weight that loses digits: the accuracy says whether it mattered
            return sorted_nodes(convert_float_to_float16(folded, keep_io_types=True, node_block_list=too_fine))
    except Exception as error:  # the converter raises whatever its graph surgery runs into
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BuildError(f"FP16: the model cannot be converted: {reason}") from error


def _is_lost(constant: NDArray[np.generic] | None, node: onnx.NodeProto) -> bool:
    """Is a constant one that half precision cannot hold: too large, or too small?

    A mask is not: its values are only beyond all others, and the largest half is so too, where infinity may give NaN.
    """
    if constant is None or constant.dtype != np.float32:
        return False
    exact = constant.astype(np.float64)
    exact = exact[np.isfinite(exact)]  # infinity stays infinity
    if node.op_type in _GIVING or np.abs(exact).max(initial=0) >= _MASK:
        exact = np.clip(exact, -_LARGEST, _LARGEST)
    with np.errstate(over="ignore"):
        half = exact.astype(np.float16).astype(np.float64)
    size = float(np.linalg.norm(exact))
    return bool(size and not np.linalg.norm(np.nan_to_num(half, posinf=2 * size) - exact) <= _LOSES * size)
