"""The report's part on segmentation: overlap by class, and where maps changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quant.report.contents.tasks.builds import part_of_builds
from quant.report.result import RunResult

Document = dict[str, Any]
_FIGURES = ("miou", "pixel_accuracy", "pixel_agreement")


def segmentation_from_run(result: RunResult, examined: str | None) -> Document | None:
    """The report's key `segmentation`; None of other models.

    Args:
        result: The run.
        examined: The build whose changes are shown; None where there is only the baseline.
    """
    part = part_of_builds(result, "segmentation", _FIGURES, examined)
    if part is None:
        return None
    document, found, names = part
    return {
        **document,
        "classes": [_class_row(row, names) for row in found["classes"]],
    }


def _class_row(row: Mapping[str, Any], names: list[str]) -> Document:
    """A class's figures in the order of the builds; the first one loses nothing."""
    return {
        **row,
        "iou": [row["iou"][name] for name in names],
        "drop": [row["drop"].get(name) for name in names],
        "drop_ci95": [row["drop_ci95"].get(name) for name in names],
    }
