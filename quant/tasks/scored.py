"""The part of a report that all tasks share which have neither maps nor boxes: figures, parts, the worst images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import Scores
from quant.evaluation.recorder import Outputs, Recorder
from quant.tasks.drawn_recorder import DrawnRecorder, Weights, known

SHOWN = 50  # images that are listed, the worst first
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One figure of a build.

    Attributes:
        title: What it is, with its unit.
        key: Its key in a build's row.
        digits: How many decimals are shown.
    """

    title: str
    key: str
    digits: int = 2


@dataclass
class Kept:
    """What is kept of a build, image by image.

    Attributes:
        answers: float64 arrays [B, ...], by batch; empty where nothing but the values is needed.
        values: Of each image by name, float64 arrays [B], by batch.
    """

    answers: list[Floats] = field(default_factory=list)
    values: dict[str, list[Floats]] = field(default_factory=dict)


class ScoredRecorder(DrawnRecorder):
    """Keeps a few values of each image, or a vector.

    Attributes:
        text: How the answers are read, for people.
        figures_shown: The figures of a build that the report shows.
        worst: The value that orders the images in the report, the key of `Kept.values`; and whether less is worse.
    """

    part = "scores"
    text: str
    worst: tuple[str, bool] = ("", True)
    worst_title: str = ""

    def __init__(self) -> None:
        """Start without answers."""
        super().__init__()
        self._kept: dict[str, Kept] = {}
        self._names: list[str] = []
        self._labels: list[NDArray[Any]] = []

    @property
    @abstractmethod
    def figures_shown(self) -> Sequence[Figure]:
        """The figures of a build that the report shows, the score first."""

    @abstractmethod
    def take(self, kept: Kept, outputs: Outputs, batch: EvaluationBatch, reference: Outputs) -> None:
        """Keep what is needed of a batch."""

    @property
    def builds(self) -> Collection[str]:
        """The builds of which there are answers."""
        return self._kept.keys()

    def images(self, build: str) -> int:
        """Of how many images."""
        kept = self._kept[build]
        return sum(len(part) for part in (kept.answers or next(iter(kept.values.values()))))

    def observe(self, build: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs = ()) -> None:
        """Keep what is needed of a batch."""
        if build == next(iter(self._kept), build):
            self._names.extend(batch.names)
            if batch.labels is not None:
                self._labels.append(batch.labels)
        self.take(self._kept.setdefault(build, Kept()), outputs, batch, reference or outputs)
        self.forget(build)

    def adopt(self, build: str, other: Recorder) -> None:
        """Take what another recorder kept of a build."""
        if isinstance(other, ScoredRecorder):
            self._kept[build] = other._kept[build]
            self.forget(build)

    def answers(self, build: str) -> Floats:
        """The answers of all images."""
        return np.concatenate(self._kept[build].answers)

    def values(self, build: str, name: str) -> Floats:
        """A value of all images."""
        return np.concatenate(self._kept[build].values[name])

    def labels(self) -> NDArray[Any]:
        """The labels of all images."""
        return np.concatenate(self._labels)

    def parts(self, baseline: str) -> tuple[str, list[dict[str, Any]]]:
        """What the parts of an answer are called, and a row for each; nothing where it has none."""
        return "", []

    def details(self, baseline: str, *, seed: int) -> dict[str, Any]:
        """Figures of the builds, the parts of the answers, and the images on which each build is worst."""
        what, parts = self.parts(baseline)
        return {
            "text": self.text,
            "against": "labels" if self.labelled else "fp32",
            "figures": [{"title": each.title, "key": each.key, "digits": each.digits} for each in self.figures_shown],
            "parts": {"what": what, "rows": parts},
            "worst": {name: self._worst(name) for name in self._kept if name != baseline},
            "worst_title": self.worst_title,
        }

    def _worst(self, build: str) -> list[dict[str, Any]]:
        name, low_is_worse = self.worst
        if not name:
            return []
        values = self.values(build, name)
        order = np.argsort(values if low_is_worse else -values, kind="stable")[:SHOWN]
        return [{"file": self._names[i], "value": known(float(values[i]), 6)} for i in order.tolist()]


def mean_of_draws(values: Floats, weights: Weights) -> Scores:
    """The mean of each draw, float64 [D], of values of the images, given how often each was drawn, int64 [D, N]."""
    means: Scores = weights @ values / weights.sum(axis=1)
    return means
