"""What an implicit INT8 build does with a calibration cache, as a Q/DQ model: TensorRT's calibrated engine, forecast.

With a calibrator or its cache, TensorRT 8 and 10 run whatever has INT8 kernels and scales in INT8: kernels, sums,
pooling, activations and copies, each tensor between them on the grid of its own scale. Only what fuses into one kernel
keeps its sums in between: a convolution with its bias, its residual sum and its Relu. So there is a pair on every
scaled tensor that something with INT8 kernels reads, and none inside a fused kernel. Which kernels really ran in INT8
was the choice of TensorRT's timer, so this is INT8 at its widest.

Source: NVIDIA TensorRT 8.6 Developer Guide, "Implicit quantization" and "Types of fusions"; checked against the
accuracies of engines on an H200 (docs/migrating.md).
"""

from __future__ import annotations

import onnx

from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.light_model import AnyModel, LightModel
from quant.qdq.operators import FUSED_OPS, POOLING_OPS, only_moves
from quant.qdq.placement import Placement, QuantizableInput, is_quantized_kernel, skip_position
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import model_with_pairs

_ELEMENTWISE = {"Add", "Sub", "Mul", "Max", "Min", "Concat"}


def implicit_model(model: AnyModel, amax: dict[str, float]) -> LightModel:
    """The Q/DQ model that computes as an implicit build with these scales does, where that is in INT8 throughout.

    Args:
        model: FP32 model; not edited.
        amax: Largest magnitude kept of each tensor that the cache holds, in activation units. What has none is float.

    Raises:
        BuildError: Nothing can be quantized, or the model is not FP32.
    """
    editor = prepared_for_quantization(model)
    written = {name for node in editor.nodes for name in node.output}
    inputs = {value.name for value in editor.proto.graph.input}
    placement = Placement(unscaled=frozenset((written | inputs) - amax.keys()))
    inside = inside_kernels(editor, placement)
    edges = [
        QuantizableInput(name, i, position, name)
        for i, node in enumerate(editor.nodes)
        for position, name in _int8_reads(node, editor, placement)
        if name not in inside
    ]
    return model_with_pairs(editor, edges, amax, placement)


def _int8_reads(node: onnx.NodeProto, editor: GraphEditor, placement: Placement) -> list[tuple[int, str]]:
    """Which inputs a node can read in INT8, with their places: activations, not weights; all of them or none."""
    if is_quantized_kernel(node, editor, placement):
        places = range(2)
    elif only_moves(node, editor) or node.op_type in (*FUSED_OPS, *POOLING_OPS):
        places = range(1)
    elif node.op_type in _ELEMENTWISE:
        places = range(len(node.input))
    else:
        places = range(0)
    reads = [
        (place, node.input[place])
        for place in places
        if place < len(node.input) and node.input[place] and node.input[place] not in editor.constants
    ]
    can = all(name not in placement.unscaled and editor.is_float32(name) for _, name in reads)
    return reads if can else []


def inside_kernels(editor: GraphEditor, placement: Placement) -> set[str]:
    """Tensors that exist in no memory, because what writes them and what reads them are one INT8 kernel."""
    producers, consumers = editor.producers(), editor.consumers()
    order = {id(node): i for i, node in enumerate(editor.nodes)}
    sums: set[str] = set()  # results of kernels that a sum or an activation can still fuse into
    summed: set[str] = set()  # of those with their residual sum, that only an activation can
    inside: set[str] = set()
    for node in editor.nodes:
        if is_quantized_kernel(node, editor, placement):
            sums.add(node.output[0])
            continue
        ends = [name for name in node.input if name in sums | summed and consumers[name] == 1]
        if node.op_type in FUSED_OPS:
            inside.update(ends)
        elif node.op_type == "Add":
            ends = [name for name in ends if name in sums]
            if any(name in editor.constants for name in node.input):
                sums.update(node.output if ends else ())
            else:
                skip = skip_position(node, editor, producers, consumers, order, placement)
                ends = [] if skip is None else [name for i, name in enumerate(node.input) if i != skip and name in ends]
                summed.update(node.output if ends else ())
            inside.update(ends)
    return inside
