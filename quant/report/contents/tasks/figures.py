"""A build's figures of its task, as its row in `builds` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant.report.contents.figures import rounded

Document = dict[str, Any]
# By task: keys in `builds`, and those of the score's row that they are.
_LABELLED = {
    "detect": {"map": "score", "map50": "map50", "drop_map": "drop", "drop_map_ci95": "drop_ci95"},
    "segment": {
        "miou": "score", "pixel_accuracy": "pixel_accuracy", "drop_miou": "drop", "drop_miou_ci95": "drop_ci95",
    },
}  # fmt: skip
_AGREEING = {
    "detect": {"agreement_map": "score", "agreement_map50": "map50"},
    "segment": {"agreement_pixels": "score", "agreement_miou": "miou", "agreement_pixels_ci95": "agreement_ci95"},
}
_SCORED = {"score": "score", "drop_score": "drop", "drop_score_ci95": "drop_ci95"}


def judged_by_labels(metric: Mapping[str, Any] | None) -> bool:
    """Is this the score of a task that labels judge?"""
    return metric is not None and "task" in metric and metric["against"] == "labels"


def figures_of_build(metric: Mapping[str, Any] | None, name: str) -> Document:
    """A build's keys in `builds`: its task's score, the drop of it, and what stands beside it; none without a task.

    Against FP32 they are called agreement, since that is no accuracy.
    """
    if metric is None or "task" not in metric:
        return {}
    row = next((each for each in metric["builds"] if each["precision"] == name), None)
    if row is None:
        return {}
    if metric["part"] == "scores":
        keys = _SCORED if metric["against"] == "labels" else {"agreement_score": "score"}
        return {key: _rounded(row[of], 6) for key, of in keys.items() if of in row}
    keys = (_LABELLED if metric["against"] == "labels" else _AGREEING)[metric["task"]]
    return {key: _rounded(row[of], 4) for key, of in keys.items() if of in row}


def _rounded(value: Any, digits: int) -> Any:  # noqa: ANN401 - a number or an interval
    return [rounded(end, digits) for end in value] if isinstance(value, list) else rounded(value, digits)
