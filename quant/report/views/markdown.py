"""The report as Markdown, for a pull request: the same sections without pictures, with long tables cut short."""

from __future__ import annotations

import re

from calib.texts import plain_lines, plain_text
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
    return [fence, *plain_lines(cell.text).split("\n"), fence]


# GitHub and others turn these into links, mentions or pictures, even behind a backslash.
_LIVE = re.compile(r":(?=//)|(?i:\bwww)(?=\.)|[@#](?=\w)|(?i:\bgh-)(?=\d)|:(?=[a-z+-][\w+-]*:)")
_NOTHING = "<!-- -->"
_LIST = re.compile(r"[-+](?=\s|$)|[-=]+$|(\d+)[.)](?=\s|$)")  # begins a list, or is a line, where it comes first


def escaped(text: str) -> str:
    """Markdown that shows a text as it is, on one line, and makes no link of it."""
    line, shown, start = plain_text(re.sub(r"[ \t\r\n]+", " ", text).strip()), "", 0
    for live in _LIVE.finditer(line):
        shown += _marked(line[start : live.end()]) + _NOTHING
        start = live.end()
    shown += _marked(line[start:])
    first = _LIST.match(shown)
    place = len(first[1] or "") if first else 0
    return f"{shown[:place]}\\{shown[place:]}" if first else shown


def _marked(text: str) -> str:
    marked = "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in text)
    return marked.replace("&", "&amp;")
