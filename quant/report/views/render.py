"""The report as JSON and HTML; every text that comes from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from calib.texts import plain_lines, whole_characters
from quant.report.views.charts import charts_from_document
from quant.report.views.headline import advice, headline, reason_says_more
from quant.report.views.sections import Document, sections_from_document

if TYPE_CHECKING:
    import jinja2


def json_from_document(document: Document) -> str:
    """The contents of report.json."""
    return json.dumps(whole_characters(document), indent=1, allow_nan=False) + "\n"


def html_from_document(document: Document, thumbnails: Mapping[str, str] | None = None) -> str:
    """The contents of report.html: one file that loads nothing from elsewhere.

    Args:
        document: The report.
        thumbnails: Data URIs of images by name, see `flipped_files`, and by place, see `changed_files`.
    """
    import markupsafe

    style = resources.files("quant.report.views").joinpath("report.css").read_text(encoding="utf-8")
    charts = charts_from_document(document)
    return _template().render(
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


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    """The page, compiled once for all reports of a process."""
    import jinja2

    text = resources.files("quant.report.views").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_plain
    )
    return environment.from_string(text)


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
