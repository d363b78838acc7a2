"""The task of embeddings: verification of pairs where it is known what images show, else likeness to FP32's."""

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
from quant.tasks.vectors.verification import (
    Pairs,
    accepted_at,
    best_accuracy,
    measurable_rate,
    pairs_of,
    threshold_at,
    true_rates,
)

FLOOR_COSINE = 0.9
_MOST_IMAGES = 500  # in pairs: 124,750 of them
Floats = NDArray[np.float64]


class EmbeddingRecorder(ScoredRecorder):
    """Keeps each image's embedding where there are identities, and its cosine with FP32's.

    Attributes:
        head: How embeddings are read.
    """

    task, spec, what, decides = "embed", "embeddings", "embeddings", "tar"
    floor = f"a mean cosine of {FLOOR_COSINE:g}"
    worst, worst_title = ("cosine", True), "Cosine with FP32's"

    def __init__(self, head: VectorHead, labels: NDArray[np.int64] | None, evaluated: NDArray[np.int64]) -> None:
        """Start without embeddings.

        Args:
            head: How they are read.
            labels: What each image of the source shows; None where that is not known.
            evaluated: int64, the images of the source that are evaluated.
        """
        super().__init__()
        self.head = head
        self.text = f"output '{head.name}', an embedding of {head.width} numbers"
        self._rate = None if labels is None else _rate_of(labels[evaluated])
        self.labelled = self._rate is not None
        self._pairs: dict[str, Pairs] = {}

    @property
    def name(self) -> str:
        """Of the score."""
        return "cosine" if self._rate is None else f"TAR at a FAR of {100 * self._rate:g} %"

    @property
    def figures_shown(self) -> Sequence[Figure]:
        """Rates where there are identities, and the cosine."""
        rates = (
            Figure(f"{self.name}, %", "tar"),
            Figure("Verification accuracy %", "accuracy"),
            Figure("TAR at FP32's threshold %", "tar_kept"),
            Figure("FAR at FP32's threshold %", "far_kept", 3),
        )
        return (*(rates if self.labelled else ()), Figure("Mean cosine", "cosine", 5), Figure("Lowest", "lowest", 4))

    def take(self, kept: Kept, outputs: Outputs, batch: EvaluationBatch, reference: Outputs) -> None:
        """Keep embeddings and cosines."""
        mine, first = self.head.vectors(outputs), self.head.vectors(reference)
        kept.values.setdefault("cosine", []).append(cosines(mine, first))
        if self.labelled:
            kept.answers.append(mine)

    def forget(self, build: str) -> None:
        """Drop what was worked out of a build."""
        super().forget(build)
        self._pairs.pop(build, None)

    def _pairs_of(self, build: str) -> Pairs:
        if build not in self._pairs:
            labels = self.labels()
            chosen = pair_images(len(labels))
            self._pairs[build] = pairs_of(self.answers(build)[chosen], labels[chosen])
        return self._pairs[build]

    def scores(self, build: str, baseline: str, weights: Weights) -> Scores:
        """TAR of draws, per cent; or the mean cosine."""
        if self._rate is None:
            return mean_of_draws(self.values(build, "cosine"), weights)
        chosen = pair_images(weights.shape[1])
        return 100 * true_rates(self._pairs_of(build), np.ascontiguousarray(weights[:, chosen]), self._rate)

    def figures(self, build: str, baseline: str) -> dict[str, Any]:
        """Rates at the build's own threshold and at FP32's, per cent; cosines."""
        cosine = self.values(build, "cosine")
        figures: dict[str, Any] = {
            "cosine": known(float(cosine.mean()), 6),
            "lowest": known(float(cosine.min()), 6),
        }
        if self._rate is None:
            return figures
        mine = self._pairs_of(build)
        tar, far = accepted_at(mine, threshold_at(self._pairs_of(baseline), self._rate))
        everything = np.ones((1, self.images(build)), np.int64)
        rates = {
            "tar": known(float(self.scores(build, baseline, everything)[0])),
            "accuracy": known(100 * best_accuracy(mine)),
            "tar_kept": known(100 * tar),
            "far_kept": known(100 * far),
        }
        return rates | figures

    def told(self, row: dict[str, Any]) -> str:
        """A row's rates or cosines in words."""
        if self._rate is not None:
            return f"a {self.name} of {row['score']:.2f} % (verification accuracy of {row['accuracy']:.2f} %)"
        low, high = row.get("agreement_ci95", (row["cosine"], row["cosine"]))
        return f"a mean cosine of {row['cosine']:.4f} (95 % CI {low:.4f} to {high:.4f}; lowest {row['lowest']:.4f})"

    def is_fit(self, row: dict[str, Any]) -> bool:
        """Are a build's embeddings like FP32's?"""
        return bool(row["cosine"] >= FLOOR_COSINE)

    def nothing_shown(self, row: dict[str, Any]) -> str:
        """Why FP32's rates show nothing: pairs of the same are accepted no more often than others."""
        if self._rate is None or row["accuracy"] >= 60 or row["score"] > 300 * self._rate:
            return ""
        return (
            f"FP32's verification accuracy is {row['accuracy']:.2f} %, near chance (50 %): the preprocessing is "
            "probably wrong (--preprocess), or the labels are no identities"
        )


def cosines(mine: Floats, first: Floats) -> Floats:
    """The cosine of each row with the other's; 1 for equal rows, 0 where one is nothing or not finite."""
    finite = np.isfinite(mine.sum(axis=1)) & np.isfinite(first.sum(axis=1))
    a, b = np.where(finite[:, None], mine, 0), np.where(finite[:, None], first, 0)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found = np.divide(np.einsum("ij,ij->i", a, b), norms, out=np.zeros(len(norms)), where=norms > 0)
    same = np.linalg.norm(mine - first, axis=1) == 0
    clipped: Floats = np.where(same, 1.0, np.clip(found, -1, 1))
    return clipped


def pair_images(images: int) -> NDArray[np.int64]:
    """Places of the images whose pairs are looked at: all, or as many as that at even distances."""
    return np.unique(np.linspace(0, images - 1, min(images, _MOST_IMAGES)).astype(np.int64))


def _rate_of(labels: NDArray[np.int64]) -> float | None:
    """The FAR that is measured; None where the images show no two of the same, or too few pairs of others."""
    chosen = labels[pair_images(len(labels))]
    _, counts = np.unique(chosen, return_counts=True)
    all_pairs, of_same = len(chosen) * (len(chosen) - 1) // 2, int((counts * (counts - 1) // 2).sum())
    return measurable_rate(all_pairs - of_same) if of_same else None
