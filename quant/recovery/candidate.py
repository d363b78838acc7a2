"""Candidates of a recovery, and what a look at the evaluation images tells of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from calib.algorithms import Algorithm
from calib.histograms.statistics import Statistics
from quant.qdq.placement import Placement
from quant.qdq.writer import qdq_model_from_amax
from quant.search.per_tensor import PER_TENSOR


@dataclass(frozen=True)
class Candidate:
    """A float model whose INT8 form is a build.

    Attributes:
        proto: The float model: the FP32 model itself, or one with factors, biases and weights of its own.
        reference: The FP32 model, or its equalized form: what the steps that change biases and weights aim at.
        statistics: Of its activations; None where only scales are known.
        algorithm: The algorithm of its scales.
        amax: Of its tensors, activation units.
        float_nodes: Products that stay float, by `quant.qdq.operators.node_key`.
        changed: Name of the algorithm of each tensor that has another one.
    """

    proto: onnx.ModelProto
    reference: onnx.ModelProto
    statistics: Statistics | None
    algorithm: Algorithm
    amax: Mapping[str, float]
    float_nodes: frozenset[str] = frozenset()
    changed: Mapping[str, str] = field(default_factory=dict)

    @property
    def algo(self) -> str:
        """What found the scales."""
        return PER_TENSOR if self.changed else self.algorithm.name

    def quantized(self) -> onnx.ModelProto:
        """The INT8 form.

        Raises:
            BuildError: There is none.
        """
        return qdq_model_from_amax(self.proto, self.amax, Placement(float_nodes=self.float_nodes))


@dataclass(frozen=True)
class Outlook:
    """What a look at the evaluation images tells of a candidate.

    Attributes:
        within: Is the loss, as measured, within what is allowed?
        met: Is it so at the level of one of the looks that a recovery may take?
        excess: By what factor the loss is above what is allowed; 1 where it is not.
        text: The loss in words.
        milliseconds: What a batch takes, where the build is an engine; None where its latency is not what it is for.
    """

    within: bool
    met: bool
    excess: float
    text: str
    milliseconds: float | None = None
