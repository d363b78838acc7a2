"""Products that stay float in an implicit INT8 build: precisions and types of the network's layers (8.6 and 10)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from quant.errors import BuildError
from quant.tensorrt.bindings import TensorRT


def keep_in_float(
    tensorrt: TensorRT,
    network: Any,  # noqa: ANN401 - the bindings have no types
    config: Any,  # noqa: ANN401
    products: Collection[str],
    *,
    half: bool,
    whole_edges: bool,
) -> None:
    """Constrain products to float, and what they read to be written in float.

    A product in float whose input was written in INT8 would still have lost what INT8 loses there. But TensorRT 8.6 has
    no kernel for some such writers (a convolution in INT8 whose SiLU is to write floats), and then refuses the build.

    Args:
        tensorrt: The release.
        network: The network, parsed from a model whose nodes have names.
        config: Of the build.
        products: Names of the nodes.
        half: FP16 rather than FP32.
        whole_edges: Whether what they read must be written in float; else that is TensorRT's choice.

    Raises:
        BuildError: A product has no layer of its own.
    """
    trt = tensorrt.module
    kind = trt.DataType.HALF if half else trt.DataType.FLOAT
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    by_name = {layer.name: layer for layer in layers}
    missing = sorted(set(products) - by_name.keys())
    if missing:
        raise BuildError(f"TensorRT {tensorrt.release}: '{missing[0]}' has no layer of its own that could stay float")
    writers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    for name in products:
        layer = by_name[name]
        layer.precision = kind
        for i in range(layer.num_inputs if whole_edges else 0):
            _write_in_float(trt, layer.get_input(i), writers, kind)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def _write_in_float(trt: Any, tensor: Any, writers: dict[str, Any], kind: Any) -> None:  # noqa: ANN401 - no types
    """Have a tensor written in a type, through layers that only move data."""
    while tensor is not None and tensor.name in writers:
        layer = writers[tensor.name]
        if layer.type == trt.LayerType.CONSTANT or tensor.dtype not in (trt.DataType.FLOAT, trt.DataType.HALF):
            return
        for i in range(layer.num_outputs):
            if layer.get_output(i).name == tensor.name:
                layer.set_output_type(i, kind)
        if layer.type != trt.LayerType.SHUFFLE:
            return
        tensor = layer.get_input(0)
