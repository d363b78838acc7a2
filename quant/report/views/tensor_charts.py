"""Charts of tensors: an overview of all of them, and the histograms of the first ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from quant.report.views.sections import Document
from quant.report.views.svg import BAD, BUILD, chart_tail, svg_from_drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def overview_chart(document: Document) -> list[tuple[str, str]]:
    """SQNR against amax / max of every quantized tensor."""
    rows = [
        row for row in document.get("tensors") or [] if row["sqnr_db"] is not None and row["quantized"] is not False
    ]
    rows = [row for row in rows if row["amax_ratio"]]
    if not rows:
        return []

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        ratios, noises = [row["amax_ratio"] for row in rows], [row["sqnr_db"] for row in rows]
        (dots,) = axes.plot(ratios, noises, "o", color=BUILD, markersize=5, alpha=0.7, markeredgewidth=0)
        (first,) = axes.plot(ratios[:1], noises[:1], "o", color=BAD, markersize=7)
        dots.set_gid("value.tensors")
        first.set_gid("value.first")
        if min(ratios) < 0.1:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
            axes.minorticks_off()
        axes.set(xlabel="amax / max |x|", ylabel="SQNR, dB")
        axes.margins(0.08, 0.12)
        axes.grid()
        axes.set_title(chart_tail(rows[0]["name"]), color=BAD)

    caption = "Every quantized tensor; the one to look at first is named"
    return [(caption, svg_from_drawing("tensors", 3.1, draw, caption))]


def histogram_charts(document: Document) -> list[tuple[str, str]]:
    """Histograms of the tensors for which the report keeps one."""
    charts = []
    for i, row in enumerate(document.get("tensors") or []):
        if "histogram" in row:
            caption = f"{i + 1}. {row['name']}: amax {row['amax']:.4g}, max {row['abs_max']:.4g}"
            label = f"Histogram of {row['name']}"
            charts.append((caption, svg_from_drawing(f"histogram{i}", 2.2, _histogram(row), label)))
    return charts


def _short(count: float) -> str:
    """A count on an axis: 100, 10k, 1M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g}{letter}"
    return f"{count:g}"


def _histogram(row: Document) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        counts, width = row["histogram"]["counts"], row["histogram"]["bin_width"]
        edges = [i * width for i in range(len(counts) + 1)]
        axes.stairs(counts, edges, fill=True, color=BUILD, alpha=0.75, baseline=0.5).set_gid("value.counts")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, place: _short(value))
        axes.minorticks_off()
        axes.set_ylim(0.5, 10 ** (math.log10(max(counts)) * 1.12 + 0.3))
        axes.set_xlim(0, max(edges[-1], row["amax"] * 1.02))
        if row["amax_ratio"] < 1:  # rounded: clipping by a scale's last bit is not worth showing
            cut = axes.axvspan(row["amax"], axes.get_xlim()[1], color=BAD, alpha=0.14, linewidth=0)
            cut.set_gid("value.clipped")
        axes.axvline(row["amax"], color=BAD, linewidth=1.6).set_gid("value.amax")
        right = row["amax"] > 0.6 * axes.get_xlim()[1]
        axes.annotate(
            "amax ",
            (row["amax"], 1),
            (-4 if right else 4, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            color=BAD,
        )
        axes.set(xlabel="|x|", ylabel="values")

    return draw
