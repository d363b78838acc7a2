"""What INT8 does to single classes: their drops, and which classes it mistakes for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import paired_drop

_PAIRS = 100  # kept in the report
_MATRIX_CLASSES = 30  # up to this many classes, the whole matrix is kept


def per_class(baseline: Evaluation, build: Evaluation, names: Sequence[str] | None) -> list[dict[str, Any]] | None:
    """Accuracy of each class that has images, worst drop first; None without labels.

    Args:
        baseline: FP32.
        build: The build compared with it, on the same images.
        names: Class names by index, where known.
    """
    if baseline.labels is None or baseline.correct is None or build.correct is None:
        return None
    rows = []
    for index in np.unique(baseline.labels).tolist():
        mine = baseline.labels == index
        before, after = baseline.correct[mine], build.correct[mine]
        drop = paired_drop(before, after)
        rows.append(
            {
                "class": index,
                "name": class_name(names, index),
                "images": int(mine.sum()),
                "top1_fp32": round(100 * float(before.mean()), 4),
                "top1": round(100 * float(after.mean()), 4),
                "drop": round(drop.points, 4),
                "drop_ci95": [round(drop.low, 4), round(drop.high, 4)],
                "lost": drop.lost,
                "won": drop.won,
            }
        )
    return sorted(rows, key=lambda row: (-row["drop"], row["class"]))


def confusion(baseline: Evaluation, build: Evaluation, names: Sequence[str] | None) -> dict[str, Any] | None:
    """Which classes are mistaken for which more often than in FP32, most first.

    Without labels, FP32's answers are used instead. None when the model is not a classifier.
    """
    if baseline.predicted is None or build.predicted is None:
        return None
    truth = baseline.labels if baseline.labels is not None else baseline.predicted
    before, after = _pair_counts(truth, baseline.predicted), _pair_counts(truth, build.predicted)
    pairs: list[dict[str, Any]] = [
        {
            "label": label,
            "label_name": class_name(names, label),
            "answer": answer,
            "answer_name": class_name(names, answer),
            "fp32": before.get((label, answer), 0),
            "build": after.get((label, answer), 0),
            "added": after.get((label, answer), 0) - before.get((label, answer), 0),
        }
        for label, answer in {**before, **after}
        if label != answer
    ]
    added = sorted(
        (pair for pair in pairs if pair["added"] > 0),
        key=lambda pair: (-pair["added"], pair["label"], pair["answer"]),
    )
    return {
        "against": "labels" if baseline.labels is not None else "fp32",
        "pairs": added[:_PAIRS],
        "matrix": _difference(
            before, after, max(int(truth.max()), int(baseline.predicted.max()), len(names or ()) - 1)
        ),
    }


def _pair_counts(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[tuple[int, int], int]:
    pairs, counts = np.unique(np.stack([truth, predicted], axis=1), axis=0, return_counts=True)
    return {(int(a), int(b)): int(n) for (a, b), n in zip(pairs, counts, strict=True)}


def _difference(
    before: dict[tuple[int, int], int], after: dict[tuple[int, int], int], least: int
) -> list[list[int]] | None:
    """The build's confusion matrix minus FP32's, with the truth in rows; None for many classes."""
    classes = max(least, *(max(pair) + 1 for pair in {**before, **after}))
    if classes > _MATRIX_CLASSES:
        return None
    return [[after.get((i, j), 0) - before.get((i, j), 0) for j in range(classes)] for i in range(classes)]


def class_name(names: Sequence[str] | None, index: int) -> str:
    """The class's name, or its number."""
    return names[index] if names is not None and 0 <= index < len(names) else str(index)
