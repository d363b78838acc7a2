"""A detector's head in float and in INT8: the build that was not asked for is measured beside the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quant.jobs.tasks.task_choice import ChosenTask
from quant.onnx_graph.model import OnnxModel
from quant.progress import Console
from quant.qdq.output_head import head_nodes
from quant.report.result import HeadTrial, Measurement
from quant.settings.run_settings import RunSettings

OTHER_HEAD = "int8 with the other head"


def other_head_nodes(task: ChosenTask, model: OnnxModel, settings: RunSettings) -> frozenset[str] | None:
    """The products in float where the head is in INT8 if it is float, and the other way round; None without a trial."""
    if task.head is None:
        return None
    nodes = head_nodes(model.light, in_int8=settings.head != "int8")
    return None if nodes == task.float_nodes else nodes


def warn_of_other_head(error: Exception, settings: RunSettings, console: Console) -> None:
    """Say that INT8 with the other head cannot be built."""
    console.warn(f"int8 with the head in {_other(settings)} cannot be built, so it is not compared: {error}")


def split_trial(found: Measurement, task: ChosenTask, settings: RunSettings) -> tuple[Measurement, HeadTrial | None]:
    """The measurement without the other build, and what that one showed."""
    if task.head is None:
        return found, None
    nodes = tuple(sorted(task.float_nodes))
    if OTHER_HEAD not in found.evaluations:
        return found, HeadTrial(settings.head, nodes, None, None) if nodes else None
    metric, other = found.metric, None
    if metric is not None:
        other = next(row for row in metric["builds"] if row["precision"] == OTHER_HEAD)
        metric = without_other_head(metric)
    kept = replace(
        found,
        evaluations={name: each for name, each in found.evaluations.items() if name != OTHER_HEAD},
        drops={name: each for name, each in found.drops.items() if name != OTHER_HEAD},
        latencies={name: each for name, each in found.latencies.items() if name != OTHER_HEAD},
        metric=metric,
    )
    return kept, HeadTrial(settings.head, nodes, other, found.latencies[OTHER_HEAD])


def without_other_head(metric: Mapping[str, Any]) -> dict[str, Any]:
    """A metric's section without the other build."""
    section = {**metric, "builds": [row for row in metric["builds"] if row["precision"] != OTHER_HEAD]}
    if "detection" in metric:
        detection = dict(metric["detection"])
        for key in ("curves", "confidence", "changed"):
            detection[key] = {name: each for name, each in detection[key].items() if name != OTHER_HEAD}
        detection["classes"] = [
            {
                **row,
                **{key: {name: ap for name, ap in row[key].items() if name != OTHER_HEAD} for key in ("ap", "ap50")},
            }
            for row in detection["classes"]
        ]
        section["detection"] = detection
    return section


def _other(settings: RunSettings) -> str:
    return "float" if settings.head == "int8" else "INT8"
