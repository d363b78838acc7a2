"""The explicit INT8 model: QuantizeLinear / DequantizeLinear pairs placed for TensorRT's explicit quantization.

Placement (NVIDIA TensorRT Developer Guide, "Explicit quantization", Q/DQ placement recommendations):
- on the data and weight inputs of Conv, ConvTranspose, Gemm and MatMul;
- on the skip input of a residual Add whose other input comes from a convolution, so that the two fuse;
- on every other read of such a tensor that only moves data (Slice, Pad, Reshape, MaxPool, ...), with the same scale to
  the end of the chain: one reader of floats makes the node before it write floats, in a slow layout, and takes the
  residual sum there out of INT8;
- nowhere else: never between a convolution and its BatchNormalization or Relu, never on a bias.
BatchNormalization is folded first. A Gemm becomes MatMul + Add, because TensorRT 8.6 refuses a Gemm with dequantized
weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from calib.caches.cache import scale_from_amax
from quant.errors import BuildError
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.light_model import AnyModel, LightModel, whole_model
from quant.qdq.float_products import products_left_float
from quant.qdq.number_form import FOR_TENSORRT, NumberForm, never_negative
from quant.qdq.operators import QUANTIZED_OPS, groups_of, state_kernel_shape
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement, QuantizableInput, is_quantized_kernel, quantizable_inputs
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.weights import quantize_weights


def quantizable_tensors(model: AnyModel, placement: Placement = DEFAULT_PLACEMENT) -> list[str]:
    """Activations that an INT8 model needs scales for, each once, in the order of the graph.

    Raises:
        BuildError: See `prepared_for_quantization`.
    """
    edges = quantizable_inputs(prepared_for_quantization(model), placement)
    return list(dict.fromkeys(name for edge in edges for name in edge.scales))


def qdq_model_from_amax(
    proto: onnx.ModelProto, amax: Mapping[str, float], placement: Placement = DEFAULT_PLACEMENT
) -> onnx.ModelProto:
    """As `light_qdq_model`, as one message."""
    return whole_model(light_qdq_model(proto, amax, placement))


def light_qdq_model(
    model: AnyModel,
    amax: Mapping[str, float],
    placement: Placement = DEFAULT_PLACEMENT,
    form: NumberForm = FOR_TENSORRT,
) -> LightModel:
    """The INT8 model: symmetric, zero point 0, activations per tensor, weights per output channel, float biases.

    Args:
        model: FP32 model; not edited.
        amax: Largest magnitude kept for each activation, in activation units.
        placement: Where pairs go.
        form: Other whole numbers than these.

    Raises:
        BuildError: A scale is missing, nothing can be quantized, or the model is not FP32.
    """
    editor = prepared_for_quantization(model)
    return model_with_pairs(editor, quantizable_inputs(editor, placement), amax, placement, form)


def model_with_pairs(
    editor: GraphEditor,
    edges: Sequence[QuantizableInput],
    amax: Mapping[str, float],
    placement: Placement,
    form: NumberForm = FOR_TENSORRT,
) -> LightModel:
    """The INT8 model with pairs on these edges, and with the weights of the kernels that compute in INT8 quantized.

    Args:
        editor: The model, prepared for quantization; it is edited.
        edges: What gets a pair.
        amax: Largest magnitude kept for each activation, in activation units.
        placement: Which kernels compute in INT8.
        form: The whole numbers.

    Raises:
        BuildError: A scale is missing, or nothing can be quantized.
    """
    if not any(is_quantized_kernel(node, editor, placement) for node in editor.nodes):
        left = products_left_float(editor)
        if left:
            raise BuildError(f"none of the model's products can be quantized: {left.text}; use --precision fp16")
        raise BuildError(f"the model has no {', '.join(QUANTIZED_OPS)} to quantize; use --precision fp16")
    needed = list(dict.fromkeys(name for edge in edges for name in edge.scales))
    missing = [name for name in needed if name not in amax]
    if missing:
        raise BuildError(f"missing scale of {len(missing)} of {len(needed)} tensors, '{missing[0]}' first; recalibrate")
    writer = _PairWriter(editor, form)
    for edge in edges:
        node = editor.nodes[edge.node]
        node.input[edge.position] = writer.activation(edge.tensor, max(amax[name] for name in edge.scales))
    for node in editor.nodes:
        if is_quantized_kernel(node, editor, placement):
            _quantize_constant_inputs(node, editor, writer)
    editor.nodes = writer.placed(editor.nodes)
    return editor.light()


def _quantize_constant_inputs(node: onnx.NodeProto, editor: GraphEditor, writer: _PairWriter) -> None:
    for position in range(2):
        constant = editor.constants.get(node.input[position])
        if constant is None:
            continue
        if position == 1:
            state_kernel_shape(node, constant.shape)
        if node.op_type == "Conv":
            axis = 0
        elif node.op_type == "ConvTranspose":
            axis = 0 if groups_of(node) > 1 else 1  # in groups only where each has one channel in and one out
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            axis = 0 if transposed else 1
        else:  # MatMul: columns of the right operand, rows of the left one; a vector has only one axis
            axis = constant.ndim - 1 if position == 1 else max(constant.ndim - 2, 0)
        if constant.ndim == 0:
            continue
        if node.op_type == "MatMul" and constant.ndim > 2 and constant.size > constant.shape[-1] * constant.shape[-2]:
            axis = -1  # a batch of matrices: no kernel takes scales along one axis of them
        name, floors = node.input[position], _floors(node, position, editor, writer)
        node.input[position] = writer.weights(name, axis, floors)
        if writer.form.integer_bias and node.op_type == "Conv" and len(node.input) > 2 and node.input[2]:
            node.input[2] = writer.bias(node.input[2], node.input[0], node.input[1])


def _floors(
    node: onnx.NodeProto, position: int, editor: GraphEditor, writer: _PairWriter
) -> NDArray[np.float64] | None:
    """Smallest scale of each output channel's weights with which the bias fits into 32 bits; None without a bias.

    ONNX Runtime and others turn a bias into whole numbers of the data's scale times the weights' scale. Those of a dead
    channel, whose weights are tiny and whose bias is not, would not fit.
    """
    bias = editor.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    scale = writer.scales.get(node.input[0])
    if bias is None or scale is None or position != 1 or bias.ndim != 1:
        return None
    return np.abs(bias.astype(np.float64)) / (scale * _LARGEST_BIAS)


_LARGEST_BIAS = 2.0**30  # of 32 bits with a sign, one is left for the sum


class _PairWriter:
    """Makes the Q/DQ nodes, one pair for each tensor, however many nodes read it."""

    def __init__(self, editor: GraphEditor, form: NumberForm) -> None:
        self.editor, self.form = editor, form
        self._not_negative = never_negative(editor) if form.unsigned else set()
        self.after: dict[str, list[onnx.NodeProto]] = {}
        self.first: list[onnx.NodeProto] = []
        self.scales: dict[str, float] = {}  # of dequantized activations
        self._dequantized: dict[tuple[str, int], str] = {}
        self._scale_of_weights: dict[str, NDArray[np.float32]] = {}

    def activation(self, tensor: str, amax: float) -> str:
        """The dequantized tensor of an activation."""
        if (tensor, -1) in self._dequantized:
            return self._dequantized[tensor, -1]
        names = [
            self.editor.fresh_name(f"{tensor}_{end}") for end in ("scale", "zero_point", "quantized", "dequantized")
        ]
        scale, zero_point, quantized, dequantized = names
        step, zero = np.float32(scale_from_amax(amax)), np.array(0, np.int8)
        if tensor in self._not_negative:
            step, zero = np.float32(step * 127 / 255), np.array(0, np.uint8)
        elif self.form.unsigned:
            zero = np.array(128, np.uint8)
        self.editor.constants[scale], self.editor.constants[zero_point] = np.array(step), zero
        self.after[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, scale, zero_point], [quantized], name=quantized),
            helper.make_node("DequantizeLinear", [quantized, scale, zero_point], [dequantized], name=dequantized),
        ]
        self._dequantized[tensor, -1] = dequantized
        self.scales[dequantized] = float(self.editor.constants[scale])
        return dequantized

    def weights(self, name: str, axis: int, floors: NDArray[np.float64] | None = None) -> str:
        """The dequantized tensor of constant weights; `axis` -1 is one scale for all, `floors` the smallest scales."""
        if (name, axis) in self._dequantized and floors is None:
            return self._dequantized[name, axis]
        limit = self.form.weight_limit
        quantized = quantize_weights(self.editor.constants[name], None if axis < 0 else axis, floors, limit)
        values, scale, zero_point, dequantized = (
            self.editor.fresh_name(f"{name}_{end}") for end in ("quantized", "scale", "zero_point", "dequantized")
        )
        self.editor.constants[values] = quantized.values
        self.editor.constants[scale] = quantized.scales
        self.editor.constants[zero_point] = np.zeros(quantized.scales.shape, np.int8)
        along: dict[str, Any] = {} if quantized.axis is None else {"axis": quantized.axis}
        self.first.append(
            helper.make_node("DequantizeLinear", [values, scale, zero_point], [dequantized], name=dequantized, **along)
        )
        self._dequantized[name, axis] = dequantized
        self._scale_of_weights[dequantized] = quantized.scales
        return dequantized

    def bias(self, name: str, data: str, weights: str) -> str:
        """The dequantized tensor of a constant bias, in steps of the data's scale times the weights'.

        A bias stays as it is where the data has no pair, or where it has no value for each of the weights' channels.
        """
        value, step = self.editor.constants.get(name), self.scales.get(data)
        scales = self._scale_of_weights.get(weights)
        if value is None or step is None or scales is None or value.shape != scales.shape:
            return name
        whole, scale, dequantized = (
            self.editor.fresh_name(f"{name}_{end}") for end in ("quantized", "scale", "dequantized")
        )
        steps = scales * np.float32(step)
        self.editor.constants[whole] = np.rint(value / steps.astype(np.float64)).astype(np.int32)
        self.editor.constants[scale] = steps
        self.first.append(helper.make_node("DequantizeLinear", [whole, scale], [dequantized], name=dequantized, axis=0))
        return dequantized

    def placed(self, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """All nodes in topological order: pairs directly after what they quantize, weights first."""
        inputs = {value.name for value in self.editor.proto.graph.input}
        ordered = [*self.first]
        for tensor, pair in self.after.items():
            if tensor in inputs:
                ordered += pair
        for node in nodes:
            ordered.append(node)
            for name in node.output:
                ordered += self.after.get(name, [])
        return ordered
