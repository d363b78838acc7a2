"""A sweep as a table for a terminal, and as a plot of the drops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quant.report.contents.sweep import Document
from quant.report.views.svg import standalone_svg
from quant.settings.output_names import CACHE, SWEEP_PLOT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
            f"best: {document['best']}, kept as {out / CACHE} and {out / document['kept']}",
            f"worst: {document['worst']}",
            *_choice_lines(document),
            f"plot: {out / SWEEP_PLOT}",
            f"next: {document['again']}",
        ]
    )


def _choice_lines(document: Document) -> list[str]:
    """The outcome of the choice by tensor; nothing if it was not asked for."""
    choice = document["per_tensor"]
    if choice is None:
        return []
    start = choice["start"]
    if not choice["changed"]:
        return [f"per-tensor: no other algorithm improves a tensor by more than chance; the same as {start}"]
    behind = "" if choice["as_good_as_best"] else "; worse on the evaluated images, and not kept"
    return [f"per-tensor: {choice['changed']} of {len(choice['algorithms'])} tensors differ from {start}{behind}"]


def svg_from_sweep(document: Document) -> str:
    """A bar for each algorithm, best on top: its drop with the 95 % interval, or the SQNR if no drop is known."""
    key, interval, title = {
        "metric": ("metric_drop", "metric_ci95", "Drop of {} against FP32, with its 95 % interval"),
        "top1": ("drop_top1", "drop_ci95", "Drop of top-1 against FP32, percentage points, with its 95 % interval"),
        "sqnr": ("sqnr_db", None, "SQNR of the outputs against FP32, dB (no labels: the drop is not known)"),
    }[document["decided_by"]]
    rows = list(reversed(document["rows"]))
    values = [row[key] if row[key] is not None else 0.0 for row in rows]
    colours = ["#2e7d32" if row["name"] == document["best"] else "#5c6bc0" for row in rows]
    errors = None
    if interval is not None:
        ends = [row[interval] for row in rows]
        # With few images, the interval is not centred on the drop and need not contain it.
        errors = [
            [max(v - low, 0.0) for v, (low, _) in zip(values, ends, strict=True)],
            [max(high - v, 0.0) for v, (_, high) in zip(values, ends, strict=True)],
        ]
    positions = range(len(rows))

    def draw(axes: Axes) -> None:
        axes.barh(positions, values, xerr=errors, color=colours, ecolor="#666", capsize=3)
        axes.set_yticks(positions, [row["name"] for row in rows])
        axes.axvline(0, color="#666", linewidth=0.8)
        axes.set_title(title.format(document["metric"]["name"] if document["metric"] else ""), fontsize=10)

    return standalone_svg(1.2 + 0.4 * len(rows), draw)
