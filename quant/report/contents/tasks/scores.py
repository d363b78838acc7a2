"""The report's part on tasks that have neither maps nor boxes: embeddings, numbers, keypoints, labels, pictures."""

from __future__ import annotations

from typing import Any

from quant.report.contents.figures import rounded
from quant.report.result import RunResult

Document = dict[str, Any]


def scores_from_run(result: RunResult, examined: str | None) -> Document | None:
    """The report's key `scores`; None of other models.

    Args:
        result: The run.
        examined: The build whose worst images are listed; None where there is only the baseline.
    """
    metric = result.measured.metric
    if metric is None or metric.get("part") != "scores":
        return None
    found = metric["scores"]
    precisions = {name: build.precision for name, build in result.builds.items()}
    names = [row["precision"] for row in metric["builds"]]
    keys = [figure["key"] for figure in found["figures"]]
    return {
        **found,
        "task": metric["task"],
        "score": metric["name"],
        "images": metric["images"],
        "builds": [
            {"precision": precisions[row["precision"]], **{key: rounded(row.get(key), 6) for key in keys}}
            for row in metric["builds"]
        ],
        "parts": {
            "what": found["parts"]["what"],
            "rows": [{**row, "values": [row["values"][name] for name in names]} for row in found["parts"]["rows"]],
        },
        "worst": found["worst"].get(examined, []) if examined is not None else [],
    }
