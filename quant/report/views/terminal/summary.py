"""A result on a terminal: a table of the builds in 80 columns, the conclusion, the next step, the report's path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calib.texts import plain_text, wrapped
from quant.report.views.headline import advice, headline, reason_says_more
from quant.report.views.names import build_names
from quant.report.views.tables import Column, value_at
from quant.settings.output_names import REPORT_HTML

Document = dict[str, Any]
WIDTH = 80  # of a table, columns
_NAME = 24  # characters of a build's name at most; of a longer one its end
_GAP = "  "
_TOLD = {"calibration": "convergence", "migration": "migration"}  # sentences of the report's parts, by what they are of

# In the order of the table. The number says which goes first where 80 columns do not hold all: the largest.
_COLUMNS = (
    (Column("Top-1 %", "top1", "{:.2f}"), 0),
    (Column("Top-5 %", "top5", "{:.2f}"), 5),
    (Column("Drop", "drop_top1", "{:+.2f}"), 0),
    (Column("95 % interval", "drop_ci95", "{0[0]:+.2f} to {0[1]:+.2f}"), 1),
    (Column("mAP 50-95", "map", "{:.2f}"), 0),
    (Column("mAP 50", "map50", "{:.2f}"), 3),
    (Column("Drop", "drop_map", "{:+.2f}"), 0),
    (Column("95 % interval", "drop_map_ci95", "{0[0]:+.2f} to {0[1]:+.2f}"), 1),
    (Column("Agree mAP 50-95", "agreement_map", "{:.2f}"), 2),
    (Column("Agree mAP 50", "agreement_map50", "{:.2f}"), 4),
    (Column("Agree %", "agreement", "{:.2f}"), 2),
    (Column("SQNR dB", "sqnr_db", "{:.1f}"), 3),
    (Column("ms", "latency_ms", "{:,.2f}"), 1),
    (Column("Speed-up", "speedup", "{:.2f}"), 4),
    (Column("Images/s", "images_per_second", "{:,.0f}"), 7),
    (Column("kB", "kilobytes", "{:,.1f}"), 6),
)


def summary_from_document(document: Document, out: Path, width: int | None = None) -> str:
    """The result of a run or a comparison for a terminal.

    Args:
        document: The report.
        out: The folder that holds it.
        width: Columns that sentences are wrapped to; None leaves each on one line, for a file or another program. The
            table never takes more than 80, and a command is never wrapped, so that it can be copied.
    """
    lines = [*table_lines(document), *_metric_lines(document), *_latency_note(document), ""]
    if reason_says_more(document):
        conclusion = [f"{document['verdict']}: {headline(document)}", f"{advice(document)}: {document['reason']}"]
    else:
        conclusion = [f"{document['verdict']}, {advice(document)}: {headline(document)}"]
    parts = {part: (document.get(key) or {}).get("text") for part, key in _TOLD.items()}
    for sentence in [*conclusion, *(f"{part}: {told}" for part, told in parts.items() if told)]:
        lines += wrapped(sentence, width)
    step = document.get("next")
    if step:
        lines += [*wrapped(f"next: {step['why']}", width), f"  {step['command']}"]
    return "\n".join([*lines, f"report: {out / REPORT_HTML}"])


def table_lines(document: Document) -> list[str]:
    """The builds side by side, in at most 80 columns; what no build has, or what does not fit, is left out."""
    rows = [row | {"kilobytes": row["bytes"] / 1000} for row in document["builds"]]
    names = build_names(document) if document.get("compared") else [row["precision"] for row in rows]
    columns = [entry for entry in _COLUMNS if any(value_at(row, entry[0].key) is not None for row in rows)]
    while True:
        table = [["Build", *(column.title for column, _ in columns)]]
        for name, row in zip(names, rows, strict=True):
            table.append([_tail(name), *(_text(row, column) for column, _ in columns)])
        widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
        if sum(widths) + len(_GAP) * (len(widths) - 1) <= WIDTH or not any(rank for _, rank in columns):
            break
        columns.remove(max(columns, key=lambda entry: entry[1]))
    return [
        _GAP.join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in table
    ]


def _text(row: Document, column: Column) -> str:
    value = value_at(row, column.key)
    return "-" if value is None else column.form.format(value)


def _tail(name: str) -> str:
    """The end of a name, which says more of a path, where it is long."""
    line = plain_text(name)
    return line if len(line) <= _NAME else f"…{line[1 - _NAME :]}"


def _metric_lines(document: Document) -> list[str]:
    """What the user's own metric says of each build; the table shows that of detections."""
    metric = document.get("metric")
    if not metric or document.get("detection"):
        return []
    names = build_names(document) if document.get("compared") else [row["precision"] for row in document["builds"]]
    lines = []
    for name, build in list(zip(names, metric["builds"], strict=False))[1:]:
        low, high = build["drop_ci95"]
        lines.append(
            f"{metric['name']} of {_tail(name)}: {build['score']:.6g}, drop {build['drop']:+.4g} "
            f"(95 % CI {low:+.4g} to {high:+.4g})"
        )
    return lines


def _latency_note(document: Document) -> list[str]:
    """What the latencies are of, and on a CPU that they are no forecast for a GPU."""
    row = document["builds"][0]
    if row.get("latency_ms") is None:
        return []
    on_cpu = (document.get("backend") or {}).get("name") == "onnxruntime"
    where = " on this CPU; that is no forecast for a GPU" if on_cpu else ""
    return [f"ms: a batch of {row['latency_batch']}{where}"]


def text_from_timings(document: Document) -> str:
    """Where a run's time went: seconds by stage, those within a stage below it, and when each began and ended."""
    lines = ["seconds by stage (of threads: theirs together), and when it began and ended"]
    for stage, seconds in document["timings"].items():
        outer, _, inner = stage.partition(": ")
        span = document["timeline"].get(stage)
        moments = f"{span[0]:9.2f}{span[1]:9.2f}" if span is not None else " " * 18
        lines.append(f"{seconds:9.2f}{moments}  {'  ' + inner if inner else outer}")
    return "\n".join(lines)
