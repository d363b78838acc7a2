"""What a task does during an evaluation: it keeps what it needs of outputs, and says what they are worth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import MetricDrop

Outputs = Sequence[NDArray[Any]]


class Recorder(Protocol):
    """Scores the builds of a run on the images that they are run on.

    Attributes:
        name: Of the score, such as `mAP 50-95`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class

    @property
    def builds(self) -> Collection[str]:
        """The builds of which there are outputs."""

    def observe(self, build: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs = ()) -> None:
        """Take a build's outputs of a batch, and the baseline's; batches come in the same order for all builds."""

    def score(self, build: str) -> float:
        """A build's score over all images; higher is better."""

    def drop(self, baseline: str, build: str, *, seed: int) -> MetricDrop:
        """What a build loses against the baseline on the same images, with its interval."""

    def section(self, baseline: str, *, seed: int, max_drop: float) -> dict[str, Any]:
        """The score's section in a report, the baseline first."""
