"""The scales of tensors that exist only in TensorRT's network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quant.tensorrt.bindings import TensorRT


def inner_amax(
    tensorrt: TensorRT,
    network: Any,  # noqa: ANN401 - the bindings have no types
    proto: onnx.ModelProto,
    amax: Mapping[str, float],
) -> dict[str, float]:
    """Amax of tensors that exist only in TensorRT's network, as far as it follows from the model and known amax.

    A Gemm becomes constants, a matrix product, a reshaped bias and a sum; TensorRT runs none of these in INT8 if one
    scale is missing. A constant gets its largest magnitude: its values are known, so none has to be clipped. A layer
    that only moves data (Shuffle) gets the amax of its input. The product is the output minus the bias, so the sum of
    both magnitudes bounds it. All other tensors stay without a scale, and in float.

    Args:
        tensorrt: The release.
        network: The network parsed from `proto`.
        proto: The model.
        amax: amax of the model's own tensors, in activation units.

    Returns:
        Additional entries by TensorRT's tensor name, in activation units; all positive.
    """
    trt = tensorrt.module
    constants = _constant_maxima(proto)
    products = _product_bounds(proto, constants, amax)
    found: dict[str, float] = {}
    for layer in _layers(network):
        if not layer.num_outputs:
            continue
        tensor = layer.get_output(0)
        if tensor.name in amax or tensor.dtype not in (trt.DataType.FLOAT, trt.DataType.HALF):
            continue
        value = None
        if layer.type == trt.LayerType.CONSTANT:
            value = constants.get(layer.name, constants.get(re.sub(r"_\d+$", "", layer.name)))
        elif layer.type == trt.LayerType.SHUFFLE:
            source = layer.get_input(0).name
            value = amax.get(source, found.get(source))
        elif layer.type == trt.LayerType.MATRIX_MULTIPLY:
            value = products.get(layer.name)
        if value is not None:
            found[tensor.name] = value if value > 0 else 1.0  # zeros: any positive scale represents them
    return found


def _layers(network: Any) -> Iterator[Any]:  # noqa: ANN401 - the bindings have no types
    for i in range(network.num_layers):
        yield network.get_layer(i)


def _constant_maxima(proto: onnx.ModelProto) -> dict[str, float]:
    """Largest magnitude of each float constant, by the names that TensorRT may give its layer."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is not None:
            tensors[node.output[0]] = value
            tensors[node.name] = value
    maxima = {}
    for name, tensor in tensors.items():
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            array = numpy_helper.to_array(tensor)
            maxima[name] = float(np.abs(array.astype(np.float32)).max()) if array.size else 0.0
    return maxima


def _product_bounds(
    proto: onnx.ModelProto, constants: Mapping[str, float], amax: Mapping[str, float]
) -> dict[str, float]:
    """Bound of the product inside each Gemm, by node name."""
    bounds = {}
    for node in proto.graph.node:
        if node.op_type != "Gemm" or node.output[0] not in amax:
            continue
        beta = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "beta"), 1.0)
        bias = node.input[2] if len(node.input) > 2 else ""
        if not bias or bias in constants:
            bounds[node.name] = amax[node.output[0]] + abs(beta) * constants.get(bias, 0.0)
    return bounds
