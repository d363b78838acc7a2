"""The report as JSON and HTML, and as a table for terminals. Every text that comes from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from quant.report import tables
from quant.report.charts import charts_from_document
from quant.report.headline import headline, reason_says_more
from quant.report.sections import Document, sections_from_document

_COLUMNS = tuple(column for column in tables.BUILDS if column.key not in ("lost", "won", "size_ratio"))


def json_from_document(document: Document) -> str:
    """report.json."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def table_from_document(document: Document) -> tuple[list[str], list[list[str]]]:
    """The builds side by side: column titles, then a row of texts a build. Columns that no build fills are left out."""
    table = tables.table_from_rows(document["builds"], "builds", _COLUMNS)
    return list(table.titles), [[cell.text for cell in row] for row in table.rows]


def summary_from_document(document: Document, out: Path) -> str:
    """The result for a terminal: a table of the builds, the conclusion, the report's path."""
    titles, rows = table_from_document(document)
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [titles, *rows]]
    for build in (document.get("metric") or {"builds": []})["builds"][1:]:
        low, high = build["drop_ci95"]
        lines.append(
            f"{document['metric']['name']} of {build['precision']}: {build['score']:.6g}, drop {build['drop']:+.4g} "
            f"(95 % CI {low:+.4g} to {high:+.4g})"
        )
    lines += ["", f"{document['verdict']}: {headline(document)}"]
    lines += [f"use {document['chosen'].upper()}: {document['reason']}", f"report: {out / 'report.html'}"]
    return "\n".join(lines)


def html_from_document(document: Document, thumbnails: Mapping[str, str] | None = None) -> str:
    """report.html: one file, nothing loaded from elsewhere.

    Args:
        document: The report.
        thumbnails: Data URIs of images by name, see `flipped_files`.
    """
    import jinja2
    import markupsafe

    template = resources.files("quant.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    style = resources.files("quant.report").joinpath("report.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    charts = charts_from_document(document)
    return environment.from_string(template).render(
        document=document,
        headline=headline(document),
        why=reason_says_more(document),
        style=markupsafe.Markup(style),
        sections=sections_from_document(document),
        charts={
            anchor: [(caption, markupsafe.Markup(svg)) for caption, svg in group] for anchor, group in charts.items()
        },
        thumbnails=thumbnails or {},
    )


def flipped_files(document: Document) -> list[str]:
    """Names of the images that the HTML shows a picture of."""
    cards = (card for section in sections_from_document(document) for _, group in section.cards for card in group)
    return [card.file.text for card in cards]
