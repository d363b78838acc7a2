"""The report as JSON and HTML, and as a table for terminals; every text that comes from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from calib.texts import plain_lines, whole_characters
from quant.report.views import tables
from quant.report.views.charts import charts_from_document
from quant.report.views.headline import advice, headline, reason_says_more
from quant.report.views.names import build_names
from quant.report.views.sections import Document, sections_from_document
from quant.settings.output_names import REPORT_HTML

_LEFT_OUT = ("lost", "won", "size_ratio", "agreement_ci95")


def json_from_document(document: Document) -> str:
    """The contents of report.json."""
    return json.dumps(whole_characters(document), indent=1, allow_nan=False) + "\n"


def table_from_document(document: Document) -> tuple[list[str], list[list[str]]]:
    """The builds side by side: column titles, then a row of texts per build, without columns that no build fills."""
    columns = [column for column in tables.columns_of_builds(document) if column.key not in _LEFT_OUT]
    table = tables.table_from_rows(document["builds"], "builds", columns)
    names = build_names(document) if document.get("compared") else [row["precision"] for row in document["builds"]]
    return list(table.titles), [
        [name, *(cell.text for cell in row[1:])] for name, row in zip(names, table.rows, strict=True)
    ]


def summary_from_document(document: Document, out: Path) -> str:
    """The result for a terminal: a table of the builds, the conclusion and the report's path."""
    titles, rows = table_from_document(document)
    names = [row[0] for row in rows]
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [titles, *rows]]
    metric = document.get("metric")
    metric = None if metric and metric.get("task") else metric  # the table shows a task's
    for name, build in list(zip(names, (metric or {"builds": []})["builds"], strict=False))[1:]:
        low, high = build["drop_ci95"]
        lines.append(
            f"{metric['name'] if metric else ''} of {name}: {build['score']:.6g}, drop {build['drop']:+.4g} "
            f"(95 % CI {low:+.4g} to {high:+.4g})"
        )
    lines += ["", f"{document['verdict']}: {headline(document)}"]
    lines += [f"{advice(document)}: {document['reason']}", f"report: {out / REPORT_HTML}"]
    return "\n".join(lines)


def html_from_document(document: Document, thumbnails: Mapping[str, str] | None = None) -> str:
    """The contents of report.html: one file that loads nothing from elsewhere.

    Args:
        document: The report.
        thumbnails: Data URIs of images by name, see `flipped_files`, and by place, see `changed_files`.
    """
    import jinja2
    import markupsafe

    template = resources.files("quant.report.views").joinpath("report.html.j2").read_text(encoding="utf-8")
    style = resources.files("quant.report.views").joinpath("report.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_plain
    )
    charts = charts_from_document(document)
    return environment.from_string(template).render(
        document=document,
        headline=headline(document),
        advice=advice(document),
        why=reason_says_more(document),
        style=markupsafe.Markup(style),
        sections=sections_from_document(document),
        charts={
            anchor: [(caption, markupsafe.Markup(svg)) for caption, svg in group] for anchor, group in charts.items()
        },
        thumbnails=thumbnails or {},
    )


def _plain(value: object) -> object:
    """What the page shows: texts without commands; our own markup as it is."""
    import markupsafe

    return plain_lines(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


def flipped_files(document: Document) -> list[str]:
    """Names of the images whose pictures the HTML shows as they are."""
    cards = (card for section in sections_from_document(document) for _, group in section.cards for card in group)
    return [card.file.text for card in cards]


def changed_files(document: Document) -> dict[str, str]:
    """Names of the images on which the HTML shows what changed, by the place of that in report.json."""
    sections = sections_from_document(document)
    return {picture.key: picture.file.text for section in sections for picture in section.pictures}
