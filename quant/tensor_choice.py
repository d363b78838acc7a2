"""Choosing amax tensor by tensor: which algorithm serves each tensor best, by the SQNR of the model's outputs.

The error of a tensor alone says little: what counts is what it does to the result. (The amax with the best SQNR of the
tensor itself is what `mse` searches; where few channels are loud it keeps those and drowns the others.) So the rule is:
begin with the algorithm whose scales give the outputs the largest SQNR against FP32 on some calibration images; then
go through the tensors in the order of the graph, try the amax of every other algorithm for this tensor alone, and keep
the one that gives the outputs the largest SQNR. No step makes it smaller.

All scales are inputs of one simulated model, so a trial is one run, not a build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.cache import scale_from_amax
from quant.graph import OnnxModel
from quant.onnxruntime_backend import OnnxRuntimeSession
from quant.qdq import qdq_model_from_amax, quantizable_tensors

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorChoice:
    """The outcome.

    Attributes:
        algorithms: Which algorithm each quantized tensor got, by name of the candidate.
        amax: Of all tensors, activation units; of those that no build quantizes, the starting algorithm's.
        start: The candidate that all tensors began with.
        sqnr_db: SQNR of the outputs on the trial images at the end, dB.
        start_sqnr_db: The same at the beginning.
    """

    algorithms: Mapping[str, str]
    amax: Mapping[str, float]
    start: str
    sqnr_db: float
    start_sqnr_db: float


def choose_by_tensor(
    model: OnnxModel,
    candidates: Mapping[str, Mapping[str, float]],
    batches: Sequence[Inputs],
    advance: Callable[[int], None] | None = None,
) -> TensorChoice:
    """Apply the rule of this module.

    Args:
        model: FP32 model.
        candidates: amax by tensor, by name of the algorithm.
        batches: Inputs of the trial images.
        advance: Called with 1 for each tensor that is done.

    Raises:
        BuildError: The model cannot be quantized.
    """
    trial = _Trial(model, batches)
    scores = {name: trial.sqnr_db(amax) for name, amax in candidates.items()}
    start = max(scores, key=lambda name: scores[name])
    amax, best = dict(candidates[start]), scores[start]
    chosen = {}
    for tensor in trial.tensors:
        chosen[tensor] = start
        tried = {amax[tensor]}
        for name, other in candidates.items():
            if other[tensor] in tried:
                continue
            tried.add(other[tensor])
            score = trial.sqnr_db({**amax, tensor: other[tensor]})
            if score > best:
                best, chosen[tensor] = score, name
        amax[tensor] = candidates[chosen[tensor]][tensor]
        if advance is not None:
            advance(1)
    return TensorChoice(chosen, amax, start, best, scores[start])


class _Trial:
    """The INT8 model with its scales as inputs, and the FP32 outputs that it is held against."""

    def __init__(self, model: OnnxModel, batches: Sequence[Inputs]) -> None:
        self.tensors = quantizable_tensors(model.proto)
        proto, self._scales = _with_scales_as_inputs(model.proto, self.tensors)
        self._session = OnnxRuntimeSession(proto, name=f"{model.path} (int8)")
        self._fixed = model.fixed_batch
        self._batches = [dict(batch) for batch in batches]
        reference = OnnxRuntimeSession(model.proto, name=str(model.path))
        self._expected = [_flat(reference.run(batch)) for batch in self._batches]
        self._signal = sum(float(np.square(array).sum()) for array in self._expected)

    def sqnr_db(self, amax: Mapping[str, float]) -> float:
        scales = {name: np.array(scale_from_amax(amax[tensor])) for tensor, name in self._scales.items()}
        noise = 0.0
        for batch, expected in zip(self._batches, self._expected, strict=True):
            found = _flat(self._session.run({**batch, **scales}))
            noise += float(np.square(found - expected).sum())
        return float(10 * np.log10(self._signal / noise)) if noise and self._signal else float("inf")


def _flat(outputs: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(output, np.float64).reshape(-1) for output in outputs])


def _with_scales_as_inputs(proto: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The INT8 model with a scalar input for the scale of each tensor, and the inputs' names."""
    simulated = qdq_model_from_amax(proto, dict.fromkeys(tensors, 1.0))
    names = {
        node.input[0]: node.input[1]
        for node in simulated.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in set(tensors)
    }
    scales = set(names.values())
    kept = [tensor for tensor in simulated.graph.initializer if tensor.name not in scales]
    del simulated.graph.initializer[:]
    simulated.graph.initializer.extend(kept)
    simulated.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []) for name in names.values()
    )
    return simulated, names
