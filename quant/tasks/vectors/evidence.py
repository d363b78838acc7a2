"""Is a vector an image the scores of classes, or something else? An argmax says something of class scores alone."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_EMBEDDING = re.compile(r"emb|feat|descriptor|repr", re.IGNORECASE)
_NUMBERS = re.compile(r"coord|key_?point|kpt|landmark|box|position|offset|age\b|angle|depth|regress", re.IGNORECASE)
_CLASSES = re.compile(r"logit|prob|class|score|softmax|cls|label", re.IGNORECASE)
_LEAST_WIDTH = 8  # numbers of an embedding
_FLAT = 0.97  # of the largest entropy: logits that are as flat as that say nothing of classes


def is_embedding(name: str, vectors: Floats) -> bool:
    """Is this an embedding, as its name says, or as all vectors have a length of one?"""
    return vectors.shape[1] >= _LEAST_WIDTH and (are_of_length_one(vectors) or _EMBEDDING.search(name) is not None)


def are_of_length_one(vectors: Floats) -> bool:
    """Do all vectors have a length of one, and numbers of both signs? Logits never do; of few numbers, a direction."""
    norms = np.linalg.norm(vectors, axis=1)
    spread = bool((vectors < 0).any()) and bool(np.isfinite(norms).all())
    return vectors.shape[1] >= _LEAST_WIDTH and spread and bool(np.abs(norms - 1).max() < 1e-2)


def are_classes(name: str, vectors: Floats) -> bool:
    """Could these be logits of classes?

    Logits have both signs, and single out a class. Coordinates, ages and other numbers are as a rule not negative, and
    what has no classes is flat where it is taken for logits.
    """
    if _CLASSES.search(name) is not None:
        return True
    if _NUMBERS.search(name) is not None or is_embedding(name, vectors):
        return False
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.any():
        return True  # nothing tells
    values = vectors[finite]
    return bool((values < 0).any()) and flatness(values) < _FLAT


def flatness(logits: Floats) -> float:
    """The mean entropy of the softmax of each row, as a share of the largest that there can be, 0..1."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted)
    shares /= shares.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(np.maximum(shares, np.finfo(np.float64).tiny))).sum(axis=1)
    return float(entropy.mean() / np.log(logits.shape[1])) if logits.shape[1] > 1 else 1.0
