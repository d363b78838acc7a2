"""The FP16 model: the FP32 model with float16 weights and activations; inputs and outputs stay float32."""

from __future__ import annotations

import contextlib
import io
import warnings

import onnx

from quant.errors import BuildError
from quant.onnx_graph.editor import sorted_nodes


def half_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Type a model as FP16 with ONNX Runtime's converter; inputs and outputs keep their types.

    The converter clamps weights to float16's range. Operators that have no float16 kernel anywhere stay FP32, between
    casts.

    Raises:
        BuildError: The converter fails on this model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # one per weight that loses digits: the accuracy shows whether it matters
            return sorted_nodes(convert_float_to_float16(copy, keep_io_types=True))
    except Exception as error:  # the converter raises many kinds of errors
        raise BuildError(f"FP16: the model cannot be converted: {' '.join(str(error).split())[:200]}") from error
