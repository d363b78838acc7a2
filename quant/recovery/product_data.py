"""What the products of a model read, row by row: the data that weights are judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from quant.onnx_graph.editor import GraphEditor
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.operators import groups_of
from quant.qdq.placement import Placement, is_quantized_kernel
from quant.recovery.inner_values import with_tensors

Array = NDArray[Any]
Inputs = Mapping[str, Array]

_ROWS = 8192  # of data for each product
_LARGEST = 4608  # inputs of a product; the work grows with their cube


def products_with_rows(editor: GraphEditor, placement: Placement) -> list[onnx.NodeProto]:
    """Quantized products whose data can be laid out in rows: Conv, and MatMul with constant weights on the right."""
    return [node for node in editor.nodes if _has_rows(node, editor, placement)]


def _has_rows(node: onnx.NodeProto, editor: GraphEditor, placement: Placement) -> bool:
    if node.op_type not in ("Conv", "MatMul") or not is_quantized_kernel(node, editor, placement):
        return False
    weights = editor.constants.get(node.input[1])
    if weights is None or node.input[0] in editor.constants:
        return False
    inputs = int(np.prod(weights.shape[1:])) if node.op_type == "Conv" else weights.shape[0]
    return bool(weights.ndim >= 3 if node.op_type == "Conv" else weights.ndim == 2) and inputs <= _LARGEST


def rows_of_products(
    quantized: onnx.ModelProto, batches: Sequence[Inputs], products: Sequence[onnx.NodeProto], editor: GraphEditor
) -> Iterator[tuple[onnx.NodeProto, Array]]:
    """For each batch and product, some rows of what the product reads in the quantized model, [groups, rows, inputs].

    Args:
        quantized: The INT8 form of the model that `editor` holds.
        batches: Inputs of the images.
        products: Some of `products_with_rows`.
        editor: The prepared float model.
    """
    writers = {name: node for node in quantized.graph.node for name in node.output}
    sources = {node.output[0]: writers[node.output[0]].input[0] for node in products}
    given = {value.name for value in quantized.graph.input}
    read = [name for name in dict.fromkeys(sources.values()) if name not in given]
    session = OnnxRuntimeSession(quantized, name="model", exact=True, also=read)
    generator = np.random.default_rng(0)
    rows_a_batch = max(_ROWS // len(batches), 1)
    for batch in batches:
        values = with_tensors(session, batch, read)
        for node in products:
            yield node, _patches(values[sources[node.output[0]]], node, editor, generator, rows_a_batch)


def rows_of_weights(weights: Array, node: onnx.NodeProto) -> NDArray[np.float64]:
    """A product's weights as [groups, outputs, inputs]."""
    exact: NDArray[np.float64] = weights.astype(np.float64)
    if node.op_type == "MatMul":
        return np.asarray(exact.T[None])
    return np.asarray(exact.reshape(groups_of(node), len(weights) // groups_of(node), -1))


def _patches(
    data: Array, node: onnx.NodeProto, editor: GraphEditor, generator: np.random.Generator, rows: int
) -> Array:
    """What some output elements of a product read, [groups, rows, inputs]."""
    if node.op_type == "MatMul":
        flat = data.reshape(-1, data.shape[-1])
        return np.asarray(flat[generator.permutation(len(flat))[:rows]][None])
    groups, shape = groups_of(node), editor.constants[node.input[1]].shape
    windows = _windows(data, node, shape[2:])  # [images, channels, *places, *kernel]
    spatial = len(shape) - 2
    moved = np.moveaxis(windows, 1, 1 + spatial)  # [images, *places, channels, *kernel]
    count = int(np.prod(moved.shape[: 1 + spatial]))
    chosen = np.unravel_index(generator.permutation(count)[:rows], moved.shape[: 1 + spatial])
    taken: Array = moved[chosen]  # [rows, channels, *kernel]
    return np.asarray(taken.reshape(len(taken), groups, -1).transpose(1, 0, 2))


def _windows(data: Array, node: onnx.NodeProto, kernel: Sequence[int]) -> Array:
    """The patches of a convolution, as a view of the padded data."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    spatial = len(kernel)
    strides, dilations = attributes.get("strides", [1] * spatial), attributes.get("dilations", [1] * spatial)
    pads = list(attributes.get("pads", [0] * 2 * spatial))
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _same_pads(data.shape[2:], kernel, strides, dilations, upper=mode == b"SAME_UPPER")
    padded = np.pad(data, [(0, 0), (0, 0), *((pads[i], pads[i + spatial]) for i in range(spatial))])
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + spatial)))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    result: Array = windows[steps + tuple(slice(None, None, d) for d in dilations)]
    return result


def _same_pads(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool
) -> list[int]:
    before, after = [], []
    for size, k, s, d in zip(shape, kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before + after
