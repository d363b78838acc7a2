"""What the reports of tasks whose scores are of places share: the score, the images, the figures of each build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quant.report.contents.figures import rounded
from quant.report.result import RunResult

Document = dict[str, Any]


def part_of_builds(
    result: RunResult, part: str, figures: Sequence[str], examined: str | None
) -> tuple[Document, Mapping[str, Any], list[str]] | None:
    """A task's part of the report as far as all such tasks have it; None of other models.

    Args:
        result: The run.
        part: Name of the part.
        figures: Keys of the figures of a build.
        examined: The build whose changes are shown; None where there is only the baseline.

    Returns:
        The part, what the task found, and the names of the builds in order.
    """
    metric = result.measured.metric
    if metric is None or metric.get("part") != part:
        return None
    found = metric[part]
    precisions = {name: build.precision for name, build in result.builds.items()}
    document = {
        **found,
        "score": metric["name"],
        "images": metric["images"],
        "builds": [
            {"precision": precisions[row["precision"]], **{key: rounded(row.get(key), 4) for key in figures}}
            for row in metric["builds"]
        ],
        "changed": found["changed"].get(examined, []) if examined is not None else [],
    }
    return document, found, [row["precision"] for row in metric["builds"]]
