"""The task of several labels an image: mean average precision and F1 by label, or agreement with FP32's decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.histograms.compiled import compiled
from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import Scores
from quant.evaluation.recorder import Outputs
from quant.tasks.drawn_recorder import Weights, known
from quant.tasks.scored import Figure, Kept, ScoredRecorder, mean_of_draws
from quant.tasks.vectors.vector_head import VectorHead

FLOOR_F1 = 80.0
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class MultilabelRecorder(ScoredRecorder):
    """Keeps each image's scores of all labels.

    Attributes:
        head: How scores are read.
    """

    task, spec, what, decides = "multilabel", "labels", "labels", "multilabel_map"
    floor = f"an F1 of {FLOOR_F1:g}"
    worst, worst_title = ("agreement", True), "Labels as in FP32, %"

    def __init__(
        self, head: VectorHead, *, labelled: bool, probabilities: bool, names: Sequence[str] | None = None
    ) -> None:
        """Start without scores.

        Args:
            head: How scores are read.
            labelled: Are there labels, 0 and 1 of each class?
            probabilities: Are scores probabilities? Otherwise they are logits.
            names: Of the labels, where known.
        """
        super().__init__()
        self.head, self.labelled = head, labelled
        self._threshold = 0.5 if probabilities else 0.0
        kind = "probabilities" if probabilities else "logits"
        self.text = f"output '{head.name}', {kind} of {head.width} labels, each for itself"
        self._label_names = names if names is not None and len(names) == head.width else None

    @property
    def name(self) -> str:
        """Of the score."""
        return "mAP of labels" if self.labelled else "label agreement"

    @property
    def figures_shown(self) -> Sequence[Figure]:
        """Mean average precision where there are labels, F1, and decisions that agree with FP32's."""
        precision = (Figure("mAP of labels %", "map"),) if self.labelled else ()
        return (*precision, Figure("F1 %", "f1"), Figure("Labels as in FP32 %", "agreement"))

    def take(self, kept: Kept, outputs: Outputs, batch: EvaluationBatch, reference: Outputs) -> None:
        """Keep scores, and how many decisions agree with FP32's."""
        mine, first = self.head.vectors(outputs), self.head.vectors(reference)
        kept.answers.append(mine)
        same = ((mine > self._threshold) == (first > self._threshold)).mean(axis=1)
        kept.values.setdefault("agreement", []).append(100 * same)

    def _truth(self, baseline: str) -> Bools:
        if self.labelled:
            return np.asarray(self.labels() > 0)
        return np.asarray(self.answers(baseline) > self._threshold)

    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """Mean average precision of draws, or the decisions that agree, per cent."""
        if not self.labelled:
            return mean_of_draws(self.values(build, "agreement"), weights)
        return 100 * mean_precisions_of_labels(self.answers(build), self._truth(baseline), weights)

    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """MAP, F1 of all decisions together, agreement; per cent."""
        answers, truth = self.answers(build) > self._threshold, self._truth(baseline)
        figures: dict[str, Any] = {}
        if self.labelled:
            figures["map"] = known(self.score(build))
        figures["f1"] = known(100 * f1(answers.ravel(), truth.ravel()))
        figures["agreement"] = known(float(self.values(build, "agreement").mean()))
        return figures

    def told(self, row: dict[str, Any]) -> str:
        """A row's figures in words."""
        if self.labelled:
            return f"an mAP of {row['score']:.2f} % over the labels (F1 of {row['f1']:.2f} %)"
        low, high = row.get("agreement_ci95", (row["score"], row["score"]))
        return f"{row['score']:.2f} % of the decisions (95 % CI {low:.2f} to {high:.2f}), an F1 of {row['f1']:.2f} %"

    def is_fit(self, row: dict[str, Any]) -> bool:
        """Does a build give the labels that FP32 gives?"""
        return bool(row["f1"] >= FLOOR_F1)

    def problem(self) -> str:
        """Why there is no figure: no image has a label."""
        if not self.labelled or (self.labels() > 0).any():
            return ""
        return "no evaluated image has any of the labels, so nothing can be measured"

    def nothing_shown(self, row: dict[str, Any]) -> str:
        """Why FP32's mAP shows nothing: it is that of a random order."""
        truth = self._truth(row["precision"])
        chance = 100 * float(truth.mean(axis=0)[truth.any(axis=0)].mean())
        if row["score"] > chance + 0.1 * (100 - chance):
            return ""
        return (
            f"FP32's mAP over the labels is {row['score']:.2f} %, near chance ({chance:.2f} %): the preprocessing is "
            "probably wrong (--preprocess), or the labels are not in the model's order (--classes)"
        )

    def parts(self, baseline: str) -> tuple[str, list[dict[str, Any]]]:
        """F1 of each label."""
        truth = self._truth(baseline)
        decisions = {name: self.answers(name) > self._threshold for name in self._kept}
        names = self._label_names or [str(i) for i in range(self.head.width)]
        return "F1 of label, %", [
            {
                "name": str(name),
                "images": int(truth[:, i].sum()),
                "values": {build: known(100 * f1(each[:, i], truth[:, i])) for build, each in decisions.items()},
            }
            for i, name in enumerate(names)
        ]


def f1(answers: Bools, truth: Bools) -> float:
    """Harmonic mean of precision and recall, 0..1; 1 where there is nothing and nothing is answered."""
    both = 2 * int((answers & truth).sum())
    either = int(answers.sum()) + int(truth.sum())
    return both / either if either else 1.0


def mean_precisions_of_labels(scores: Floats, truth: Bools, weights: Weights) -> Floats:
    """The mean over the labels of average precision, for draws, 0..1: float64 [D].

    Average precision is the mean over a label's images of the precision at their score, without interpolation; equal
    scores come together. Labels that no image of a draw has do not count.

    Args:
        scores: float64 [N, C].
        truth: bool [N, C].
        weights: int64 [D, N], how often each image was drawn.
    """
    total, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        ordered = np.ascontiguousarray(weights[:, order])
        found = _average_precisions(scores[order, label], truth[order, label], ordered)
        has = np.isfinite(found)
        total[has] += found[has]
        counted += has
    means: Floats = np.divide(total, counted, out=np.full(len(weights), np.nan), where=counted > 0)
    return means


@compiled
def _average_precisions(scores: Floats, truth: Bools, weights: NDArray[np.int64]) -> Floats:
    found = np.full(len(weights), np.nan)
    for draw in range(len(weights)):
        right, all_, sums, before = 0.0, 0.0, 0.0, 0.0
        for i in range(len(scores)):
            weight = weights[draw, i]
            all_ += weight
            if truth[i]:
                right += weight
            if i + 1 == len(scores) or scores[i] > scores[i + 1]:
                if all_ > 0:
                    sums += (right - before) * right / all_
                before = right
        if right > 0:
            found[draw] = sums / right
    return found
