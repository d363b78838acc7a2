"""Charts of detection: precision over recall, F1 over the threshold, detections by score, before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from quant.report.views.names import build_names
from quant.report.views.svg import BUILD, FP32, chart_text, svg_from_drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = dict[str, Any]
_LOWEST, _BINS = 0.05, 20  # of the histogram


def precision_recall(document: Document) -> list[tuple[str, str]]:
    """Precision at each recall, an overlap of 0.50, mean of the classes."""

    def draw(axes: Axes, rows: list[tuple[str, Any, str]]) -> None:
        for name, row, colour in rows:
            values = [np.nan if value is None else value for value in row]
            (line,) = axes.plot(np.linspace(0, 100, len(values)), values, color=colour, label=chart_text(name))
            line.set_gid(f"value.curve.{'fp32' if colour == FP32 else 'build'}")
        axes.set_xlabel("recall, %")
        axes.set_ylabel("precision, %")
        axes.set_ylim(0, 102)

    return _pair(document, "curves", "at_recall", "Precision and recall", "pr", draw)


def f1_by_threshold(document: Document) -> list[tuple[str, str]]:
    """F1 at each threshold."""

    def draw(axes: Axes, rows: list[tuple[str, Any, str]]) -> None:
        for name, row, colour in rows:
            (line,) = axes.plot(np.arange(len(row)) / len(row), row, color=colour, label=chart_text(name))
            line.set_gid(f"value.f1.{'fp32' if colour == FP32 else 'build'}")
        axes.set_xlabel("score from which a detection counts")
        axes.set_ylabel("F1, %")

    return _pair(document, "confidence", "f1", "F1 by threshold", "f1", draw)


def score_histogram(document: Document) -> list[tuple[str, str]]:
    """How many detections have which score."""

    def draw(axes: Axes, rows: list[tuple[str, Any, str]]) -> None:
        edges = np.linspace(_LOWEST, 1, _BINS + 1)
        for name, row, colour in rows:
            axes.stairs(row, edges, color=colour, label=chart_text(name), linewidth=1.5)
        axes.set_yscale("symlog", linthresh=1)  # most candidates show nothing and have low scores
        axes.set_xlabel("score")
        axes.set_ylabel("detections")

    return _pair(document, "confidence", "histogram", "Detections by score", "scores", draw)


def _pair(
    document: Document,
    key: str,
    part: str,
    title: str,
    name: str,
    draw: Callable[[Axes, list[tuple[str, Any, str]]], None],
) -> list[tuple[str, str]]:
    """A chart of the baseline and of the build that is examined."""
    found = document.get("detection")
    if not found or not found[key]:
        return []
    names = build_names(document)
    examined = document.get("examined")
    place = next((i for i, row in enumerate(document["builds"]) if i and row["precision"] == examined), None)
    rows = [(names[0], found[key][0][part], FP32)]
    if place is not None:
        rows.append((names[place], found[key][place][part], BUILD))

    def drawn(figure: Figure) -> None:
        axes = figure.subplots()
        draw(axes, rows)
        axes.legend(frameon=False)

    return [(title, svg_from_drawing(name, 2.6, drawn, f"{title} of {' and '.join(row[0] for row in rows)}"))]
