"""The report's charts, each made only from the document; a chart without data is left out.

Shapes that show a value have an id that names it (`value.drop.1`: the second row's drop), so that tests can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from quant.report.views.detection.charts import f1_by_threshold, precision_recall, score_histogram
from quant.report.views.names import baseline_name, build_names, examined_name
from quant.report.views.sections import Document
from quant.report.views.sensitivity import draw_sensitivity
from quant.report.views.svg import BAD, BUILD, FP32, GOOD, GRID, INK, PAPER, chart_text, plain_ticks, svg_from_drawing
from quant.report.views.tensor_charts import histogram_charts, overview_chart

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_BARS = 20  # classes, types of layers


def charts_from_document(document: Document) -> dict[str, list[tuple[str, str]]]:
    """Captions and SVGs by the anchor of the section they belong to."""
    makers: dict[str, tuple[Callable[[Document], list[tuple[str, str]]], ...]] = {
        "builds": (_drops, _costs),
        "classes": (_classes,),
        "detection": (precision_recall,),
        "confidence": (f1_by_threshold, score_histogram),
        "confusion": (_confusion,),
        "reliability": (_reliability,),
        "recovery": (_sensitivity,),
        "convergence": (_convergence,),
        "tensors": (overview_chart, histogram_charts),
        "layers": (_layers,),
    }
    return {anchor: [chart for make in group for chart in make(document)] for anchor, group in makers.items()}


def _drops(document: Document) -> list[tuple[str, str]]:
    """Drops of what decides the verdict: the user's metric if there is one, else top-1."""
    metric, names = document.get("metric"), build_names(document)
    if metric and metric["allowed_drop"] is None:
        return []  # agreement is no accuracy, so there is no limit for it
    if metric:
        rows = [
            (name, row["drop"], *row["drop_ci95"]) for name, row in zip(names[1:], metric["builds"][1:], strict=True)
        ]
        limit, form, unit = metric["allowed_drop"], "{:+.3g}", chart_text(metric["name"])
        allowed = f"{limit:.3g}"
    else:
        found = [(name, row) for name, row in zip(names, document["builds"], strict=True) if row.get("drop_ci95")]
        rows = [(name, row["drop_top1"], *row["drop_ci95"]) for name, row in found]
        limit, form, unit = document["max_drop"], "{:+.2f}", "points of top-1"
        allowed = f"{limit}"
    if not rows:
        return []

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, (_, drop, low, high) in enumerate(rows):
            colour = GOOD if drop <= limit else BAD
            (line,) = axes.plot([low, high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
            (dot,) = axes.plot([drop], [y], "o", color=colour, markersize=7)
            line.set_gid(f"value.interval.{y}")
            dot.set_gid(f"value.drop.{y}")
            axes.annotate(
                form.format(drop),
                (drop, y),
                (0, 8),
                textcoords="offset points",
                ha="center",
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},  # hides the zero line behind the text
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.axvline(limit, color=BAD, linewidth=1.2, linestyle="--").set_gid("value.allowed")
        axes.text(limit, len(rows) - 0.25, f" allowed {allowed}", ha="left", va="bottom", color=BAD)
        axes.set_yticks(range(len(rows)), [chart_text(row[0]) for row in rows])
        axes.set_ylim(len(rows) - 0.2, -0.7)
        axes.margins(x=0.18)
        axes.set_xlabel(f"{unit} lost against {chart_text(names[0])}, with 95 % interval")

    return [("Drop", svg_from_drawing("drop", 0.9 + 0.55 * len(rows), draw, "Drop of each build with its interval"))]


def _name(artists: Iterable[Artist], what: str) -> None:
    """Give each artist its id."""
    for i, artist in enumerate(artists):
        artist.set_gid(f"value.{what}.{i}")


def _sensitivity(document: Document) -> list[tuple[str, str]]:
    rows = (document.get("recovery") or {}).get("sensitivity")
    if not rows:
        return []

    def draw(figure: Figure) -> None:
        draw_sensitivity(figure.subplots(), rows, (BUILD, GOOD))

    caption = "Sensitivity of products: blue is computed in INT8, green in float"
    return [(caption, svg_from_drawing("sensitivity", 0.9 + 0.24 * min(len(rows), _BARS), draw, caption))]


def _costs(document: Document) -> list[tuple[str, str]]:
    rows = document["builds"]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        labels = [chart_text(name) for name in build_names(document)]
        colours = [FP32, *[BUILD] * (len(rows) - 1)]
        for axes, title, values, form in (
            (left, "latency of a batch, ms", [row["latency_ms"] or 0 for row in rows], "{:,.2f}"),
            (right, "size, kB", [row["bytes"] / 1000 for row in rows], "{:,.1f}"),
        ):
            bars = axes.barh(range(len(rows)), values, color=colours, height=0.6)
            _name(bars, "latency" if axes is left else "bytes")
            axes.bar_label(bars, [form.format(value) for value in values], padding=3)
            axes.set_title(title)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            axes.margins(x=0.35)
        left.set_yticks(range(len(rows)), labels)
        left.invert_yaxis()

    return [
        ("Speed and size", svg_from_drawing("costs", 0.6 + 0.4 * len(rows), draw, "Latency and size of each build"))
    ]


def _classes(document: Document) -> list[tuple[str, str]]:
    rows = (document.get("per_class") or [])[:_BARS]
    if not rows:
        return []

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, row in enumerate(rows):
            low, high = row["drop_ci95"]
            (bar,) = axes.barh(y, row["drop"], color=BAD if row["drop"] > 0 else GOOD, height=0.62)
            (line,) = axes.plot([low, high], [y, y], color=INK, linewidth=1)
            bar.set_gid(f"value.drop.{y}")
            line.set_gid(f"value.interval.{y}")
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [chart_text(row["name"]) for row in rows])
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set_xlabel("points of top-1 lost, with 95 % interval")

    caption = f"The {len(rows)} worst classes" if len(document["per_class"]) > len(rows) else "Drop by class"
    return [(caption, svg_from_drawing("classes", 0.8 + 0.24 * len(rows), draw, caption))]


def _confusion(document: Document) -> list[tuple[str, str]]:
    found = document.get("confusion") or {}
    matrix = found.get("matrix")
    if not matrix or not any(any(row) for row in matrix):
        return []
    size, names = len(matrix), document.get("classes") or [str(i) for i in range(len(matrix))]
    most = max(abs(value) for row in matrix for value in row)

    def draw(figure: Figure) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.subplots()
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if not value:
                    continue
                colour = GOOD if (value > 0) == (i == j) else BAD
                strength = 0.15 + 0.5 * abs(value) / most
                cell = Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=strength, linewidth=0)
                axes.add_patch(cell).set_gid(f"value.cell.{i}.{j}")
                if size <= 12:
                    axes.text(j, i, f"{value:+d}", ha="center", va="center", fontsize=9 if most < 100 else 8)
        labels = [chart_text(name, 14) for name in names[:size]]
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal", xlabel="answer")
        axes.set_ylabel("label" if found["against"] == "labels" else f"{chart_text(baseline_name(document))}'s answer")
        small = 10 if size <= 12 else 7
        axes.set_xticks(range(size), labels, rotation=90, fontsize=small)
        axes.set_yticks(range(size), labels, fontsize=small)
        axes.set_xticks([i + 0.5 for i in range(size)], minor=True)
        axes.set_yticks([i + 0.5 for i in range(size)], minor=True)
        axes.grid(which="minor")
        axes.tick_params(which="both", length=0)

    caption = (
        f"{examined_name(document)}'s confusion matrix minus {baseline_name(document)}'s: red is worse, green is better"
    )
    return [(caption, svg_from_drawing("confusion", 4.9, draw, caption))]


