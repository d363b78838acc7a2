"""The report's section on tasks that have neither maps nor boxes."""

from __future__ import annotations

from typing import Any

from quant.report.views import tables
from quant.report.views.names import baseline_name, build_names
from quant.report.views.parts import Section
from quant.report.views.tables import Cell, Column, Table

Document = dict[str, Any]


def scores_sections(document: Document) -> list[Section]:
    """Figures by build, the parts of the answers, and the images on which the examined build is worst."""
    found = document.get("scores")
    if not found:
        return []
    names = build_names(document)
    shown = [("", _figures(found, names)), *_parts(found, names), *_worst(found)]
    return [Section(_title(found), "scores", _notes(document, found), shown)]


def _title(found: Document) -> str:
    title: str = found["score"][0].upper() + found["score"][1:]
    return title


def _notes(document: Document, found: Document) -> list[str]:
    metric, baseline = document["metric"], baseline_name(document)
    notes = [f"Read as {found['text']}."]
    if found["against"] == "fp32":
        notes.append(
            f"There are no labels: what {baseline} answers counts as right, so this is agreement, not accuracy."
        )
    notes.append(
        f"The interval of a {'drop' if found['against'] == 'labels' else 'difference'} is a paired bootstrap over "
        f"{found['images']:,} images of {metric['resamples']:,} resamples, seed {metric['seed']}."
    )
    return notes


def _figures(found: Document, names: list[str]) -> Table:
    columns = [Column("Build", "precision")]
    columns += [Column(each["title"], each["key"], f"{{:.{each['digits']}f}}") for each in found["figures"]]
    rows = [{**row, "precision": name} for row, name in zip(found["builds"], names, strict=True)]
    return tables.turned_table(rows, "scores.builds", columns, names)


def _parts(found: Document, names: list[str]) -> list[tuple[str, Table]]:
    rows = found["parts"]["rows"]
    if not rows:
        return []
    counted = "images" in rows[0]
    lines = []
    for i, row in enumerate(rows):
        key = f"scores.parts.rows.{i}"
        cells = [Cell(row["name"], f"{key}.name", is_name=True)]
        cells += [Cell(f"{row['images']:,}", f"{key}.images")] if counted else []
        cells += [tables.figure(value, "{:.5g}", f"{key}.values.{k}") for k, value in enumerate(row["values"])]
        lines.append(cells)
    titles = [found["parts"]["what"], *(["Images"] if counted else []), *names]
    return [("", Table(titles, lines, shown=20, what="rows"))]


def _worst(found: Document) -> list[tuple[str, Table]]:
    if not found["worst"]:
        return []
    columns = (tables.name_column("Image", "file"), Column(found["worst_title"], "value", "{:.5g}"))
    return [("Images, the worst first", tables.table_from_rows(found["worst"], "scores.worst", columns, shown=12))]
