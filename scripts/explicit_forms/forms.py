"""One small model for each form of Q/DQ that tools write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CHANNELS = 8
_OPSET = 17
_Constants = Mapping[str, Any]
_node = helper.make_node


@dataclass(frozen=True)
class Form:
    """A form of explicit model.

    Attributes:
        text: What is special about it, for people.
        proto: A model that has it.
        on_8: What TensorRT 8.6.0 did with such a model on an H200; empty where that was not tried.
        ours: Whether the toolkit writes models of this form.
    """

    text: str
    proto: onnx.ModelProto
    on_8: str = ""
    ours: bool = False


def _model(
    nodes: list[onnx.NodeProto],
    constants: _Constants,
    shape: tuple[int, ...] = (_CHANNELS, 8, 8),
    opset: int = _OPSET,
    result: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "form",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", result, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _pair(source: str, result: str, scale: str = "scale", zero: str = "zero") -> list[onnx.NodeProto]:
    return [
        _node("QuantizeLinear", [source, scale, zero], [f"{result}_q"]),
        _node("DequantizeLinear", [f"{result}_q", scale, zero], [result]),
    ]


def _data(dtype: type[np.generic] = np.float32) -> dict[str, Any]:
    return {"scale": dtype(0.05), "zero": np.int8(0)}


def _weights(shape: tuple[int, ...], axis: int | None, dtype: type[np.generic] = np.float32) -> dict[str, Any]:
    values = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    if axis is None:
        return {"w": values, "w_scale": dtype(0.01), "w_zero": np.int8(0)}
    count = shape[axis]
    return {"w": values, "w_scale": np.full(count, 0.01, dtype), "w_zero": np.zeros(count, np.int8)}


def _product(
    kind: str,
    shape: tuple[int, ...],
    axis: int | None,
    *,
    changed: _Constants | None = None,
    bias: list[onnx.NodeProto] | None = None,
    opset: int = _OPSET,
    data: tuple[int, ...] = (_CHANNELS, 8, 8),
    **attributes: Any,
) -> onnx.ModelProto:
    """One product with pairs on its data and on its weights; `bias` leads to a tensor `b`."""
    weights = _node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_d"], axis=axis or 0)
    inputs = ["x_d", "w_d", *(["b"] if bias is not None else [])]
    nodes = [*_pair("x", "x_d"), weights, *(bias or []), _node(kind, inputs, ["y"], name="product", **attributes)]
    return _model(nodes, {**_data(), **_weights(shape, axis), **(changed or {})}, data, opset)


def _conv(opset: int = _OPSET, axis: int | None = 0, **changed: Any) -> onnx.ModelProto:
    return _product("Conv", (_CHANNELS, _CHANNELS, 3, 3), axis, changed=changed, opset=opset, pads=[1] * 4)


def _biased() -> onnx.ModelProto:
    bias = _node("DequantizeLinear", ["b_w", "b_scale"], ["b"], axis=0)
    changed = {"b_w": np.arange(_CHANNELS, dtype=np.int32), "b_scale": np.full(_CHANNELS, 1e-3, np.float32)}
    return _product("Conv", (_CHANNELS, _CHANNELS, 3, 3), 0, changed=changed, bias=[bias], pads=[1] * 4)


def _half() -> onnx.ModelProto:
    """Float16 around the pairs, and in their scales, as opset 19 has it."""
    nodes = [
        _node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        *_pair("h", "x_d"),
        _node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_d"], axis=0),
        _node("Conv", ["x_d", "w_d"], ["c"], pads=[1] * 4, name="product"),
        _node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    shape = (_CHANNELS, _CHANNELS, 3, 3)
    return _model(nodes, {**_data(np.float16), **_weights(shape, 0, np.float16)}, opset=19)


def _operator() -> onnx.ModelProto:
    inputs = ["x_q", "scale", "zero", "w", "w_scale", "w_zero", "scale", "zero"]
    nodes = [
        _node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"]),
        _node("QLinearConv", inputs, ["y_q"], pads=[1] * 4, name="product"),
        _node("DequantizeLinear", ["y_q", "scale", "zero"], ["y"]),
    ]
    return _model(nodes, {**_data(), **_weights((_CHANNELS, _CHANNELS, 3, 3), 0)})


def _dynamic() -> onnx.ModelProto:
    nodes = [
        _node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="range"),
        _node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return _model(nodes, {})


def _vectors(kind: str, **more: Any) -> onnx.ModelProto:
    return _product(kind, (16, _CHANNELS), 1, data=(16,), **more)


def _transposed(groups: int, axis: int, outputs: int) -> onnx.ModelProto:
    shape = (_CHANNELS, outputs, 2, 2)
    return _product("ConvTranspose", shape, axis, strides=[2, 2], group=groups)


def forms() -> list[Form]:
    """All forms, in the order of the page."""
    channels = np.full(_CHANNELS, 3, np.int8)
    zeros = {"b": np.zeros(_CHANNELS, np.float32)}
    return [
        Form("Conv, weights per output channel, float bias, zero points 0", _conv(), "builds", ours=True),
        Form("weights with one scale", _conv(axis=None)),
        Form("weights per input channel", _conv(axis=1)),
        Form("bias in INT32 behind a DequantizeLinear", _biased(), "refused: only activation types allowed as input"),
        Form("zero point of the data other than 0", _conv(zero=np.int8(3))),
        Form("data in UINT8 around 128", _conv(zero=np.uint8(128))),
        Form("zero points of the weights other than 0", _conv(w_zero=channels)),
        Form("scale of 0", _conv(scale=np.float32(0))),
        Form(
            "Gemm with dequantized weights",
            _vectors("Gemm", bias=[], changed=zeros),
            "refused: GEMM must have 2D inputs",
        ),
        Form("MatMul with dequantized weights", _vectors("MatMul"), "builds", ours=True),
        Form("ConvTranspose, weights per output channel", _transposed(1, 1, 4), ours=True),
        Form("depthwise ConvTranspose, weights per channel", _transposed(_CHANNELS, 0, 1), ours=True),
        Form("ConvTranspose in groups, weights per channel of the group", _transposed(2, 1, 2)),
        Form("opset 13", _conv(13), ours=True),
        Form("opset 17", _conv(17), "builds", ours=True),
        Form("opset 19", _conv(19), "reads opsets up to 17", ours=True),
        Form("opset 21", _conv(21), "reads opsets up to 17", ours=True),
        Form("opset 23", _conv(23), "reads opsets up to 17", ours=True),
        Form("FP16 around the pairs and in their scales", _half()),
        Form("QLinearConv in place of pairs", _operator()),
        Form("DynamicQuantizeLinear", _dynamic()),
    ]
