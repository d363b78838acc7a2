"""The task of regression: how far numbers are from labels, or from FP32's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import Scores
from quant.evaluation.recorder import Outputs
from quant.tasks.drawn_recorder import Weights, known
from quant.tasks.scored import Figure, Kept, ScoredRecorder, mean_of_draws
from quant.tasks.vectors.vector_head import VectorHead

_NO_NUMBER = 1e12
FLOOR_SHARE = 10.0  # per cent of the spread of FP32's answers
Floats = NDArray[np.float64]


class RegressionRecorder(ScoredRecorder):
    """Keeps each image's numbers.

    Attributes:
        head: How they are read.
    """

    task, spec, what, decides = "regress", "numbers", "numbers", "error"
    floor = f"a mean difference of {FLOOR_SHARE:g} % of their spread"
    worst, lower_is_better = ("error", False), True

    def __init__(self, head: VectorHead, labels: Floats | None, columns: Sequence[str] | None = None) -> None:
        """Start without answers.

        Args:
            head: How numbers are read.
            labels: Those of all evaluated images, float64 [N] or [N, K]; None where there are none.
            columns: Names of the K numbers.
        """
        super().__init__()
        self.head, self.labelled = head, labels is not None
        self.text = f"output '{head.name}', {head.width} number{'s' * (head.width > 1)} an image"
        self.worst_title = "Error" if self.labelled else "Difference from FP32's"
        self._columns = columns if columns is not None and len(columns) == head.width else None
        self._constant = 0.0 if labels is None else constant_error(labels.reshape(len(labels), -1))

    @property
    def name(self) -> str:
        """Of the score."""
        return "mean absolute error" if self.labelled else "mean difference"

    @property
    def unit(self) -> str:
        """That of the labels, which nobody says."""
        return "label"

    @property
    def figures_shown(self) -> Sequence[Figure]:
        """The error, the root of its mean square, and its share of a constant's."""
        share = "Share of a constant's error %" if self.labelled else "Share of the spread %"
        return (
            Figure(self.name[0].upper() + self.name[1:], "error", 5),
            Figure("Root mean square", "rms", 5),
            Figure("Largest", "largest", 5),
            Figure(share, "share"),
        )

    def take(self, kept: Kept, outputs: Outputs, batch: EvaluationBatch, reference: Outputs) -> None:
        """Keep numbers and errors."""
        mine = self.head.vectors(outputs)
        right = self.head.vectors(reference)
        if self.labelled and batch.labels is not None:
            right = np.asarray(batch.labels, np.float64).reshape(len(mine), -1)
        kept.answers.append(mine)
        kept.values.setdefault("error", []).append(np.abs(_finite(mine - right)).mean(axis=1))

    def _errors(self, build: str, baseline: str) -> Floats:
        right = self.answers(baseline)
        if self.labelled:
            right = np.asarray(self.labels(), np.float64).reshape(len(right), -1)
        return _finite(self.answers(build) - right)

    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """The mean absolute error of draws."""
        return mean_of_draws(self.values(build, "error"), weights)

    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """Errors in the labels' unit, and their share of what a constant has."""
        errors = self._errors(build, baseline)
        whole = self._constant if self.labelled else constant_error(self.answers(baseline))
        error = float(self.values(build, "error").mean())
        return {
            "error": known(error, 6),
            "rms": known(float(np.sqrt(np.square(errors).mean())), 6),
            "largest": known(float(np.abs(errors).max()), 6),
            "share": known(100 * error / whole) if whole else (0.0 if not error else None),
        }

    def told(self, row: dict[str, Any]) -> str:
        """A row's error in words."""
        share = "" if row["share"] is None else f" ({row['share']:.2f} % of {self._whole_text()})"
        return f"a {self.name} of {row['score']:.4g}{share}"

    def _whole_text(self) -> str:
        return f"{self._constant:.4g}, that of a constant" if self.labelled else "the spread of FP32's"

    def is_fit(self, row: dict[str, Any]) -> bool:
        """Are a build's numbers near FP32's?"""
        return row["share"] is not None and row["share"] <= FLOOR_SHARE

    def allowed(self, max_drop: float) -> float:
        """Per cent of the error of a constant: what there is to lose."""
        return max_drop / 100 * self._constant

    def limit_text(self, max_drop: float) -> str:
        """The same for people."""
        return f"{self.allowed(max_drop):.4g} ({max_drop:g} % of {self._constant:.4g}, the error of a constant)"

    def nothing_shown(self, row: dict[str, Any]) -> str:
        """Why FP32's error shows nothing: a constant does as well."""
        if row["score"] < 0.95 * self._constant:
            return ""
        return (
            f"FP32's mean absolute error is {row['score']:.4g}, that of always answering the median "
            f"{self._constant:.4g}: the preprocessing is probably wrong (--preprocess), or the labels are in "
            "another unit"
        )

    def parts(self, baseline: str) -> tuple[str, list[dict[str, Any]]]:
        """The error of each of several numbers."""
        if self.head.width == 1:
            return "", []
        errors = {name: np.abs(self._errors(name, baseline)).mean(axis=0) for name in self._kept}
        names = self._columns or [str(i) for i in range(self.head.width)]
        return "Number", [
            {"name": str(name), "values": {build: known(float(each[i]), 6) for build, each in errors.items()}}
            for i, name in enumerate(names)
        ]


def _finite(errors: Floats) -> Floats:
    """Errors, with that of an answer which is no number so large that nobody overlooks it."""
    return np.nan_to_num(errors, nan=_NO_NUMBER, posinf=_NO_NUMBER, neginf=-_NO_NUMBER)


def constant_error(values: Floats) -> float:
    """The mean absolute error of the best constant, the median, of values [N, K]."""
    known = values[np.isfinite(values).all(axis=1)]
    return float(np.abs(known - np.median(known, axis=0)).mean()) if len(known) else 0.0
