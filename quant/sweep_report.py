"""The result of a sweep as data, as a table for a terminal, and as a plot of the drops."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import calib

if TYPE_CHECKING:
    from quant.settings import RunSettings
    from quant.sweep import SweepResult, SweepRow

SCHEMA = 1
Document = dict[str, Any]
_COLUMNS = (
    ("name", "Algorithm", "{}"),
    ("top1", "Top-1 %", "{:.2f}"),
    ("drop_top1", "Drop, points", "{:+.2f}"),
    ("drop_ci95", "Drop's 95 % CI", "{0[0]:+.2f} to {0[1]:+.2f}"),
    ("metric", "Metric", "{:.4g}"),
    ("metric_drop", "Metric's drop", "{:+.4g}"),
    ("metric_ci95", "its 95 % CI", "{0[0]:+.4g} to {0[1]:+.4g}"),
    ("agreement", "Agreement %", "{:.2f}"),
    ("sqnr_db", "SQNR, dB", "{:.2f}"),
)


def document_from_sweep(result: SweepResult) -> Document:
    """What `sweep.json` holds; accuracies and agreement per cent, drops percentage points, rows best first."""
    settings = result.settings
    choice = result.choice
    return {
        "schema": SCHEMA,
        "versions": {"calib": calib.__version__, result.backend.name: result.backend.version},
        "model": {"path": str(result.model.path), "sha256": result.model.sha256},
        "backend": {
            "name": result.backend.name,
            "version": result.backend.version,
            "device": result.backend.device,
        },
        "data": {"path": str(settings.data), "eval": str(settings.eval) if settings.eval else None},
        "images": result.baseline.images,
        "fp32_top1": _rounded(result.baseline.top1, 4),
        "metric": {"name": result.metric[0], "fp32": result.metric[1]} if result.metric else None,
        "rows": [_row(row) for row in result.rows],
        "best": result.rows[0].name,
        "kept": f"model.int8{'.engine' if result.backend.name == 'tensorrt' else '.onnx'}",
        "worst": result.rows[-1].name,
        "decided_by": "metric" if result.metric else "top1" if result.rows[0].drop else "sqnr",
        "per_tensor": None
        if choice is None
        else {
            "start": choice.start,
            "start_sqnr_db": _rounded(choice.start_sqnr_db, 3),
            "sqnr_db": _rounded(choice.sqnr_db, 3),
            "algorithms": dict(choice.algorithms),
        },
        "again": _command(result.rows[0], settings),
        "warnings": list(result.warnings),
    }


def _row(row: SweepRow) -> Document:
    drop, metric = row.drop, row.metric
    return {
        "name": row.name,
        "top1": _rounded(row.evaluation.top1, 4),
        "drop_top1": None if drop is None else _rounded(drop.points, 4),
        "drop_ci95": None if drop is None else [_rounded(drop.low, 4), _rounded(drop.high, 4)],
        "metric": None if metric is None else metric.score,
        "metric_drop": None if metric is None else metric.drop,
        "metric_ci95": None if metric is None else [metric.low, metric.high],
        "agreement": _rounded(row.agreement, 4),
        "sqnr_db": _rounded(row.evaluation.sqnr_db, 3),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _command(best: SweepRow, settings: RunSettings) -> str:
    """How `calib run` uses what was kept."""
    run = "calib run --backend tensorrt" if settings.backend == "tensorrt" else "calib run"
    if best.algorithm is None:
        return f"{run} --algo entropy --cache {settings.cache_path} --trust-cache"
    percentile = getattr(best.algorithm, "percentile", None)
    return f"{run} --algo {best.algorithm.name}" + (f" --percentile {percentile:g}" if percentile else "")


def json_from_sweep(document: Document) -> str:
    """sweep.json."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def text_from_sweep(document: Document, out: Path) -> str:
    """The result for a terminal: a table, best first, and what was kept."""
    rows = document["rows"]
    columns = [column for column in _COLUMNS if any(row[column[0]] is not None for row in rows)]
    cells = [[title for _, title, _ in columns]]
    cells += [["-" if row[key] is None else form.format(row[key]) for key, _, form in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]
    baseline = f"{document['images']:,} images"
    if document["fp32_top1"] is not None:
        baseline += f", FP32 top-1 {document['fp32_top1']:.2f} %"
    if document["metric"]:
        baseline += f", FP32 {document['metric']['name']} {document['metric']['fp32']:.4g}"
    return "\n".join(
        [
            *lines,
            "",
            baseline,
            f"best: {document['best']}, kept as {out / 'calibration.cache'} and {out / document['kept']}",
            f"worst: {document['worst']}",
            f"plot: {out / 'sweep.svg'}",
            f"next: {document['again']}",
        ]
    )


def svg_from_sweep(document: Document) -> str:
    """A bar for each algorithm: its drop with the 95 % interval, or the SQNR where no drop is known. Best on top."""
    from quant.report.figure import Figure
    from quant.report.svg import BUILD, GOOD, INK, file_from_svg

    key, interval, title = {
        "metric": ("metric_drop", "metric_ci95", "Drop of {} against FP32, with its 95 % interval"),
        "top1": ("drop_top1", "drop_ci95", "Drop of top-1 against FP32, percentage points, with its 95 % interval"),
        "sqnr": ("sqnr_db", None, "SQNR of the outputs against FP32, dB (no labels: the drop is not known)"),
    }[document["decided_by"]]
    rows = document["rows"]
    figure = Figure("sweep", 86 + 29 * len(rows), width=576)
    (axes,) = figure.axes
    for y, row in enumerate(rows):
        colour = GOOD if row["name"] == document["best"] else BUILD
        axes.bar((0, row[key] or 0.0), (y - 0.4, y + 0.4), colour, f"bar.{y}")
        if interval is not None:
            axes.line(row[interval], [y, y], INK, 1, f"interval.{y}")
    axes.upright(0, INK, 0.8)
    axes.title = title.format(document["metric"]["name"] if document["metric"] else "")
    axes.y.ticks, axes.y.limits = [(y, row["name"]) for y, row in enumerate(rows)], (len(rows) - 0.4, -0.6)
    axes.x.from_zero = interval is None
    return file_from_svg(figure.svg(axes.title))
