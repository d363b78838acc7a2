"""The report's sections on detection."""

from __future__ import annotations

from typing import Any

from quant.report.views import tables
from quant.report.views.names import baseline_name, build_names, examined_name
from quant.report.views.parts import Picture, Section
from quant.report.views.tables import Cell, Column, Table

Document = dict[str, Any]
_FIGURES = (
    Column("Build", "precision"),
    Column("mAP 50-95", "score", "{:.2f}"),
    Column("mAP 50", "map50", "{:.2f}"),
    Column("mAP 75", "map75", "{:.2f}"),
    Column("small", "map_small", "{:.2f}"),
    Column("medium", "map_medium", "{:.2f}"),
    Column("large", "map_large", "{:.2f}"),
)
_HEADS = (
    Column("Head in", "head"),
    Column("mAP 50-95", "score", "{:.2f}"),
    Column("mAP 50", "map50", "{:.2f}"),
    Column("Drop", "drop", "{:+.2f}"),
    Column("Drop's 95 % CI", "drop_ci95", "{0[0]:+.2f} to {0[1]:+.2f}"),
    Column("Latency, ms", "latency_ms", "{:,.2f}"),
    Column("Speed-up", "speedup", "{:.2f}"),
)
_POINTS = (
    ("At a threshold of {threshold:g}", "usual"),
    ("At the best F1", "best"),
    ("With {baseline}'s recall", "keeping"),
)
_FIGURES_AT = (
    ("Threshold", "threshold", "{:.3f}"),
    ("Precision %", "precision", "{:.1f}"),
    ("Recall %", "recall", "{:.1f}"),
    ("F1 %", "f1", "{:.1f}"),
)


def detection_sections(document: Document) -> list[Section]:
    """Mean average precision by build, size and class; confidence; the head in float and in INT8."""
    found = document.get("detection")
    if not found:
        return []
    return [
        _precision(document, found),
        *_classes(document, found),
        _confidence(document, found),
        *_head(found),
        *_changes(document, found),
    ]


def _precision(document: Document, found: Document) -> Section:
    metric, baseline = document["metric"], baseline_name(document)
    rows = [{**row, "precision": name} for row, name in zip(found["builds"], build_names(document), strict=True)]
    notes = [f"Read as {found['head']}."]
    if found["counts_as_labels"]:
        notes.append("The model counts its classes by the numbers that the labels' file gives them, gaps included.")
    if found["against"] == "labels":
        notes.append(
            f"COCO's mean average precision, per cent, of {found['objects']:,} labelled objects in "
            f"{found['images']:,} images; small is below 32x32 pixels, large above 96x96. The interval of a drop is a "
            f"paired bootstrap over images of {metric['resamples']:,} resamples, seed {metric['seed']}."
        )
    else:
        notes.append(
            f"There are no labels: the {found['objects']:,} detections of {baseline} with a score of at least "
            f"{found['shown_from']:g} count as right, so this is agreement, not accuracy."
        )
    table = tables.turned_table(rows, "detection.builds", _FIGURES, build_names(document))
    return Section(found["score"], "detection", notes, [("", table)])


def _classes(document: Document, found: Document) -> list[Section]:
    rows, names = found["classes"], build_names(document)
    if not rows:
        return []
    examined = examined_name(document)
    place = names.index(examined) if examined in names else len(names) - 1
    order = sorted(range(len(rows)), key=lambda i: -(rows[i]["drop"][place] or 0))
    shown = (0, place) if place else (0,)
    titles = ["Class", "Objects", *(names[k] for k in shown), "Drop"]
    lines = []
    for i in order:
        row, key = rows[i], f"detection.classes.{i}"
        precisions = [tables.figure(row["ap"][k], "{:.2f}", f"{key}.ap.{k}") for k in shown]
        lines.append(
            [
                Cell(row["name"], f"{key}.name", is_name=True),
                Cell(f"{row['objects']:,}", f"{key}.objects"),
                *precisions,
                tables.figure(row["drop"][place], "{:+.2f}", f"{key}.drop.{place}"),
            ]
        )
    table = Table(titles, lines, shown=20, what="classes")
    return [Section(f"{found['score']} by class, worst first", "detection-classes", tables=[("", table)])]


def _confidence(document: Document, found: Document) -> Section:
    """Precision and recall at thresholds that matter."""
    names, baseline = build_names(document), baseline_name(document)
    notes = [
        "Precision and recall of all classes at an overlap of 0.50. Where INT8 shifts scores, another threshold keeps "
        f"the recall that {baseline} has at {found['threshold']:g}; none is given where no threshold does."
    ]
    shown = []
    for title, key in _POINTS:
        caption = title.format(threshold=found["threshold"], baseline=baseline)
        rows = [row[key] or {} for row in found["confidence"]]
        lines = [
            [
                Cell(what),
                *(
                    tables.figure(at.get(part), form, f"detection.confidence.{i}.{key}.{part}")
                    for i, at in enumerate(rows)
                ),
            ]
            for what, part, form in _FIGURES_AT
        ]
        shown.append((caption, Table(["", *names], lines, brief=len(lines))))
    return Section("Confidence before and after", "confidence", notes, shown)


def _head(found: Document) -> list[Section]:
    head = found.get("head_kept")
    if not head or not head["nodes"] + head["builds"]:
        return []
    listed = ", ".join(head["nodes"][:12]) + (", ..." if len(head["nodes"]) > 12 else "")
    notes = [
        f"{len(head['nodes'])} products of the head stay float in INT8: {listed}."
        if head["kept"] == "float"
        else "The head is in INT8 (--head int8)."
    ]
    shown = []
    if head["builds"]:
        notes.append("Both were built and measured on the same images; --head chooses.")
        heads = [f"head in {row['head'].upper() if row['head'] == 'int8' else row['head']}" for row in head["builds"]]
        shown = [("", tables.turned_table(head["builds"], "detection.head_kept.builds", _HEADS, heads))]
    return [Section("The head in float and in INT8", "head", notes, shown)]


def _changes(document: Document, found: Document) -> list[Section]:
    """The images on which detections changed most, with the boxes."""
    rows = found["changed"]
    if not rows:
        return []
    baseline, build = baseline_name(document), examined_name(document)
    pictures = []
    for i, row in enumerate(rows):
        key = f"detection.changed.{i}"
        facts = [(kind, Cell(f"{row[kind]:,}", f"{key}.{kind}")) for kind in ("lost", "gained", "moved")]
        pictures.append(Picture(key, Cell(row["file"], f"{key}.file", is_name=True), facts))
    titles = ["Image", *(title for title, _ in pictures[0].facts)]
    table = Table(titles, [[each.file, *(cell for _, cell in each.facts)] for each in pictures], what="images")
    notes = [
        f"Boxes with a score of at least {found['shown_from']:g} on the images where they changed most. Red: "
        f"{baseline} finds it, {build} does not. Green: the reverse. Yellow: it moved, from the thin box to the thick "
        "one."
    ]
    return [Section("Detections that changed", "detection-changes", notes, [("", table)], pictures=pictures)]
