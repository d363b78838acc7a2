"""What runs, sweeps and comparisons write into their folder: builds and reports."""

from __future__ import annotations

from collections.abc import Mapping

from calib.files import Transaction
from datasets.source import AnySource
from quant.backend import Build
from quant.onnx_graph.made_model import MadeModel
from quant.onnx_graph.model_file import stage_model
from quant.report.contents.document import Document
from quant.report.views.markdown import markdown_from_document
from quant.report.views.render import changed_files, flipped_files, html_from_document, json_from_document
from quant.report.views.tasks.pictures import pictures_from_source
from quant.report.views.thumbnails import thumbnails_from_source
from quant.settings.output_names import REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN


def report_texts(document: Document, source: AnySource) -> dict[str, str]:
    """report.json, report.md and report.html, by file name.

    Args:
        document: The report.
        source: The evaluated images; provides the pictures of those whose answer flipped or changed.
    """
    thumbnails = thumbnails_from_source(source, flipped_files(document))
    pictures = pictures_from_source(source, document, changed_files(document))
    return {
        REPORT_JSON: json_from_document(document),
        REPORT_MARKDOWN: markdown_from_document(document),
        REPORT_HTML: html_from_document(document, {**thumbnails, **pictures}),
    }


def stage_texts(files: Transaction, texts: Mapping[str, str]) -> None:
    """Write texts by file name; bytes that are not UTF-8, as in some images' names, are escaped."""
    for name, text in texts.items():
        files.stage(name).write_text(text, encoding="utf-8", errors="backslashreplace")


def stage_build(files: Transaction, name: str, build: Build) -> None:
    """Write a built file and what belongs beside it."""
    if isinstance(build.payload, MadeModel):
        stage_model(files, name, build.payload.model())
    else:
        files.stage(name).write_bytes(build.payload or b"")
    for end, contents in build.files.items():
        files.stage(name + end).write_bytes(contents)
