"""Matplotlib figures as inline SVG whose colours and letters follow the page: light, dark, print.

Figures are drawn in marker colours, which are then replaced by CSS variables; texts stay texts in the page's font.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from calib.texts import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 5.0  # inches: 360 units of the SVG, about the width of a phone, so that letters keep their size there
INK, GRID, FP32, BUILD, BAD, GOOD, PAPER = (f"#01020{i}" for i in range(1, 8))
_VARIABLES = {
    INK: "currentColor",
    GRID: "var(--grid)",
    FP32: "var(--fp32)",
    BUILD: "var(--build)",
    BAD: "var(--bad)",
    GOOD: "var(--good)",
    PAPER: "var(--paper)",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $x$
    "font.family": ["DejaVu Sans"],  # for widths alone; to look for others takes time, and comes with none of them
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titley": 1.0,  # to look for what it might cover takes time, and there is nothing above the axes
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
}


def load_matplotlib() -> None:
    """Import what drawing needs, which takes a second: a run does it while it waits for a build."""
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


def plain_ticks(axis: Axis) -> None:
    """Give a logarithmic axis figures instead of formulas, and of the ticks between them only those at 2 and 5."""
    from matplotlib.ticker import LogLocator

    def between(value: float, place: float) -> str:
        low, high = axis.get_view_interval()
        return f"{value:g}" if high < 10 * low else ""  # where few powers of ten are to be seen

    axis.set_major_formatter(lambda value, place: f"{value:g}")
    axis.set_minor_locator(LogLocator(subs=(2, 5)))  # all nine take longer than the rest of a chart
    axis.set_minor_formatter(between)


def svg_from_drawing(name: str, height: float, draw: Callable[[Figure], None], label: str) -> str:
    """Draw an SVG element.

    Args:
        name: Unique on the page; ids begin with it.
        height: Inches; the width is `WIDTH`.
        draw: Draws into the figure.
        label: What is shown, for people who cannot see it.
    """
    import warnings

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": name}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")  # the page's fonts draw the letters
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        canvas: Any = FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        # savefig would draw twice, the first time only for the layout, which print_svg does as well.
        canvas.print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _for_page(buffer.getvalue(), name, label)


def standalone_svg(height: float, draw: Callable[[Axes], None]) -> str:
    """An SVG file of its own, 8 inches wide, with texts as texts.

    Args:
        height: Inches.
        draw: Draws into the axes.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "calib"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def chart_text(text: str, most: int = 22) -> str:
    """A name from outside for use in a chart: one printable line of at most `most` characters."""
    line = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def chart_tail(text: str, most: int = 40) -> str:
    """The same for paths, whose end says more."""
    line = chart_text(text, len(text) + 1)
    return line if len(line) <= most else f"…{line[1 - most :]}"


def _for_page(svg: str, name: str, label: str) -> str:
    from html import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r"(font(?:-family)?: ?(?:\d+px )?)'DejaVu Sans'[^;\"]*", r"\1inherit", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    head, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {view[0]} role="img" aria-label="{escape(plain_text(label))}">{rest}'
    )
