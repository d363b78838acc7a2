"""The report as JSON, Markdown and HTML. Every text that comes from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from quant.report.document import Document, headline

_COLUMNS = (
    ("precision", "Build", "{}"),
    ("top1", "Top-1 %", "{:.2f}"),
    ("top5", "Top-5 %", "{:.2f}"),
    ("drop_top1", "Drop, points", "{:+.2f}"),
    ("drop_ci95", "Drop's 95 % CI", "{0[0]:+.2f} to {0[1]:+.2f}"),
    ("agreement", "Agreement %", "{:.2f}"),
    ("sqnr_db", "SQNR, dB", "{:.1f}"),
    ("latency_ms", "Latency, ms", "{:.2f}"),
    ("images_per_second", "Images/s", "{:,.0f}"),
    ("speedup", "Speed-up", "{:.2f}"),
    ("bytes", "Bytes", "{:,}"),
)


def json_from_document(document: Document) -> str:
    """report.json."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def table_from_document(document: Document) -> tuple[list[str], list[list[str]]]:
    """The builds side by side: column titles, then a row of texts a build. Columns that no build fills are left out."""
    columns = [column for column in _COLUMNS if any(build.get(column[0]) is not None for build in document["builds"])]
    rows = [[_cell(build.get(key), form) for key, _, form in columns] for build in document["builds"]]
    return [title for _, title, _ in columns], rows


def _cell(value: Any, form: str) -> str:  # noqa: ANN401 - a table's cell holds numbers, pairs or texts
    return "-" if value is None else form.format(value)


def facts_from_document(document: Document) -> list[tuple[str, str]]:
    """What was compared, as titles and texts."""
    data, calibration = document["data"], document["calibration"]
    evaluation = data["evaluation"]
    facts = [
        ("Model", f"{document['model']['path']} (SHA-256 {document['model']['sha256'][:16]})"),
        (
            "Back end",
            f"{document['backend']['name']} {document['backend']['version']}, {document['backend']['device']}",
        ),
        (
            "Evaluation",
            f"{evaluation['images']:,} {'labelled' if evaluation['labelled'] else 'unlabelled'} images, "
            f"{evaluation['path']}",
        ),
    ]
    if calibration is not None:
        images = f"{calibration['images']:,} images" if calibration["images"] is not None else "images not known"
        facts += [
            (
                "Calibration",
                f"{calibration['algo']}, {images}, {calibration['tensors']} tensors, {calibration['how']} in "
                f"{calibration['seconds']:.2f} s",
            ),
            ("Cache", calibration["cache"]),
        ]
        if data["calibration"]["sha256"]:
            facts.append(
                ("Calibration data", f"{data['calibration']['path']} (SHA-256 {data['calibration']['sha256'][:16]})")
            )
    facts += [
        (f"{b['precision'].upper()} engine", engine_text(b["tensorrt"])) for b in document["builds"] if "tensorrt" in b
    ]
    preprocessing = document["preprocessing"]
    if preprocessing:
        facts.append(("Preprocessing", ", ".join(f"{key} {value}" for key, value in preprocessing.items())))
    facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in document["versions"].items())))
    facts.append(("Peak memory", f"{document['peak_rss_mb']:,.0f} MB"))
    return facts


def engine_text(details: Mapping[str, Any]) -> str:
    """What TensorRT's builder made of the graph, in a sentence."""
    graph = details["graph"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in graph["precisions"].items())
    text = (
        f"layers: {kinds}, {graph['reformats']} copies; {graph['onnx_nodes']} ONNX nodes became "
        f"{graph['engine_layers']} layers ({len(graph['fused'])} of several nodes, "
        f"{len(graph['pruned'])} nodes folded); "
        f"{details['device_memory_bytes'] / 1e6:,.1f} MB of device memory at batch {details['batch']}"
    )
    without = details["without_scale"]
    return text + (f"; {len(without)} tensors have no scale and stay float" if without else "")


def markdown_from_document(document: Document) -> str:
    """report.md, for a pull request."""
    titles, rows = table_from_document(document)
    lines = [
        f"# INT8 calibration: {document['verdict']}, use {document['chosen'].upper()}",
        "",
        _markdown(headline(document)),
        "",
        _markdown(document["reason"]) + ".",
        "",
        "| " + " | ".join(titles) + " |",
        "|" + "---|" * len(titles),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"Latency: median of a batch of {document['builds'][0]['latency_batch']}.",
        "",
        *(f"- **{title}**: {_markdown(text)}" for title, text in facts_from_document(document)),
    ]
    if document["warnings"]:
        lines += ["", "## Warnings", "", *(f"- {_markdown(text)}" for text in document["warnings"])]
    if document["quarantined"]:
        lines += ["", "## Images left out", ""]
        lines += [f"- {_markdown(item['file'])}: {_markdown(item['reason'])}" for item in document["quarantined"]]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in " ".join(text.split()))
    return escaped.replace("&", "&amp;")


def summary_from_document(document: Document, out: Path) -> str:
    """The result for a terminal: a table of the builds, the conclusion, the report's path."""
    titles, rows = table_from_document(document)
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [titles, *rows]]
    lines += ["", f"{document['verdict']}: {headline(document)}"]
    lines += [f"use {document['chosen'].upper()}: {document['reason']}", f"report: {out / 'report.html'}"]
    return "\n".join(lines)


def html_from_document(document: Document) -> str:
    """report.html: one file, nothing loaded from elsewhere."""
    import jinja2

    template = resources.files("quant.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    titles, rows = table_from_document(document)
    return environment.from_string(template).render(
        document=document,
        headline=headline(document),
        titles=titles,
        rows=rows,
        facts=facts_from_document(document),
    )
