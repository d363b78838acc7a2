"""A sweep as a table for a terminal, and as a plot of the drops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from calib.texts import table_of_names, wrapped
from quant.report.contents.sweep import Document
from quant.report.views.svg import standalone_svg
from quant.settings.output_names import CACHE, SWEEP_JSON, SWEEP_PLOT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = (
    ("name", "Algorithm", "{}"),
    ("top1", "Top-1 %", "{:.2f}"),
    ("drop_top1", "Drop", "{:+.2f}"),
    ("drop_ci95", "95 % interval", "{0[0]:+.2f} to {0[1]:+.2f}"),
    ("metric", "Metric", "{:.4g}"),
    ("metric_drop", "its drop", "{:+.4g}"),
    ("metric_ci95", "its 95 % interval", "{0[0]:+.4g} to {0[1]:+.4g}"),
    ("agreement", "Agree %", "{:.2f}"),
    ("sqnr_db", "SQNR dB", "{:.2f}"),
)
_LEFT_OUT = ("agreement", "drop_ci95", "drop_top1", "top1")  # where a terminal is too narrow, in this order


def text_from_sweep(document: Document, out: Path, width: int | None = None) -> str:
    """The result for a terminal of `width` columns: a table, best first, and what was kept."""
    rows = document["rows"]
    columns = {
        key: [title, *("-" if row[key] is None else form.format(row[key]) for row in rows)]
        for key, title, form in _COLUMNS
        if any(row[key] is not None for row in rows)
    }
    left_out = []
    for key in filter(columns.__contains__, _LEFT_OUT):
        if width is not None and sum(max(map(len, cells)) + 2 for cells in columns.values()) - 2 > width:
            left_out.append(columns.pop(key)[0])
    (names, *figures) = columns.values()
    (titles, *table) = zip(*figures, strict=True)
    lines = table_of_names((names[0], *titles), list(zip(names[1:], table, strict=True)), width)
    baseline = f"{document['images']:,} images"
    if document["fp32_top1"] is not None:
        baseline += f", FP32 top-1 {document['fp32_top1']:.2f} %"
    if document["metric"]:
        baseline += f", FP32 {document['metric']['name']} {document['metric']['fp32']:.4g}"
    sentences = [
        baseline,
        *([f"no room for {', '.join(left_out)}: see {out / SWEEP_JSON}"] if left_out else []),
        f"best: {document['best']}, kept as {out / CACHE} and {out / document['kept']}",
        f"worst: {document['worst']}",
        *_choice_lines(document),
        f"plot: {out / SWEEP_PLOT}",
    ]
    told = [line for sentence in sentences for line in wrapped(sentence, width)]
    return "\n".join([*lines, "", *told, f"next: {document['again']}"])


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
