"""The report's charts, each from the document alone. A chart without data is left out."""

from __future__ import annotations

from collections.abc import Callable, Sized

from quant.report.figure import Figure
from quant.report.sections import Document, examined_name
from quant.report.svg import BAD, BUILD, FP32, GOOD, GRID, INK, chart_text
from quant.report.tensor_charts import histogram_charts, overview_chart

_BARS = 20  # classes, types of layers


def charts_from_document(document: Document) -> dict[str, list[tuple[str, str]]]:
    """Captions and SVGs by the anchor of the section they belong to."""
    makers: dict[str, tuple[Callable[[Document], list[tuple[str, str]]], ...]] = {
        "builds": (_drops, _costs),
        "classes": (_classes,),
        "confusion": (_confusion,),
        "reliability": (_reliability,),
        "tensors": (overview_chart, histogram_charts),
        "layers": (_layers,),
    }
    return {anchor: [chart for make in group for chart in make(document)] for anchor, group in makers.items()}


def _drops(document: Document) -> list[tuple[str, str]]:
    """Of what decides: the user's metric where there is one, else top-1."""
    metric = document.get("metric")
    if metric:
        rows = [(row["precision"], row["drop"], *row["drop_ci95"]) for row in metric["builds"][1:]]
        limit, form, unit = metric["allowed_drop"], "{:+.3g}", chart_text(metric["name"])
        allowed = f"{limit:.3g}"
    else:
        found = [row for row in document["builds"] if row.get("drop_ci95") is not None]
        rows = [(row["precision"], row["drop_top1"], *row["drop_ci95"]) for row in found]
        limit, form, unit = document["max_drop"], "{:+.2f}", "points of top-1"
        allowed = f"{limit}"
    if not rows:
        return []

    figure = Figure("drop", 65 + 40 * len(rows))
    (axes,) = figure.axes
    for y, (_, drop, low, high) in enumerate(rows):
        colour = GOOD if drop <= limit else BAD
        axes.line([low, high], [y, y], colour, 2.5, f"interval.{y}")
        axes.dots([drop], [y], colour, 4, f"drop.{y}")
        axes.label(drop, y, form.format(drop), down=-8, halo=True)  # the line of zero ends before it
    axes.upright(0, INK, 0.8)
    axes.upright(limit, BAD, 1.2, "allowed", dashed=True)
    axes.label(limit, len(rows) - 0.25, f"allowed {allowed}", anchor="start", right=4, down=-2, colour=BAD)
    axes.x.label, axes.x.margin = f"{unit} lost against FP32, with 95 % interval", 0.18
    axes.y.ticks, axes.y.limits = [(y, row[0].upper()) for y, row in enumerate(rows)], (len(rows) - 0.2, -0.7)
    return [("Drop", figure.svg("Drop of each build with its interval"))]


def _costs(document: Document) -> list[tuple[str, str]]:
    rows = document["builds"]
    figure = Figure("costs", 43 + 29 * len(rows), columns=2)
    for axes, name, title, values, form in zip(
        figure.axes,
        ("latency", "bytes"),
        ("latency of a batch, ms", "size, kB"),
        ([row["latency_ms"] or 0 for row in rows], [row["bytes"] / 1000 for row in rows]),
        ("{:,.2f}", "{:,.1f}"),
        strict=True,
    ):
        for y, (row, value) in enumerate(zip(rows, values, strict=True)):
            colour = FP32 if row["precision"] == "fp32" else BUILD
            axes.bar((0, value), (y - 0.3, y + 0.3), colour, f"{name}.{y}")
            axes.label(value, y, form.format(value), anchor="start", right=3)
        axes.title = title
        axes.x.ticks, axes.x.line, axes.x.from_zero, axes.x.margin = [], False, True, 0.05
        axes.y.ticks, axes.y.limits = [(y, row["precision"].upper()) for y, row in enumerate(rows)], _downwards(rows)
        axes.y.named = name == "latency"
    return [("Speed and size", figure.svg("Latency and size of each build"))]


def _downwards(rows: Sized) -> tuple[float, float]:
    """Limits of an axis with a bar for each row, the first on top."""
    return len(rows) - 0.4, -0.6


def _classes(document: Document) -> list[tuple[str, str]]:
    rows = (document.get("per_class") or [])[:_BARS]
    if not rows:
        return []

    caption = f"The {len(rows)} worst classes" if len(document["per_class"]) > len(rows) else "Drop by class"
    figure = Figure("classes", 58 + 17.3 * len(rows))
    (axes,) = figure.axes
    for y, row in enumerate(rows):
        axes.bar((0, row["drop"]), (y - 0.31, y + 0.31), BAD if row["drop"] > 0 else GOOD, f"drop.{y}")
        axes.line(row["drop_ci95"], [y, y], INK, 1, f"interval.{y}")
    axes.upright(0, INK, 0.8)
    axes.x.label, axes.x.grid = "points of top-1 lost, with 95 % interval", True
    axes.y.ticks, axes.y.limits = [(y, chart_text(row["name"])) for y, row in enumerate(rows)], _downwards(rows)
    return [(caption, figure.svg(caption))]


