"""Sensitivities as a table for a terminal, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from calib.texts import plain_text, table_of_names, wrapped
from quant.report.views.svg import chart_tail, plain_ticks, standalone_svg
from quant.settings.output_names import SENSITIVITY_JSON, SENSITIVITY_PLOT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Document = dict[str, Any]
_SHOWN = 20  # in the table and in the plot
_LABEL = 24  # characters of names in the plot


def text_from_sensitivity(document: Document, out: Path, width: int | None = None) -> str:
    """The noisiest groups of products as a table in `width` columns, and where everything is."""
    rows, shown = document["products"], document["products"][:_SHOWN]
    titles = ["Product", "SQNR, dB", "Work, %"]
    cells = [[_figure(row["sqnr_db"], "{:.1f}"), _figure(row["macs_share"], "{:.2f}")] for row in shown]
    if document["labelled"]:
        titles.append("Lost, pts")
        cells = [[*line, f"{row['lost']:+.2f}"] for line, row in zip(cells, shown, strict=True)]
    elif document["answers"]:
        titles.append("Changed")
        cells = [[*line, f"{row['changed']}"] for line, row in zip(cells, shown, strict=True)]
    table = [(plain_text(row["node"]), line) for row, line in zip(shown, cells, strict=True)]
    more = f"{len(rows) - len(shown)} more in {out / SENSITIVITY_JSON}" if len(rows) > len(shown) else ""
    kept = f"{len(document['in_float'])} products stay float whatever they cost" if document["in_float"] else ""
    sentences = [
        f"{document['images']:,} images, {document['algo']}; INT8 computes one line alone, all else is FP32",
        *filter(None, (more, kept)),
        f"plot: {out / SENSITIVITY_PLOT}",
    ]
    told = [line for sentence in sentences for line in wrapped(sentence, width)]
    return "\n".join([*table_of_names(titles, table, width), "", *told])


def draw_sensitivity(axes: Axes, rows: list[Document], colours: tuple[str, str]) -> None:
    """Bars of the noise that each group alone leaves in the outputs, the noisiest on top.

    Args:
        axes: Where to draw.
        rows: Of a report's `recovery.sensitivity`, or of `sensitivity.json`; the first are drawn.
        colours: Of what INT8 computes, and of what stays float.
    """
    for y, row in enumerate(rows[:_SHOWN]):
        noise = 0.0 if row["sqnr_db"] is None else 10 ** (-row["sqnr_db"] / 10)  # none: it changes nothing
        (bar,) = axes.barh(y, noise, color=colours[row["precision"] == "float"], height=0.65)
        bar.set_gid(f"value.noise.{y}")
        share = f"{_figure(row['macs_share'], '{:.2f}')} %"
        axes.annotate(share, (noise, y), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows[:_SHOWN])), [chart_tail(row["node"], _LABEL) for row in rows[:_SHOWN]])
    axes.invert_yaxis()
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.margins(x=0.2)
    axes.set_xlabel("noise in the outputs relative to the signal; beside it the share of the work")


def svg_from_sensitivity(document: Document) -> str:
    """The plot as a file of its own."""
    rows = document["products"]

    def draw(axes: Axes) -> None:
        draw_sensitivity(axes, rows, ("#5c6bc0", "#2e7d32"))

    return standalone_svg(1.2 + 0.3 * min(len(rows), _SHOWN), draw)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
