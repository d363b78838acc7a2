"""How much noise each group of quantized products brings to a model's outputs, and how much work it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from quant.onnx_graph.editor import GraphEditor
from quant.onnxruntime.session_in_parts import SessionInParts
from quant.qdq.operators import node_key
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement, is_quantized_kernel
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax
from quant.recovery.float_choice.product_groups import ProductGroup, product_groups
from quant.recovery.inner_values import all_values
from quant.recovery.judging import Judge, level_db

Array = NDArray[Any]


@dataclass(frozen=True)
class Sensitivity:
    """What one group of products costs when it alone is quantized.

    Attributes:
        group: The products.
        macs: Multiply-accumulates for an image.
        noise: Relative noise in the outputs, mean over the images.
        sqnr_db: The same as a signal to noise ratio, dB.
        changed: Images whose answer differs from FP32's, and of how many; None where no output answers classes.
        lost: Points of top-1 lost; None without labels.
    """

    group: ProductGroup
    macs: int
    noise: float
    sqnr_db: float
    changed: tuple[int, int] | None = None
    lost: float | None = None


def quantized_products(editor: GraphEditor) -> list[onnx.NodeProto]:
    """The products of a prepared graph that INT8 can compute, in order."""
    return [node for node in editor.nodes if is_quantized_kernel(node, editor, DEFAULT_PLACEMENT)]


def macs_of_products(proto: onnx.ModelProto, image: Mapping[str, Array]) -> dict[str, int]:
    """Multiply-accumulates of each product that INT8 can compute, for one image.

    Args:
        proto: FP32 model.
        image: Its inputs for one image, or as many as it requires.

    Raises:
        BuildError, ModelError: The model cannot be prepared or run.
    """
    editor = prepared_for_quantization(proto)
    products = quantized_products(editor)
    wanted = {name for node in products for name in (*node.input[:2], node.output[0]) if name not in editor.constants}
    values = all_values(editor.model(), image, sorted(wanted))
    images = len(next(array for array in image.values() if array.ndim))
    return {node_key(node): _macs(node, editor, values) // images for node in products}


def _macs(node: onnx.NodeProto, editor: GraphEditor, values: Mapping[str, Array]) -> int:
    outputs = values[node.output[0]].size
    first, second = (editor.constants.get(name, values.get(name)) for name in node.input[:2])
    if first is None or second is None:
        return 0
    if node.op_type == "Conv":
        return int(outputs * np.prod(second.shape[1:]))
    if node.op_type == "ConvTranspose":
        return int(first.size * np.prod(second.shape[1:]))
    return int(outputs * first.shape[-1])


def sensitivities(
    proto: onnx.ModelProto,
    amax: Mapping[str, float],
    judge: Judge,
    macs: Mapping[str, int],
    in_float: frozenset[str] = frozenset(),
    advance: Callable[[int], None] | None = None,
) -> list[Sensitivity]:
    """Quantize one group of products at a time, and see what that does to the outputs; the noisiest first.

    Args:
        proto: FP32 model.
        amax: Of its tensors, activation units.
        judge: Holds outputs against FP32's.
        macs: Of each product, see `macs_of_products`.
        in_float: Products that stay float whatever is found.
        advance: Called with 1 for each group that is done.

    Raises:
        BuildError: The model cannot be quantized.
        ModelError: It does not run.
    """
    found = []
    for group in product_groups(prepared_for_quantization(proto), in_float):
        others = frozenset(macs).union(in_float).difference(group.nodes)
        quantized = qdq_model_from_amax(proto, amax, Placement(float_nodes=others))
        judgement = judge.judgement(SessionInParts(quantized, name=f"{group.name} in INT8"))
        found.append(
            Sensitivity(
                group,
                sum(macs[name] for name in group.nodes),
                float(judgement.noise.mean()),
                level_db(judgement.noise),
                judgement.changed,
                judgement.lost,
            )
        )
        if advance is not None:
            advance(1)
    return sorted(found, key=lambda item: -item.noise)


def in_order_of_worth(found: Sequence[Sensitivity]) -> list[ProductGroup]:
    """The groups to leave in float, in the order in which that buys most for the work that it costs."""
    return [item.group for item in sorted(found, key=lambda item: -item.noise / max(item.macs, 1)) if item.noise > 0]
