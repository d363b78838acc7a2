"""Is the model that is quantized the model that was given? Held against each other in FP32, on real images.

Before Q/DQ pairs go in, a model is converted, folded and rewritten. None of that may change what it computes. Where a
step does, the INT8 model would be another network's, and its loss would be put down to INT8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quant.backend import Array
from quant.errors import BuildError, ModelError
from quant.evaluation.fidelity import LOWEST_DB, Noise
from quant.evaluation.outputs import OutputReader
from quant.onnx_graph.light_model import LightModel
from quant.onnx_graph.model import OnnxModel
from quant.onnx_graph.tracing import nodes_within
from quant.onnxruntime.resident import bytes_of_session, make_room
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.preparation import prepared_for_quantization, stages

_RANKINGS = {"ArgMax", "ArgMin", "Hardmax", "NonMaxSuppression", "TopK"}
_FEW = 0.02  # share of the values of a ranking that near ties may change
TOLERANCE_DB = 50.0  # rounding in another order leaves 80 dB and more; a changed operator far less


def check_preparation(
    model: OnnxModel, inputs: Mapping[str, Array], expected: Sequence[Any] | None, reader: OutputReader
) -> None:
    """Raise when what goes before quantization changes what a model computes.

    ONNX Runtime runs the model before and after. A GPU's FP32 is no measure: with TF32, which keeps 10 bits of each
    factor, it agrees with it to 40 to 60 dB. A model that ONNX Runtime cannot run is not checked.

    Args:
        model: FP32 model.
        inputs: A batch of real images.
        expected: What ONNX Runtime gives for them; None to ask it.
        reader: Which outputs are compared.

    Raises:
        BuildError: A step changes the outputs beyond `TOLERANCE_DB`, or its model does not run; names the step.
    """
    if expected is None:
        make_room(bytes_of_session(model.light.values))
        try:
            expected = OnnxRuntimeSession(model.light, name=str(model.path)).run(inputs)
        except (BuildError, ModelError):
            return
    whole = prepared_for_quantization(model.light).light()
    if _agreement_db(model, whole, inputs, expected, reader) >= TOLERANCE_DB:
        return
    for step, changed in stages(model.light):
        found = _agreement_db(model, changed, inputs, expected, reader)
        if found < TOLERANCE_DB:
            told = f"agree to {found:.1f} dB" if found > LOWEST_DB else "do not agree at all"
            raise BuildError(
                f"{step} changes what the model computes: its outputs before and after {told}, expected at least "
                f"{TOLERANCE_DB:g} dB; export the model with opset 17, in inference mode"
            )


def _agreement_db(
    model: OnnxModel,
    prepared: LightModel,
    inputs: Mapping[str, Array],
    expected: Sequence[Any],
    reader: OutputReader,
) -> float:
    """The lowest SQNR of an output against what is expected, dB; where the model ranks, but for few values."""
    make_room(bytes_of_session(prepared.values))
    try:
        found = OnnxRuntimeSession(prepared, name=f"{model.path} (prepared)").run(inputs)
    except (BuildError, ModelError):
        return LOWEST_DB
    few = _FEW if any(node.op_type in _RANKINGS for node in nodes_within(prepared.proto.graph)) else 0
    levels = []
    for place in reader.readable:
        if found[place].shape != expected[place].shape:
            return LOWEST_DB
        layout = reader.layouts[place]
        noise = Noise(layout)
        noise.add(*map(layout.by_image, (_but_for_few(found[place], expected[place], few), expected[place])))
        levels.append(noise.result().sqnr_db)
    return min(levels, default=math.inf)


def _but_for_few(found: Array, expected: Array, share: float) -> Array:
    """What was found, with a share of the values, those that differ most, put right: rounding decides near ties."""
    values, right = found.astype(np.float64).reshape(-1), expected.astype(np.float64).reshape(-1)
    few = int(share * values.size)
    with np.errstate(invalid="ignore"):
        error = np.nan_to_num(np.where(values == right, 0, np.abs(values - right)), nan=np.inf)
    if few:
        worst = np.argpartition(error, -few)[-few:]
        values[worst] = right[worst]
    return values.reshape(found.shape)
