"""Scales by what they do to the outputs: candidates for all tensors, and another algorithm for some.

The algorithms work on the statistics that are there. One more candidate needs a pass over a few images: the average
over batches of each batch's largest magnitude, which a single outlier moves little (the moving-average observer of
B. Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 3.1, with equal weights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.histograms.statistics import Statistics
from calib.names import ALGORITHMS
from quant.onnx_graph.light_model import light_model
from quant.onnx_graph.model import OnnxModel, fixed_batch
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.recovery.inner_values import Inputs, single_images, with_tensors
from quant.recovery.judging import Judge
from quant.search.per_tensor import ChangedScales, changed_by_tensor
from quant.search.simulated_model import SimulatedModel

Array = NDArray[Any]

AVERAGE = "average"
_BATCH = 8  # images whose largest magnitude enters the average
_TENSORS = 12  # that may change on their own


def candidates_of(
    proto: onnx.ModelProto, statistics: Statistics, now: str, amax: Mapping[str, float], batches: Sequence[Inputs]
) -> dict[str, dict[str, float]]:
    """Scales by name of the algorithm, the one in use first.

    Args:
        proto: FP32 model.
        statistics: Of its activations.
        now: The algorithm in use.
        amax: What it gave, of all tensors.
        batches: Inputs of the images for the average.

    Raises:
        ModelError: The model cannot be run.
    """
    found = {now: dict(amax)}
    for name in ALGORITHMS:
        if name not in found:
            found[name] = amax_from_statistics(statistics, algorithm_from_name(name))
    if AVERAGE not in found:
        found[AVERAGE] = {**amax, **_averages(proto, sorted(amax), batches)}
    return found


def changed_scales(
    proto: onnx.ModelProto,
    candidates: Mapping[str, Mapping[str, float]],
    start: str,
    judges: tuple[Judge, Judge],
    float_nodes: frozenset[str] = frozenset(),
) -> ChangedScales:
    """Other algorithms for single tensors where that helps the outputs.

    Tensors whose amax the algorithms disagree on most may change, by the rule of `quant.search.per_tensor`: a change
    reduces the noise beyond chance on some images, and again on others.

    Args:
        proto: FP32 model.
        candidates: amax by tensor, by name of the algorithm.
        start: The candidate to begin with.
        judges: Judge by images that changes are tried on, and by others that confirm them.
        float_nodes: Products that stay float.

    Raises:
        BuildError, ModelError: The model has no INT8 form that runs.
    """
    simulated = SimulatedModel(OnnxModel(Path("model"), light_model(proto), ""), float_nodes)
    trial, confirming = (_Scales(simulated, judge) for judge in judges)
    found = changed_by_tensor(_disagreed(simulated.tensors, candidates), candidates, start, trial, confirming)
    return ChangedScales({tensor: name for tensor, name in found.algorithms.items() if name != start}, found.amax)


@dataclass(frozen=True)
class _Scales:
    """A simulated model and the images that judge it."""

    simulated: SimulatedModel
    judge: Judge

    def noise(self, amax: Mapping[str, float]) -> NDArray[np.float64]:
        """Relative noise of each image with these scales."""
        return self.judge.noise(_Simulated(self.simulated, amax))


@dataclass(frozen=True)
class _Simulated:
    """A simulated model with scales."""

    model: SimulatedModel
    amax: Mapping[str, float]

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Outputs for a batch."""
        return self.model.outputs(inputs, self.amax)


def _disagreed(tensors: Sequence[str], candidates: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Tensors that the candidates disagree on, those with the largest ratio of amax, in the order of the graph."""

    def ratio(tensor: str) -> float:
        values = [amax[tensor] for amax in candidates.values()]
        return max(values) / min(values)

    most = set(sorted((tensor for tensor in tensors if ratio(tensor) > 1), key=ratio, reverse=True)[:_TENSORS])
    return [tensor for tensor in tensors if tensor in most]


def _averages(proto: onnx.ModelProto, tensors: Sequence[str], batches: Sequence[Inputs]) -> dict[str, float]:
    """The average over batches of each batch's largest magnitude; tensors that are zero are left out."""
    session: OnnxRuntimeSession | None = None
    largest: dict[str, list[float]] = {tensor: [] for tensor in tensors}
    for image in single_images(batches, fixed_batch(proto)):
        session = session or OnnxRuntimeSession(proto, name="model", also=[n for n in tensors if n not in image])
        for name, values in with_tensors(session, image, tensors).items():
            if name in largest:
                largest[name].append(float(np.abs(np.where(np.isfinite(values), values, 0)).max(initial=0)))
    found = {}
    for name, maxima in largest.items():
        groups = [max(maxima[start : start + _BATCH]) for start in range(0, len(maxima), _BATCH)]
        average = sum(groups) / max(len(groups), 1)
        if average > 0:
            found[name] = average
    return found
