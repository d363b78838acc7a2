"""BatchNormalization as part of the convolution before it, or as a factor and a term of each channel.

In inference it is y = x * factor + term for each channel, with factor = scale / sqrt(variance + epsilon) and
term = shift - mean * factor. In training mode it uses the batch's own statistics, and nothing of this holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from quant.onnx_graph.editor import GraphEditor

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def is_in_training(node: onnx.NodeProto) -> bool:
    """Does a BatchNormalization use the batch's own mean and variance, as it does while a network is trained?"""
    return any(a.name == "training_mode" and a.i for a in node.attribute) or sum(map(bool, node.output)) > 1


def fold_batch_norm(editor: GraphEditor) -> int:
    """Fold each BatchNormalization that follows a convolution alone into its weights; returns how many.

    A bias that is added in between goes along. The convolution then gives the tensor that the BatchNormalization gave,
    under that name.
    """
    producers, consumers = editor.producers(), editor.consumers()
    removed = set()
    for node in editor.nodes:
        affine = _affine(node, editor)
        before = producers.get(node.input[0]) if affine is not None else None
        if affine is None or before is None or consumers[before.output[0]] != 1:
            continue
        conv, added = _with_bias(before, editor, producers, consumers)
        if conv is None:
            continue
        factor, term = affine
        weight = editor.constants[conv.input[1]]
        bias = editor.constants[conv.input[2]] if len(conv.input) > 2 and conv.input[2] else np.zeros(())
        folded_weight = editor.fresh_name(f"{conv.input[1]}_folded")
        editor.constants[folded_weight] = _scaled(weight, factor, conv).astype(weight.dtype)
        folded_bias = editor.fresh_name(f"{conv.input[1]}_folded_bias")
        editor.constants[folded_bias] = ((bias + added) * factor + term).astype(weight.dtype)
        data = conv.input[0]
        del conv.input[:]
        conv.input.extend([data, folded_weight, folded_bias])
        conv.name = conv.name or conv.output[0]  # what it is called does not change with what it writes
        conv.output[0] = node.output[0]
        producers[node.output[0]] = conv
        removed |= {id(node)} | ({id(before)} if before is not conv else set())
    editor.nodes = [node for node in editor.nodes if id(node) not in removed]
    return len(removed)


def split_batch_norm(editor: GraphEditor) -> None:
    """Write each BatchNormalization that is left as a product and a sum with constants of each channel.

    Its variance may be smaller than what half precision holds, though the factor made of it is not.
    """
    nodes: list[onnx.NodeProto] = []
    for node in editor.nodes:
        affine = _affine(node, editor)
        rank = editor.rank(node.input[0]) if affine is not None else None
        if affine is None or rank is None:
            nodes.append(node)
            continue
        kind = editor.constants[node.input[1]].dtype
        result = node.output[0]
        names = [editor.fresh_name(f"{result}_{what}") for what in ("factor", "term", "scaled")]
        for name, values in zip(names, affine, strict=False):
            editor.constants[name] = values.reshape(-1, *[1] * (rank - 2)).astype(kind)
        nodes.append(helper.make_node("Mul", [node.input[0], names[0]], [names[2]], name=names[2]))
        nodes.append(helper.make_node("Add", [names[2], names[1]], [result], name=node.name or result))
    editor.nodes = nodes


def _affine(node: onnx.NodeProto, editor: GraphEditor) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Factor and term of each channel; None for other nodes, and where they are not known."""
    if node.op_type != "BatchNormalization" or is_in_training(node):
        return None
    if not all(name in editor.constants for name in node.input[1:5]):
        return None
    scale, shift, mean, variance = (editor.constants[name].astype(np.float64) for name in node.input[1:5])
    if scale.ndim != 1:  # spatial = 0, until opset 8: of each value of an image
        return None
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    return factor, shift - mean * factor


def _with_bias(
    node: onnx.NodeProto, editor: GraphEditor, producers: dict[str, onnx.NodeProto], consumers: Mapping[str, int]
) -> tuple[onnx.NodeProto | None, NDArray[np.float64]]:
    """The convolution that gives a tensor, and what is added to its channels behind it; None where there is none."""
    added: NDArray[np.float64] = np.zeros(())
    conv: onnx.NodeProto | None = node
    if node.op_type == "Add":
        constants = [name for name in node.input if name in editor.constants]
        others = [name for name in node.input if name not in editor.constants]
        conv = producers.get(others[0]) if len(constants) == len(others) == 1 else None
        if conv is None or conv.op_type not in _CONVOLUTIONS or consumers[conv.output[0]] != 1:
            return None, added
        value = editor.constants[constants[0]].astype(np.float64)
        rank = editor.constants[conv.input[1]].ndim if conv.input[1] in editor.constants else 0
        shape = (1,) * (rank - value.ndim) + value.shape
        if len(shape) != rank or any(size != 1 for i, size in enumerate(shape) if i != 1):
            return None, added
        added = value.reshape(-1) if value.size > 1 else value.reshape(())
    if conv is None or conv.op_type not in _CONVOLUTIONS or conv.domain not in ("", "ai.onnx"):
        return None, added
    names = [conv.input[1], *(conv.input[2:3] if len(conv.input) > 2 else [])]
    return (conv if all(name in editor.constants for name in names if name) else None), added


def _scaled(weight: NDArray[Any], factor: NDArray[np.float64], conv: onnx.NodeProto) -> NDArray[np.float64]:
    """Convolution weights times a factor for each output channel."""
    if conv.op_type == "Conv":
        return np.asarray(weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))
    # ConvTranspose: [in channels, out channels / groups, ...]; the input channels come group by group.
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    scaled = grouped * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return np.asarray(scaled.reshape(weight.shape))
