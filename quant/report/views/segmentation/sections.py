"""The report's sections on segmentation."""

from __future__ import annotations

from typing import Any

from quant.report.views import tables
from quant.report.views.names import baseline_name, build_names, examined_name
from quant.report.views.parts import Picture, Section
from quant.report.views.tables import Cell, Column, Table

Document = dict[str, Any]
_FIGURES = (
    Column("Build", "precision"),
    Column("mIoU %", "miou", "{:.2f}"),
    Column("Pixels right %", "pixel_accuracy", "{:.2f}"),
    Column("Pixels as in {baseline} %", "pixel_agreement", "{:.2f}"),
)


def segmentation_sections(document: Document) -> list[Section]:
    """Overlap by build and by class, and the images whose maps changed most."""
    found = document.get("segmentation")
    if not found:
        return []
    return [_overlap(document, found), *_classes(document, found), *_changes(document, found)]


def _overlap(document: Document, found: Document) -> Section:
    metric, baseline, names = document["metric"], baseline_name(document), build_names(document)
    rows = [{**row, "precision": name} for row, name in zip(found["builds"], names, strict=True)]
    notes = [f"Read as {found['head']}."]
    if found["masks"]:
        notes.append(f"{found['masks'][0].upper()}{found['masks'][1:]}.")
    bootstrap = (
        f"The interval of a drop is a paired bootstrap over images of {metric['resamples']:,} resamples, seed "
        f"{metric['seed']}."
    )
    if found["against"] == "labels":
        notes.append(
            "Intersection over union, per cent, of the pixels of all images together, and its mean over the classes; "
            f"masks are compared at the size of the model's input. {bootstrap}"
        )
    else:
        notes.append(
            f"There are no masks: {baseline}'s maps count as right, so this is agreement, not accuracy. {bootstrap}"
        )
    table = tables.turned_table(rows, "segmentation.builds", tables.titled(_FIGURES, baseline=baseline), names)
    return Section("Overlap of the maps", "segmentation", notes, [("", table)])


def _classes(document: Document, found: Document) -> list[Section]:
    rows, names = found["classes"], build_names(document)
    if not rows:
        return []
    examined = examined_name(document)
    place = names.index(examined) if examined in names else 0
    order = sorted(range(len(rows)), key=lambda i: (-(rows[i]["drop"][place] or 0), i))
    shown = (0, place) if place else (0,)
    titles = ["Class", "Pixels", *(f"{names[k]} %" for k in shown), *(["Drop", "95 % CI"] if place else [])]
    lines = []
    for i in order:
        row, key = rows[i], f"segmentation.classes.{i}"
        cells = [Cell(row["name"], f"{key}.name", is_name=True), Cell(f"{row['pixels']:,}", f"{key}.pixels")]
        cells += [tables.figure(row["iou"][k], "{:.2f}", f"{key}.iou.{k}") for k in shown]
        if place:
            cells.append(tables.figure(row["drop"][place], "{:+.2f}", f"{key}.drop.{place}"))
            cells.append(tables.figure(row["drop_ci95"][place], "{0[0]:.2f} to {0[1]:.2f}", f"{key}.drop_ci95.{place}"))
        lines.append(cells)
    table = Table(titles, lines, shown=20, what="classes")
    title = "IoU by class, worst drop first" if place else "IoU by class"
    return [Section(title, "segmentation-classes", tables=[("", table)])]


def _changes(document: Document, found: Document) -> list[Section]:
    rows = found["changed"]
    if not rows:
        return []
    baseline, build = baseline_name(document), examined_name(document)
    if found["against"] == "labels":
        colours = (
            f"Red: right in {baseline}, wrong in {build}. Green: the reverse. Yellow: another class, wrong in both."
        )
    else:
        colours = f"Yellow: another class than {baseline}'s."
    pictures = []
    for i, row in enumerate(rows):
        key = f"segmentation.changed.{i}"
        facts = [("changed %", tables.figure(row["changed"], "{:.2f}", f"{key}.changed"))]
        if row["lost"] is not None:
            facts += [(f"{kind} %", tables.figure(row[kind], "{:.2f}", f"{key}.{kind}")) for kind in ("lost", "won")]
        pictures.append(Picture(key, Cell(row["file"], f"{key}.file", is_name=True), facts))
    titles = ["Image", *(title for title, _ in pictures[0].facts)]
    table = Table(titles, [[each.file, *(cell for _, cell in each.facts)] for each in pictures], what="images")
    notes = [f"The images whose maps changed most, in pixels of those that count. {colours}"]
    return [Section("Maps that changed", "map-changes", notes, [("", table)], pictures=pictures)]