def _reliability(document: Document) -> list[tuple[str, str]]:
    curves = document.get("reliability") or []
    if not curves:
        return []
    names = (baseline_name(document), examined_name(document))

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        above.plot([0, 100], [0, 100], color=GRID, linestyle="--", linewidth=1)
        for place, curve in enumerate(curves):
            colour = BUILD if place else FP32
            sure = [row["confidence"] for row in curve["bins"]]
            right = [row["accuracy"] for row in curve["bins"]]
            (line,) = above.plot(sure, right, "o-", color=colour, markersize=4, label=chart_text(names[place]))
            line.set_gid(f"value.curve.{place}")
            left = [row["low"] + 1 + 4 * place for row in curve["bins"]]
            bars = below.bar(left, [row["images"] for row in curve["bins"]], width=4, align="edge", color=colour)
            _name(bars, f"images.{place}")
        above.set(ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
        above.legend(loc="upper left")
        above.grid()
        below.set(xlabel="confidence, %", ylabel="images")

    return [("Reliability", svg_from_drawing("reliability", 3.9, draw, "Confidence against accuracy"))]


def _convergence(document: Document) -> list[tuple[str, str]]:
    """The largest and the median move of a scale over the images, and the drop's interval beside it."""
    found = document.get("convergence")
    if not found or not found["scales"]:
        return []
    scales, verdict = found["scales"], found["verdict"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2 if verdict else 1, squeeze=False)[0]
        images = [row["images"] for row in scales]
        for place, (key, colour, label) in enumerate((("largest", BUILD, "largest"), ("median", FP32, "median"))):
            values = [max(row[key], 0.01) for row in scales]  # a logarithmic axis has no zero
            (line,) = axes[0].plot(images, values, "o-", color=colour, markersize=4, label=label)
            line.set_gid(f"value.moves.{place}")
        axes[0].axhline(1, color=GOOD, linestyle="--", linewidth=1)
        axes[0].set(yscale="log", xlabel="calibration images", title="scales moved until the end, %")
        plain_ticks(axes[0].yaxis)
        axes[0].set_xlim(0, found["images"])
        axes[0].legend(loc="upper right")
        if verdict:
            counts = [row["images"] for row in verdict]
            low, high = ([row["interval"][end] for row in verdict] for end in (0, 1))
            axes[1].fill_between(counts, low, high, color=BUILD, alpha=0.2, linewidth=0).set_gid("value.band")
            (line,) = axes[1].plot(counts, [row["value"] for row in verdict], "o-", color=BUILD, markersize=4)
            line.set_gid("value.verdict")
            dropped = verdict[0]["figure"] == "drop"
            if dropped:
                axes[1].axhline(document["max_drop"], color=BAD, linestyle="--", linewidth=1)
            axes[1].set(xlabel="evaluated images", title="drop, points" if dropped else "agreement, %")
            axes[1].set_xlim(left=0)

    return [("Convergence", svg_from_drawing("convergence", 2.4, draw, "Scales and verdict over the images"))]


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

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = [0] * len(kinds)
        for precision in precisions:
            values = [counts[kind].get(precision, 0) for kind in kinds]
            colour = colours.get(precision, GRID)
            bars = axes.barh(range(len(kinds)), values, left=left, color=colour, height=0.65, label=precision.upper())
            _name(bars, precision)
            left = [a + b for a, b in zip(left, values, strict=True)]
        for y, total in enumerate(left):
            axes.annotate(f"{total}", (total, y), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(kinds)), [chart_text(kind) for kind in kinds])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("layers")
        axes.legend(loc="lower right")

    return [("Layers by type", svg_from_drawing("layers", 0.9 + 0.24 * max(len(kinds), 3), draw, "Layers by type"))]
