"""Weights rounded so that the errors of their output cancel, instead of each weight to its nearest step.

The input channels of a product are rounded one after the other, and the error that one leaves is taken up by those that
are still to come, as far as they go together in the data (E. Frantar et al., 2023, "GPTQ: Accurate Post-Training
Quantization for Generative Pre-trained Transformers", ICLR, in the form of its section 3.3). Inputs are those of the
quantized model. The largest weight of an output channel stays what it is, so that the channel keeps its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.qdq.placement import DEFAULT_PLACEMENT, Placement
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.weights import LIMIT
from quant.recovery.product_data import products_with_rows, rows_of_products, rows_of_weights

Array = NDArray[Any]
Inputs = Mapping[str, Array]

_DAMPING = 0.01  # of the mean of the diagonal
_STRETCHES = 4  # of the graph, so that the inputs of later products come from rounded ones


def with_rounded_weights(
    proto: onnx.ModelProto,
    quantize: Callable[[onnx.ModelProto], onnx.ModelProto],
    batches: Sequence[Inputs],
    placement: Placement = DEFAULT_PLACEMENT,
) -> onnx.ModelProto:
    """A float model whose weights lie on the INT8 grid, rounded by what they do to the output.

    Args:
        proto: FP32 model; not edited.
        quantize: Makes its INT8 form.
        batches: Inputs of the images that are used.
        placement: Which products are quantized.

    Raises:
        BuildError, ModelError: The INT8 form cannot be built or run.
    """
    editor = prepared_for_quantization(proto)
    count = len(products_with_rows(editor, placement))
    rounded = proto
    for stretch in np.array_split(np.arange(count), min(_STRETCHES, max(count, 1))):
        editor = prepared_for_quantization(rounded)
        products = products_with_rows(editor, placement)
        chosen = [products[i] for i in stretch]
        moments: dict[str, Any] = {}
        for node, rows in rows_of_products(quantize(rounded), batches, chosen, editor):
            moment = np.matmul(rows.transpose(0, 2, 1), rows).astype(np.float64)
            moments[node.output[0]] = moments.get(node.output[0], 0) + moment
        for node in chosen:
            name = editor.fresh_name(f"{node.input[1]}_rounded")
            weights = editor.constants[node.input[1]]
            found = rounded_weights(rows_of_weights(weights, node), moments[node.output[0]])
            editor.constants[name] = _from_rows(found, weights, node)
            node.input[1] = name
        rounded = editor.model()
    return rounded


def rounded_weights(weights: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights on the grid of their output channels.

    Args:
        weights: float64 [groups, outputs, inputs].
        moments: float64 [groups, inputs, inputs], sums of x x^T over the data.
    """
    left = weights.copy()
    largest = np.abs(weights).max(axis=2, keepdims=True)
    scale = np.where(largest > 0, largest, LIMIT) / LIMIT
    pinned = np.abs(weights).argmax(axis=2)[..., None]
    highest = np.take_along_axis(weights, pinned, axis=2)
    size = moments.shape[1]
    diagonal = np.einsum("gii->gi", moments)
    damping = _DAMPING * diagonal.mean(axis=1) + np.finfo(np.float32).tiny
    safe = moments + damping[:, None, None] * np.eye(size)
    upper = np.linalg.cholesky(np.linalg.inv(safe)).transpose(0, 2, 1)
    result: NDArray[np.float64] = np.empty_like(left)
    for column in range(size):
        now = left[:, :, column]
        steps = np.clip(np.round(now / scale[..., 0]), -LIMIT, LIMIT)
        result[:, :, column] = steps * scale[..., 0]
        error = (now - result[:, :, column]) / upper[:, None, column, column]
        left[:, :, column + 1 :] -= error[..., None] * upper[:, None, column, column + 1 :]
        np.put_along_axis(left, pinned, highest, axis=2)
    return result


def _from_rows(rows: NDArray[np.float64], weights: Array, node: onnx.NodeProto) -> Array:
    shaped = np.ascontiguousarray(rows[0].T) if node.op_type == "MatMul" else rows.reshape(weights.shape)
    result: Array = shaped.astype(weights.dtype)
    return result
