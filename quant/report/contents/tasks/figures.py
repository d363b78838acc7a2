"""A build's figures of its task, as its row in `builds` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant.report.contents.figures import rounded

Document = dict[str, Any]
# By task: what the score is called in `builds`, and which of the row's other figures stand beside it.
_KEYS = {
    "detect": ("map", ("map50",)),
}


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
    key, others = _KEYS[metric["task"]]
    against = "" if metric["against"] == "labels" else "agreement_"
    figures: Document = {f"{against}{key}": rounded(row["score"], 4)}
    figures |= {f"{against}{other}": rounded(row.get(other), 4) for other in others}
    if not against and "drop" in row:
        figures[f"drop_{key}"] = rounded(row["drop"], 4)
        figures[f"drop_{key}_ci95"] = [rounded(end, 4) for end in row["drop_ci95"]]
    return figures
