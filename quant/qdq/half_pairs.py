"""A Q/DQ model whose pairs stand among float16: for builders that take every type from the model."""

from __future__ import annotations

import onnx

from quant.onnx_graph.half_precision import light_half_model
from quant.onnx_graph.light_model import whole_model
from quant.onnx_graph.model import opset_of
from quant.onnx_graph.opset import converted

_FIRST_WITH_HALF_PAIRS = 19  # before, QuantizeLinear and DequantizeLinear know float32 alone


def half_qdq_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A Q/DQ model typed as FP16, its scales too; inputs and outputs keep their types, quantized weights their values.

    Raises:
        BuildError: It cannot be converted.
    """
    later = converted(proto, _FIRST_WITH_HALF_PAIRS) if opset_of(proto) < _FIRST_WITH_HALF_PAIRS else proto
    return whole_model(light_half_model(later))
