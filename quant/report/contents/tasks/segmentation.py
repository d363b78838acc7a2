"""The report's part on segmentation: overlap by class, and where maps changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant.report.contents.figures import rounded
from quant.report.result import RunResult

Document = dict[str, Any]
_FIGURES = ("miou", "pixel_accuracy", "pixel_agreement")


def segmentation_from_run(result: RunResult, examined: str | None) -> Document | None:
    """The report's key `segmentation`; None of other models.

    Args:
        result: The run.
        examined: The build whose changes are shown; None where there is only the baseline.
    """
    metric = result.measured.metric
    if metric is None or metric.get("part") != "segmentation":
        return None
    found = metric["segmentation"]
    precisions = {name: build.precision for name, build in result.builds.items()}
    names = [row["precision"] for row in metric["builds"]]
    return {
        **found,
        "score": metric["name"],
        "images": metric["images"],
        "builds": [
            {"precision": precisions[row["precision"]], **{key: rounded(row.get(key), 4) for key in _FIGURES}}
            for row in metric["builds"]
        ],
        "classes": [_class_row(row, names) for row in found["classes"]],
        "changed": found["changed"].get(examined, []) if examined is not None else [],
    }


def _class_row(row: Mapping[str, Any], names: list[str]) -> Document:
    """A class's figures in the order of the builds; the first one loses nothing."""
    return {
        **row,
        "iou": [row["iou"][name] for name in names],
        "drop": [row["drop"].get(name) for name in names],
        "drop_ci95": [row["drop_ci95"].get(name) for name in names],
    }