def _confusion(document: Document) -> list[tuple[str, str]]:
    found = document.get("confusion") or {}
    matrix = found.get("matrix")
    if not matrix or not any(any(row) for row in matrix):
        return []
    size, names = len(matrix), document.get("classes") or [str(i) for i in range(len(matrix))]
    most = max(abs(value) for row in matrix for value in row)

    small = 10 if size <= 12 else 7
    figure = Figure("confusion", 353, square=True)
    (axes,) = figure.axes
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            if not value:
                continue
            colour = GOOD if (value > 0) == (i == j) else BAD
            strength = 0.15 + 0.5 * abs(value) / most
            axes.bar((j - 0.5, j + 0.5), (i - 0.5, i + 0.5), colour, f"cell.{i}.{j}", strength)
            if size <= 12:
                axes.label(j, i, f"{value:+d}", size=9 if most < 100 else 8)
    ticks = [(i, chart_text(name, 14)) for i, name in enumerate(names[:size])]
    for axis, label, limits in (
        (axes.x, "answer", (-0.5, size - 0.5)),
        (axes.y, "label" if found["against"] == "labels" else "FP32's answer", (size - 0.5, -0.5)),
    ):
        axis.label, axis.limits, axis.ticks, axis.size, axis.marks = label, limits, ticks, small, False
        axis.lines = [i + 0.5 for i in range(size)]
    axes.x.turned = True
    caption = f"{examined_name(document)}'s confusion matrix minus FP32's: red is worse, green is better"
    return [(caption, figure.svg(caption))]


def _reliability(document: Document) -> list[tuple[str, str]]:
    curves = document.get("reliability") or []
    if not curves:
        return []

    figure = Figure("reliability", 281, shares=(3, 1))
    above, below = figure.axes
    above.line([0, 100], [0, 100], GRID, 1, dashed=True)
    colours = [FP32 if curve["precision"] == "fp32" else BUILD for curve in curves]
    for place, (curve, colour) in enumerate(zip(curves, colours, strict=True)):
        sure = [row["confidence"] for row in curve["bins"]]
        right = [row["accuracy"] for row in curve["bins"]]
        above.dots(sure, right, colour, 2.5, f"curve.{place}", line=1.5)
        for i, row in enumerate(curve["bins"]):
            left = row["low"] + 1 + 4 * place
            below.bar((left, left + 4), (0, row["images"]), colour, f"images.{place}.{i}")
    above.legend([(curve["precision"].upper(), colour) for curve, colour in zip(curves, colours, strict=True)], 2.5)
    above.x.limits = below.x.limits = above.y.limits = 0, 102
    above.x.named, above.x.grid, above.y.grid = False, True, True
    below.y.from_zero = True
    above.y.label, below.x.label, below.y.label = "accuracy, %", "confidence, %", "images"
    return [("Reliability", figure.svg("Confidence against accuracy"))]


def _layers(document: Document) -> list[tuple[str, str]]:
    found = document.get("layers")
    if not found or not found["layers"]:
        return []
    counts: dict[str, dict[str, int]] = {}
    for layer in found["layers"]:
        kind = counts.setdefault(layer["type"] or "other", {})
        kind[layer["precision"]] = kind.get(layer["precision"], 0) + 1
    kinds = sorted(counts, key=lambda kind: -sum(counts[kind].values()))[:_BARS]
    precisions = list(found["precisions"]) + sorted({p for c in counts.values() for p in c} - set(found["precisions"]))
    colours = {"int8": BUILD, "fp16": GOOD, "fp32": FP32}

    figure = Figure("layers", 65 + 17.3 * max(len(kinds), 3))
    (axes,) = figure.axes
    left = [0] * len(kinds)
    for precision in precisions:
        for y, name in enumerate(kinds):
            ends = left[y], left[y] + counts[name].get(precision, 0)
            axes.bar(ends, (y - 0.325, y + 0.325), colours.get(precision, GRID), f"{precision}.{y}")
            left[y] = ends[1]
    for y, total in enumerate(left):
        axes.label(total, y, f"{total}", anchor="start", right=4)
    axes.x.label, axes.x.from_zero, axes.x.margin = "layers", True, 0.12
    axes.y.ticks, axes.y.limits = [(y, chart_text(kind)) for y, kind in enumerate(kinds)], _downwards(kinds)
    axes.legend([(precision.upper(), colours.get(precision, GRID)) for precision in precisions])
    return [("Layers by type", figure.svg("Layers by type"))]
