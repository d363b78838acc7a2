"""What of a report goes into an experiment tracker: settings as parameters, figures as metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quant.report.views.names import build_names
from quant.settings.output_names import REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN, SWEEP_JSON, SWEEP_PLOT

Document = Mapping[str, Any]
_NO_NAME = re.compile(r"[^\w. /-]", re.ASCII)  # what MLflow allows in a name of a parameter or metric


@dataclass(frozen=True)
class Record:
    """What a tracker gets of a job.

    Attributes:
        params: Settings and hashes, as texts.
        metrics: Figures, each by build and name, such as `int8/drop_top1`.
        tags: What the job concluded.
        files: Names of the files in the job's folder that go with it.
    """

    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: tuple[str, ...]


def record_from_report(document: Document) -> Record:
    """What goes into a tracker of the report of a run, a comparison or a migration."""
    names = (
        build_names(dict(document)) if document.get("compared") else [row["precision"] for row in document["builds"]]
    )
    metrics = _of_rows(zip(names, document["builds"], strict=True))
    own = document.get("metric") or {}
    if own and not own.get("task"):  # a task's figures are in the rows of the builds
        for name, row in zip(names, own["builds"], strict=True):
            metrics |= _numbers({f"metric_{key}": value for key, value in row.items()}, name)
    metrics |= _numbers({"exit_code": document["exit_code"], "peak_rss_mb": document["peak_rss_mb"]})
    for part in ("calibration", "migration"):
        metrics |= _numbers(document.get(part) or {}, part)
    tags = {key: str(document[key]) for key in ("verdict", "chosen", "reason")}
    return Record(_params(document), metrics, tags, (REPORT_HTML, REPORT_MARKDOWN, REPORT_JSON))


def record_from_sweep(document: Document) -> Record:
    """What goes into a tracker of a sweep: a group of figures for each of its rows."""
    metrics = _of_rows((row["name"], row) for row in document["rows"])
    metrics |= _numbers({"top1": document["fp32_top1"], "metric": (document["metric"] or {}).get("fp32")}, "fp32")
    tags = {"best": str(document["best"]), "decided_by": str(document["decided_by"])}
    return Record(_params(document), metrics, tags, (SWEEP_JSON, SWEEP_PLOT))


def _of_rows(rows: Any) -> dict[str, float]:  # noqa: ANN401 - pairs of a name and a row of JSON
    return {key: value for name, row in rows for key, value in _numbers(row, name).items()}


def _numbers(row: Document, prefix: str = "") -> dict[str, float]:
    """The numbers of a row by name, and both ends of its intervals."""
    found = {}
    for key, value in row.items():
        name = _NO_NAME.sub("_", f"{prefix}/{key}" if prefix else key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
        elif key.endswith("_ci95") and isinstance(value, Sequence) and len(value) == 2:
            found |= {f"{name}_low": float(value[0]), f"{name}_high": float(value[1])}
    return found


def _params(document: Document) -> dict[str, str]:
    settings = {key: value for key, value in document["settings"].items() if value not in (None, "", [])}
    versions = {f"version {name}": version for name, version in document["versions"].items()}
    backend = {key: document["backend"][key] for key in ("name", "device")}
    calibrated = (document["data"].get("calibration") or {}).get("sha256")
    return {key: str(value) for key, value in settings.items()} | {
        **{_NO_NAME.sub("_", name): str(version) for name, version in versions.items()},
        **{f"backend {key}": str(value) for key, value in backend.items()},
        "model sha256": str(document["model"]["sha256"]),
        **({"calibration data sha256": str(calibrated)} if calibrated else {}),
    }
