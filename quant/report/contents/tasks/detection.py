"""The report's part on detection: figures of the score that decides, and what belongs to detection alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quant.report.contents.figures import rounded
from quant.report.contents.tasks.builds import part_of_builds
from quant.report.result import RunResult

Document = dict[str, Any]
_FIGURES = ("score", "map50", "map75", "map_small", "map_medium", "map_large")


def detection_from_run(result: RunResult, examined: str | None) -> Document | None:
    """The report's key `detection`; None of other models.

    Args:
        result: The run.
        examined: The build whose changes are shown; None where there is only the baseline.
    """
    part = part_of_builds(result, "detection", _FIGURES, examined)
    if part is None:
        return None
    document, found, names = part
    precisions = {name: build.precision for name, build in result.builds.items()}
    return {
        **document,
        "classes": [_class_row(row, names) for row in found["classes"]],
        "curves": [{"precision": precisions[name], "at_recall": found["curves"][name]} for name in names],
        "confidence": [{"precision": precisions[name], **found["confidence"][name]} for name in names],
        "head_kept": head_from_run(result),
    }


def _class_row(row: Mapping[str, Any], names: Sequence[str]) -> Document:
    """A class's figures in the order of the builds, and what each build loses against the first."""
    precisions = [row["ap"][name] for name in names]
    first = precisions[0]
    drops = [None if value is None or first is None else rounded(first - value, 4) for value in precisions]
    return {**row, "ap": precisions, "ap50": [row["ap50"][name] for name in names], "drop": drops}


def head_from_run(result: RunResult) -> Document | None:
    """How the INT8 build has the detector's head, and what the other way costs and buys."""
    trial = result.head
    if trial is None:
        return None
    document: Document = {"kept": trial.kept, "nodes": list(trial.nodes), "builds": []}
    if trial.other is None or trial.latency is None or "int8" not in result.measured.latencies:
        return document
    metric = result.measured.metric or {"builds": []}
    mine = next((row for row in metric["builds"] if row["precision"] == "int8"), None)
    baseline = result.measured.latencies[result.baseline]
    rows = [(trial.kept, mine, result.measured.latencies["int8"])]
    rows.append(("int8" if trial.kept == "float" else "float", trial.other, trial.latency))
    for head, row, latency in rows:
        if row is None:
            continue
        document["builds"].append(
            {
                "head": head,
                "score": rounded(row["score"], 4),
                "map50": rounded(row.get("map50"), 4),
                "drop": rounded(row["drop"], 4),
                "drop_ci95": [rounded(end, 4) for end in row["drop_ci95"]],
                "latency_ms": rounded(latency.milliseconds, 4),
                "speedup": rounded(latency.images_per_second / baseline.images_per_second, 3),
            }
        )
    return document
