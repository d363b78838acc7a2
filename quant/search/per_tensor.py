"""Chooses amax tensor by tensor: the algorithm that is best for each tensor, by the SQNR of the model's outputs.

The error of a tensor alone says little: what counts is its effect on the result. (`mse` searches for the amax with the
best SQNR of the tensor itself; if a few channels have large values, it keeps those and loses the others in noise.) So
the rule is:

1. Begin with the best single algorithm, and go through the tensors in the order of the graph.
2. Try the amax of every other algorithm for this tensor alone. Keep the best of those that reduce the noise of the
   model's outputs by more than chance (by more than two standard errors of the mean), on the trial images and again on
   others.
3. If none passes, the tensor keeps its amax; if no tensor changes, the result is the best single algorithm.

In a hundred trials, some gains exceed two standard errors by chance, so images that had no part in finding a change
have to confirm it.

All scales are inputs of one simulated model, so a trial is one run, not a build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quant.onnx_graph.model import OnnxModel
from quant.search.simulated_model import Inputs, SimulatedModel, TrialImages

PER_TENSOR = "per-tensor"  # in place of an algorithm's name, where tensors have several
_STANDARD_ERRORS = 2.0  # a change's mean gain must exceed this many


@dataclass(frozen=True)
class TensorChoice:
    """The outcome.

    Attributes:
        algorithms: Name of the algorithm that each quantized tensor got.
        amax: amax of all tensors, in activation units; tensors that no build quantizes have the starting algorithm's.
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
        """Number of tensors with another algorithm than `start`."""
        return sum(name != self.start for name in self.algorithms.values())


class TellsNoise(Protocol):
    """Tells the noise that scales leave in a model's outputs, image by image."""

    def noise(self, amax: Mapping[str, float]) -> NDArray[np.float64]: ...  # noqa: D102 - see the class


@dataclass(frozen=True)
class ChangedScales:
    """Scales after changes of single tensors.

    Attributes:
        algorithms: Name of the algorithm that each tensor got, of those that could change.
        amax: amax of all tensors, in activation units.
    """

    algorithms: Mapping[str, str]
    amax: Mapping[str, float]


def choose_by_tensor(
    model: OnnxModel,
    candidates: Mapping[str, Mapping[str, float]],
    start: str,
    trial_batches: Sequence[Inputs],
    confirming_batches: Sequence[Inputs],
    advance: Callable[[int], None] | None = None,
    float_nodes: frozenset[str] = frozenset(),
) -> TensorChoice:
    """Apply the rule of this module.

    Args:
        model: FP32 model.
        candidates: amax by tensor, by name of the algorithm.
        start: The candidate to begin with.
        trial_batches: Inputs of the images that changes are tried on; without any, nothing changes.
        confirming_batches: Inputs of the images that confirm a change; without any, nothing changes.
        advance: Called with 1 for each tensor that is done.
        float_nodes: Products that stay float.

    Raises:
        BuildError: The model cannot be quantized.
    """
    simulated = SimulatedModel(model, float_nodes)
    trial, confirming = TrialImages(simulated, trial_batches), TrialImages(simulated, confirming_batches)
    found = changed_by_tensor(simulated.tensors, candidates, start, trial, confirming, advance)
    first, last = candidates[start], found.amax
    return TensorChoice(
        found.algorithms,
        found.amax,
        start,
        trial.sqnr_db(trial.noise(last)),
        trial.sqnr_db(trial.noise(first)),
        confirming.sqnr_db(confirming.noise(last)),
        confirming.sqnr_db(confirming.noise(first)),
    )


def changed_by_tensor(
    tensors: Sequence[str],
    candidates: Mapping[str, Mapping[str, float]],
    start: str,
    trial: TellsNoise,
    confirming: TellsNoise,
    advance: Callable[[int], None] | None = None,
) -> ChangedScales:
    """The rule itself, for some tensors, whatever noise is.

    Args:
        tensors: Those that may change, in the order in which they are tried.
        candidates: amax by tensor, by name of the algorithm.
        start: The candidate to begin with.
        trial: Tells the noise on the images that changes are tried on.
        confirming: The same on those that confirm a change.
        advance: Called with 1 for each tensor that is done.
    """
    amax, chosen = dict(candidates[start]), dict.fromkeys(tensors, start)
    noise, confirmed = trial.noise(amax), confirming.noise(amax)
    for tensor in tensors:
        for name, found in _gains(trial, amax, noise, tensor, candidates):
            changed = {**amax, tensor: candidates[name][tensor]}
            again = confirming.noise(changed)
            if _is_beyond_chance(confirmed - again):
                amax, noise, confirmed, chosen[tensor] = changed, found, again, name
                break
        if advance is not None:
            advance(1)
    return ChangedScales(chosen, amax)


def _gains(
    trial: TellsNoise,
    amax: Mapping[str, float],
    noise: NDArray[np.float64],
    tensor: str,
    candidates: Mapping[str, Mapping[str, float]],
) -> list[tuple[str, NDArray[np.float64]]]:
    """The algorithms whose amax for this tensor reduces noise by more than chance, with the noise left, best first."""
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
    """Whether the mean exceeds 0 by more than its own uncertainty, which needs at least two images."""
    if len(gain) < 2:
        return False
    return bool(gain.mean() > _STANDARD_ERRORS * gain.std(ddof=1) / np.sqrt(len(gain)))
