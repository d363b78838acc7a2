"""What the recorders of all tasks share: the drop of a score with its interval, and the section in a report.

A task keeps something of each image and says what the score of any draw of the images is. The interval of a drop is
then a paired bootstrap over images, whatever the score.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import SET_RESAMPLES, MetricDrop, Scores, drop_from_draws, scores_of_draws
from quant.evaluation.recorder import Outputs, Recorder
from quant.evaluation.sample_size import images_from_width, tells

Weights = NDArray[np.int64]


class DrawnRecorder(ABC):
    """Keeps what a task needs of each image, and scores draws of the images.

    Attributes:
        task: The task, as `--task` calls it.
        part: Key of the task's own part in the section, and in report.json.
        spec: What the score is of, in a word or two.
        what: What agrees with FP32 where there are no labels: detections, pixels.
        decides: What `decided_by` in report.json says where labels judge.
        floor: Below which agreement a build is unfit, in words.
        lower_is_better: Is the score an error?
        labelled: Are builds held against labels? Otherwise what FP32 answers counts as right.
    """

    task: ClassVar[str]
    part: ClassVar[str]
    spec: ClassVar[str]
    what: ClassVar[str]
    decides: ClassVar[str]
    floor: ClassVar[str]
    lower_is_better: bool = False
    labelled: bool = False

    def __init__(self) -> None:
        """Start without draws."""
        self._drawn: dict[tuple[str, int], Scores] = {}

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the score."""

    @property
    @abstractmethod
    def builds(self) -> Collection[str]:
        """The builds of which there are outputs, the baseline first."""

    @abstractmethod
    def observe(self, build: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs = ()) -> None:
        """Keep what is needed of a batch."""

    @abstractmethod
    def images(self, build: str) -> int:
        """Of how many images something was kept."""

    @abstractmethod
    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """The scores float64 [D] of draws, given how often each image was drawn: int64 [D, N]."""

    @abstractmethod
    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """A build's further figures, as its row in the section holds them."""

    @abstractmethod
    def told(self, row: dict[str, Any]) -> str:
        """What a row's figures are, in words that follow `reaches` or `agree to`."""

    @abstractmethod
    def is_fit(self, row: dict[str, Any]) -> bool:
        """Does a build agree with FP32 as much as `floor` asks?"""

    @abstractmethod
    def details(self, baseline: str, *, seed: int) -> dict[str, Any]:
        """The task's own part of the section."""

    @abstractmethod
    def adopt(self, build: str, other: Recorder) -> None:
        """Take what another recorder of the task kept of a build, in place of what is here."""

    def problem(self) -> str:
        """Why there is no figure at all; empty where there is one."""
        return ""

    def nothing_shown(self, row: dict[str, Any]) -> str:
        """Why the baseline's row shows that nothing can be told, such as chance; empty where it does not."""
        return ""

    def allowed(self, max_drop: float) -> float:
        """The largest accepted drop in the score's unit: points, unless a task says otherwise."""
        return max_drop

    def limit_text(self, max_drop: float) -> str:
        """The same for people."""
        return f"{max_drop:g}"

    @property
    def unit(self) -> str:
        """Of the score: points of a percentage, or what the labels are in."""
        return "points"

    def score(self, build: str) -> float:
        """A build's score over all images; without labels, against the first of the builds."""
        baseline = next(iter(self.builds))
        return float(self.scores(build, baseline, np.ones((1, self.images(build)), np.int64))[0])

    def drop(self, baseline: str, build: str, *, seed: int) -> MetricDrop:
        """What a build loses against the baseline on the same images, with its interval."""
        mine, first = self.drawn(build, baseline, seed), self.drawn(baseline, baseline, seed)
        return drop_from_draws(first, mine, lower_is_better=self.lower_is_better)

    def drawn(self, build: str, baseline: str, seed: int) -> Scores:
        """A build's score of all images, then of each draw."""
        if (build, seed) not in self._drawn:
            images = self.images(baseline)
            self._drawn[build, seed] = scores_of_draws(
                lambda weights: self.scores(build, baseline, weights), images, seed=seed
            )
        return self._drawn[build, seed]

    def forget(self, build: str) -> None:
        """Drop what was drawn of a build, of which more comes: a sweep adds builds after the first were scored."""
        for key in [key for key in self._drawn if key[0] == build]:
            del self._drawn[key]

    def section(self, baseline: str, *, seed: int, max_drop: float) -> dict[str, Any]:
        """The score's section in a report's JSON, the baseline first.

        Args:
            baseline: Name of the FP32 build.
            seed: Seed of the bootstrap.
            max_drop: Largest accepted drop, as the user gave it; not for agreement, which is no accuracy.
        """
        images, allowed = self.images(baseline), self.allowed(max_drop)
        first = {"precision": baseline, "score": self.score(baseline), **self.figures(baseline, baseline)}
        rows = [first]
        for name in self.builds:
            if name == baseline:
                continue
            found = self.drop(baseline, name, seed=seed)
            row = {"precision": name, "score": self.score(name), "drop": found.drop}
            row["drop_ci95"] = [found.low, found.high]
            row |= self.figures(name, baseline)
            row |= self._judged(row, found, images, allowed)
            rows.append(row)
        for row in rows:
            row["told"] = self.told(row)
        return {
            "name": self.name,
            "spec": self.spec,
            "task": self.task,
            "part": self.part,
            "what": self.what,
            "unit": self.unit,
            "lower_is_better": self.lower_is_better,
            "against": "labels" if self.labelled else "fp32",
            "decides": self.decides if self.labelled else None,
            "floor": None if self.labelled else self.floor,
            "allowed_drop": allowed if self.labelled else None,
            "limit": self.limit_text(max_drop) if self.labelled else None,
            "nothing_shown": self.nothing_shown(first) if self.labelled else "",
            "images": images,
            "resamples": SET_RESAMPLES,
            "seed": seed,
            "builds": rows,
            self.part: self.details(baseline, seed=seed),
        }

    def _judged(self, row: dict[str, Any], drop: MetricDrop, images: int, allowed: float) -> dict[str, Any]:
        if not self.labelled:
            perfect = 0.0 if self.lower_is_better else row["score"] + drop.drop  # FP32 agrees with itself
            ends = sorted(abs(perfect - end) for end in (drop.low, drop.high))
            told = {"agreement_ci95": ends, "fit": self.is_fit(row)}
            return {"enough_images": None, "images_needed": None, **told}
        enough = tells(drop, allowed)
        needed = None if enough else images_from_width(drop.high - drop.low, drop.drop - allowed, images)
        return {"enough_images": enough, "images_needed": needed}


def known(value: float, digits: int = 4) -> float | None:
    """A figure for JSON: rounded, or None where it does not exist."""
    return round(value, digits) if math.isfinite(value) else None
