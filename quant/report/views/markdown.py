"""The report as Markdown, for a pull request: the same sections without pictures, with long tables cut short."""

from __future__ import annotations

import re

from quant.report.views.headline import advice, headline, reason_says_more
from quant.report.views.parts import Section
from quant.report.views.provenance_facts import Fact
from quant.report.views.sections import Document, sections_from_document
from quant.report.views.tables import Cell, Table


def markdown_from_document(document: Document) -> str:
    """The contents of report.md."""
    lines = [
        f"# INT8 calibration: {document['verdict']}, {escaped(advice(document))}",
        "",
        escaped(headline(document)),
        *(["", escaped(document["reason"]) + "."] if reason_says_more(document) else []),
    ]
    for section in sections_from_document(document):
        lines += ["", f"## {escaped(section.title)}", *_body(section)]
    return "\n".join(lines) + "\n"


def _body(section: Section) -> list[str]:
    lines: list[str] = []
    for note in section.notes:
        lines += ["", escaped(note)]
    if section.facts:
        lines += ["", *(f"- **{escaped(fact.title)}**: {_values(fact)}" for fact in section.facts)]
    for caption, table in section.tables:
        lines += ["", *([f"{escaped(caption)}:", ""] if caption else []), *_table(table)]
    if section.lines:
        lines += ["", *(f"- {escaped(cell.text)}" for cell in section.lines)]
    if section.code is not None:
        lines += ["", *_fenced(section.code)]
    return lines


def _values(fact: Fact) -> str:
    return "; ".join(" ".join(filter(None, (escaped(name), escaped(cell.text)))) for name, cell in fact.values)


def _table(table: Table) -> list[str]:
    rows = [[escaped(cell.text) for cell in row] for row in table.rows[: table.brief]]
    lines = ["| " + " | ".join(escaped(title) for title in table.titles) + " |", "|" + "---|" * len(table.titles)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    left = len(table.rows) - len(rows)
    return [*lines, "", f"{left:,} more {table.what} in report.json."] if left else lines


def _fenced(cell: Cell) -> list[str]:
    """A code block that the text cannot end."""
    longest = max((len(run) for run in re.findall("`+", cell.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *cell.text.splitlines(), fence]


def escaped(text: str) -> str:
    """Markdown that shows a text as it is, on one line."""
    marked = "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in " ".join(text.split()))
    return marked.replace("&", "&amp;")
