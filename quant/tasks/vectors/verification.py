"""Verification: do two images show the same? The rates at which pairs are accepted, for any draw of the images.

TAR is the share of pairs of the same that are accepted, FAR that of pairs of others (P. Grother, M. Ngan, K. Hanaoka,
2019, "Face Recognition Vendor Test, Part 1: Verification", NIST).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.histograms.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
_LEAST = 10  # pairs of others that a rate of false acceptance stands for, so that it can be measured


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of some images, the most similar first.

    Attributes:
        first: int64 [P], the place of an image.
        second: int64 [P], that of the other.
        same: bool [P], whether both show the same.
        similarity: float64 [P], cosine.
    """

    first: Ints
    second: Ints
    same: NDArray[np.bool_]
    similarity: Floats


def pairs_of(vectors: Floats, labels: NDArray[np.int64]) -> Pairs:
    """All pairs of images, from their embeddings [N, D] and what they show [N]."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    first, second = np.triu_indices(len(vectors), k=1)
    similarity = (unit @ unit.T)[first, second]
    order = np.argsort(-similarity, kind="stable")
    first, second = first[order].astype(np.int64), second[order].astype(np.int64)
    return Pairs(first, second, labels[first] == labels[second], similarity[order])


def measurable_rate(others: int) -> float | None:
    """The lowest usual rate of false acceptance that so many pairs of others can show; None where they are too few."""
    return next((rate for rate in _RATES if others * rate >= _LEAST), None)


def accepted_at(pairs: Pairs, threshold: float) -> tuple[float, float]:
    """TAR and FAR at a similarity from which on pairs are accepted, 0..1."""
    taken = pairs.similarity >= threshold
    return float(taken[pairs.same].mean()), float(taken[~pairs.same].mean())


def threshold_at(pairs: Pairs, rate: float) -> float:
    """The lowest similarity from which on no more than this share of the pairs of others is accepted."""
    others = pairs.similarity[~pairs.same]
    most = int(np.floor(rate * len(others) + 1e-9))
    limit = others[most] if most < len(others) else -np.inf
    above = pairs.similarity[pairs.similarity > limit]
    return float(above[-1]) if len(above) else np.inf


def best_accuracy(pairs: Pairs) -> float:
    """The best mean of TAR and 1 - FAR over all thresholds, 0..1."""
    tar = np.cumsum(pairs.same) / max(int(pairs.same.sum()), 1)
    far = np.cumsum(~pairs.same) / max(int((~pairs.same).sum()), 1)
    ends = np.append(pairs.similarity[:-1] > pairs.similarity[1:], True)  # equal similarities are accepted together
    return float((0.5 * (tar + 1 - far))[ends].max(initial=0.5))


def true_rates(pairs: Pairs, weights: Ints, rate: float) -> Floats:
    """TAR at a FAR of draws, 0..1: float64 [D]; NaN where a draw has no pair of the same, or none of others.

    Args:
        pairs: Of all images.
        weights: int64 [D, N], how often each image was drawn; a pair counts as often as its images do together.
        rate: The FAR that is not passed.
    """
    return _true_rates(pairs.first, pairs.second, pairs.same, pairs.similarity, weights, rate)


@compiled
def _true_rates(
    first: Ints, second: Ints, same: NDArray[np.bool_], similarity: Floats, weights: Ints, rate: float
) -> Floats:
    found = np.full(len(weights), np.nan)
    for draw in range(len(weights)):
        row = weights[draw]
        of_same, of_others = 0.0, 0.0
        for p in range(len(first)):
            weight = row[first[p]] * row[second[p]]
            if same[p]:
                of_same += weight
            else:
                of_others += weight
        if of_same == 0 or of_others == 0:
            continue
        most = rate * of_others * (1 + 1e-12)
        true, false, accepted = 0.0, 0.0, 0.0
        for p in range(len(first)):
            weight = row[first[p]] * row[second[p]]
            if same[p]:
                true += weight
            else:
                false += weight
            if false > most:
                break
            if p + 1 == len(first) or similarity[p] > similarity[p + 1]:
                accepted = true
        found[draw] = accepted / of_same
    return found
