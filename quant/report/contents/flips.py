"""The images whose answer changed: right in FP32 and wrong in the build, the reverse, and other changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.accuracy import Evaluation
from quant.report.contents.classes import class_name
from quant.report.contents.figures import rounded

KINDS = ("lost", "won", "changed")
_MOST = 200  # images listed of each kind


def flips(baseline: Evaluation, build: Evaluation, names: Sequence[str] | None) -> dict[str, Any] | None:
    """Images that flipped, each kind with the surest first: the largest margin before (`won`: after) the change.

    Args:
        baseline: FP32.
        build: The build compared with it, on the same images.
        names: Class names by index, where known.

    Returns:
        Counts of `lost` (right in FP32, wrong in the build), `won` (the reverse) and `changed` (another answer, wrong
        in both; without labels, any other answer), and the images. None when the model is not a classifier.
    """
    if baseline.predicted is None or build.predicted is None or not baseline.names:
        return None
    before, after = baseline.correct, build.correct
    changed = baseline.predicted != build.predicted
    masks = {"changed": changed}
    if before is not None and after is not None:
        masks = {"lost": before & ~after, "won": ~before & after, "changed": changed & ~before & ~after}
    listed = []
    for kind, mask in masks.items():
        sure = (build if kind == "won" else baseline).margin
        listed += [_row(kind, i, baseline, build, names) for i in _surest(mask, sure)]
    return {**{kind: int(masks[kind].sum()) if kind in masks else None for kind in KINDS}, "images": listed}


def _surest(mask: NDArray[np.bool_], margin: NDArray[np.float32] | None) -> list[int]:
    chosen = np.flatnonzero(mask)
    if margin is not None:
        chosen = chosen[np.argsort(-margin[chosen], kind="stable")]
    return [int(i) for i in chosen[:_MOST]]


def _row(kind: str, i: int, baseline: Evaluation, build: Evaluation, names: Sequence[str] | None) -> dict[str, Any]:
    label = None if baseline.labels is None else int(baseline.labels[i])
    return {
        "kind": kind,
        "file": baseline.names[i],
        "label": label,
        "label_name": None if label is None else class_name(names, label),
        "fp32": _answer(baseline, i, names),
        "build": _answer(build, i, names),
    }


def _answer(evaluation: Evaluation, i: int, names: Sequence[str] | None) -> dict[str, Any]:
    assert evaluation.predicted is not None
    assert evaluation.confidence is not None
    assert evaluation.margin is not None
    answer = int(evaluation.predicted[i])
    return {
        "class": answer,
        "name": class_name(names, answer),
        "confidence": rounded(float(evaluation.confidence[i]), 4),
        "margin": rounded(float(evaluation.margin[i]), 4),
    }
