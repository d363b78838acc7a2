"""Charts of tensors: all of them at a glance, and the histograms of the first ones."""

from __future__ import annotations

import math

from quant.report.figure import Figure
from quant.report.sections import Document
from quant.report.svg import BAD, BUILD, chart_tail


def overview_chart(document: Document) -> list[tuple[str, str]]:
    """SQNR against amax / max of every quantized tensor."""
    rows = [
        row for row in document.get("tensors") or [] if row["sqnr_db"] is not None and row["quantized"] is not False
    ]
    rows = [row for row in rows if row["amax_ratio"]]
    if not rows:
        return []

    caption = "Every quantized tensor; the one to look at first is named"
    figure = Figure("tensors", 223)
    (axes,) = figure.axes
    ratios, noises = [row["amax_ratio"] for row in rows], [row["sqnr_db"] for row in rows]
    axes.dots(ratios, noises, BUILD, 2.5, "tensors", opacity=0.7)
    axes.dots(ratios[:1], noises[:1], BAD, 4, "first")
    axes.x.label, axes.x.margin, axes.x.grid, axes.x.log = "amax / max |x|", 0.08, True, min(ratios) < 0.1
    axes.y.label, axes.y.margin, axes.y.grid = "SQNR, dB", 0.12, True
    axes.title, axes.title_colour = chart_tail(rows[0]["name"]), BAD
    return [(caption, figure.svg(caption))]


def histogram_charts(document: Document) -> list[tuple[str, str]]:
    """Histograms of the tensors that the report keeps one for."""
    charts = []
    for i, row in enumerate(document.get("tensors") or []):
        if "histogram" in row:
            caption = f"{i + 1}. {row['name']}: amax {row['amax']:.4g}, max {row['abs_max']:.4g}"
            label = f"Histogram of {row['name']}"
            charts.append((caption, _histogram(row, f"histogram{i}").svg(label)))
    return charts


def _short(count: float) -> str:
    """A count on an axis: 100, 10k, 1M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g}{letter}"
    return f"{count:g}"


def _histogram(row: Document, name: str) -> Figure:
    figure = Figure(name, 158)
    (axes,) = figure.axes
    counts, width = row["histogram"]["counts"], row["histogram"]["bin_width"]
    end = max(len(counts) * width, row["amax"] * 1.02)
    axes.x.label, axes.x.limits = "|x|", (0, end)
    axes.y.label, axes.y.log, axes.y.form = "values", True, _short
    axes.y.limits = 0.5, 10 ** (math.log10(max(counts)) * 1.12 + 0.3)
    axes.steps(counts, width, 0.5, BUILD, "counts")
    if row["amax_ratio"] < 1:  # rounded: what a scale's last bit takes away is nothing to show
        axes.band(row["amax"], end, BAD, "clipped", 0.14)
    axes.upright(row["amax"], BAD, 1.6, "amax")
    right = row["amax"] > 0.6 * end
    axes.label(
        row["amax"], None, "amax", anchor="end" if right else "start", right=-6 if right else 6, down=12, colour=BAD
    )
    return figure
