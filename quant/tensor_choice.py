"""Choosing amax tensor by tensor: which algorithm serves each tensor best, by the SQNR of the model's outputs.

The error of a tensor alone says little: what counts is what it does to the result. (The amax with the best SQNR of the
tensor itself is what `mse` searches; where few channels are loud it keeps those and drowns the others.) So the rule is:

1. Begin with the best single algorithm, and go through the tensors in the order of the graph.
2. Try the amax of every other algorithm for this tensor alone. Keep the best of those that take noise from the model's
   outputs beyond chance (by more than two standard errors of the mean), on the trial images and again on others.
3. Where none passes, the tensor keeps its amax; where no tensor changes, the result is the best single algorithm.

A hundred trials find some gains beyond two standard errors that are chance, so images that had no part in finding a
change have to confirm it.

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
from quant.placement import quantizable_inputs
from quant.qdq import prepared_for_quantization, qdq_model_from_amax, quantizable_tensors

Inputs = Mapping[str, NDArray[Any]]

_STANDARD_ERRORS = 2.0  # that a change's mean gain must exceed


@dataclass(frozen=True)
class TensorChoice:
    """The outcome.

    Attributes:
        algorithms: Which algorithm each quantized tensor got, by name of the candidate.
        amax: Of all tensors, activation units; of those that no build quantizes, the starting algorithm's.
        start: The candidate that all tensors began with.
        sqnr_db: SQNR of the outputs on the trial images at the end, dB.
        start_sqnr_db: The same at the beginning.
        confirmed_sqnr_db: SQNR on the confirming images at the end, dB.
        confirmed_start_sqnr_db: The same at the beginning.
    """

    algorithms: Mapping[str, str]
    amax: Mapping[str, float]
    start: str
    sqnr_db: float
    start_sqnr_db: float
    confirmed_sqnr_db: float
    confirmed_start_sqnr_db: float

    @property
    def changed(self) -> int:
        """Tensors with another algorithm than `start`."""
        return sum(name != self.start for name in self.algorithms.values())


def choose_by_tensor(
    model: OnnxModel,
    candidates: Mapping[str, Mapping[str, float]],
    start: str,
    trial_batches: Sequence[Inputs],
    confirming_batches: Sequence[Inputs],
    advance: Callable[[int], None] | None = None,
) -> TensorChoice:
    """Apply the rule of this module.

    Args:
        model: FP32 model.
        candidates: amax by tensor, by name of the algorithm.
        start: The candidate to begin with.
        trial_batches: Inputs of the images that changes are tried on; without any, nothing changes.
        confirming_batches: Inputs of the images that confirm a change; without any, nothing changes.
        advance: Called with 1 for each tensor that is done.

    Raises:
        BuildError: The model cannot be quantized.
    """
    simulated = _SimulatedModel(model)
    trial, confirming = _Images(simulated, trial_batches), _Images(simulated, confirming_batches)
    amax, chosen = dict(candidates[start]), dict.fromkeys(simulated.tensors, start)
    noise, confirmed = first = trial.noise(amax), confirming.noise(amax)
    for tensor in simulated.tensors:
        for name, found in _gains(trial, amax, noise, tensor, candidates):
            changed = {**amax, tensor: candidates[name][tensor]}
            again = confirming.noise(changed)
            if _is_beyond_chance(confirmed - again):
                amax, noise, confirmed, chosen[tensor] = changed, found, again, name
                break
        if advance is not None:
            advance(1)
    return TensorChoice(
        chosen,
        amax,
        start,
        trial.sqnr_db(noise),
        trial.sqnr_db(first[0]),
        confirming.sqnr_db(confirmed),
        confirming.sqnr_db(first[1]),
    )


def _gains(
    trial: _Images,
    amax: Mapping[str, float],
    noise: NDArray[np.float64],
    tensor: str,
    candidates: Mapping[str, Mapping[str, float]],
) -> list[tuple[str, NDArray[np.float64]]]:
    """The algorithms whose amax for this tensor takes noise away beyond chance, with the noise left, best first."""
    gains = {}
    tried = {amax[tensor]}
    for name, other in candidates.items():
        if other[tensor] in tried:
            continue
        tried.add(other[tensor])
        found = trial.noise({**amax, tensor: other[tensor]})
        if _is_beyond_chance(noise - found):
            gains[name] = found
    return sorted(gains.items(), key=lambda item: float(item[1].sum()))


def _is_beyond_chance(gain: NDArray[np.float64]) -> bool:
    """Is the mean above 0 by more than its own uncertainty? Fewer than two images tell nothing about that."""
    if len(gain) < 2:
        return False
    return bool(gain.mean() > _STANDARD_ERRORS * gain.std(ddof=1) / np.sqrt(len(gain)))


class _SimulatedModel:
    """The FP32 model, and the INT8 model with its scales as inputs."""

    def __init__(self, model: OnnxModel) -> None:
        self.tensors = quantizable_tensors(model.proto)
        proto, self._scales = _with_scales_as_inputs(model.proto)
        self._session = OnnxRuntimeSession(proto, name=f"{model.path} (int8)")
        self._reference = OnnxRuntimeSession(model.proto, name=str(model.path))

    def expected(self, batch: Inputs) -> NDArray[np.float64]:
        """FP32's outputs, a row an image."""
        return _rows(self._reference.run(batch), batch)

    def found(self, batch: Inputs, amax: Mapping[str, float]) -> NDArray[np.float64]:
        """INT8's outputs, a row an image."""
        scales = {name: np.array(scale_from_amax(amax[tensor])) for name, tensor in self._scales.items()}
        return _rows(self._session.run({**batch, **scales}), batch)


class _Images:
    """Images to run scales on, and the FP32 outputs that INT8 is held against."""

    def __init__(self, model: _SimulatedModel, batches: Sequence[Inputs]) -> None:
        self._model = model
        self._batches = batches
        self._expected = [model.expected(batch) for batch in batches]
        self._signal = sum(float(np.square(array).sum()) for array in self._expected)

    def noise(self, amax: Mapping[str, float]) -> NDArray[np.float64]:
        """Squared error of each image's outputs."""
        pairs = zip(self._batches, self._expected, strict=True)
        parts = [np.square(self._model.found(batch, amax) - expected).sum(axis=1) for batch, expected in pairs]
        return np.concatenate(parts) if parts else np.zeros(0)

    def sqnr_db(self, noise: NDArray[np.float64]) -> float:
        """SQNR of the outputs, dB."""
        total = float(noise.sum())
        return float(10 * np.log10(self._signal / total)) if total and self._signal else float("inf")


def _rows(outputs: Sequence[NDArray[Any]], batch: Inputs) -> NDArray[np.float64]:
    size = len(next(iter(batch.values())))
    return np.concatenate([np.asarray(output, np.float64).reshape(size, -1) for output in outputs], axis=1)


def _with_scales_as_inputs(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The INT8 model with a scalar input for each scale, and by the inputs' names the tensors whose scales they take.

    A pair on data that was only moved has an input of its own, which takes the scale of where the data came from.
    """
    edges = quantizable_inputs(prepared_for_quantization(proto))
    scale_of = {edge.tensor: edge.scale for edge in edges}
    simulated = qdq_model_from_amax(proto, dict.fromkeys(scale_of.values(), 1.0))
    names = {
        node.input[1]: scale_of[node.input[0]]
        for node in simulated.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in scale_of
    }
    kept = [tensor for tensor in simulated.graph.initializer if tensor.name not in names]
    del simulated.graph.initializer[:]
    simulated.graph.initializer.extend(kept)
    simulated.graph.input.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []) for name in names)
    return simulated, names
