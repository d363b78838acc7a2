"""Documents that a notebook shows as pages; everywhere else they are the dictionaries of report.json and sweep.json."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from calib.texts import plain_lines
from quant.report.views.render import html_from_document
from quant.report.views.sweep import svg_from_sweep, text_from_sweep
from quant.settings.output_names import REPORT_HTML

_HEIGHT = 640  # pixels of a report's frame


class ShownReport(dict[str, Any]):
    """The report of a run or a comparison."""

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that neither its style nor the notebook's changes the other.

        The pictures of flipped images are those of the page on disk, where there is one.
        """
        page = self._written() or html_from_document(self)
        return (
            f'<iframe sandbox style="width:100%;height:{_HEIGHT}px;border:0" title="calib report" '
            f'srcdoc="{html.escape(page, quote=True)}"></iframe>'
        )

    def _written(self) -> str | None:
        """The page that was written with this very report; None where it is not there, or is another's."""
        out = (self.get("settings") or {}).get("out")
        path = Path(str(self.get("working_folder") or ""), str(out), REPORT_HTML)
        try:
            page = path.read_text(encoding="utf-8") if out else None
        except (OSError, UnicodeDecodeError):
            return None
        return page if page is not None and html.escape(str(self["created"])) in page else None


class ShownSweep(dict[str, Any]):
    """The result of a sweep."""

    def _repr_html_(self) -> str:
        """The table as the command line prints it, and the plot."""
        table = text_from_sweep(self, Path(str(self["settings"]["out"])))
        return f"<pre>{html.escape(plain_lines(table))}</pre>\n{_element(svg_from_sweep(self))}"


def _element(svg: str) -> str:
    """The SVG element alone, without what only a file has before it."""
    return svg[svg.index("<svg") :]
