"""Inline SVG whose colours and letters follow the page: light, dark, print. Lengths are units of the drawing.

Shapes are paths, points and ticks are uses of one path each; texts stay texts in the page's font.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from html import escape

INK, GRID, FP32, BUILD, BAD, GOOD, PAPER = (
    "currentColor",
    *(f"var(--{name})" for name in ("grid", "fp32", "build", "bad", "good", "paper")),
)
LETTERS = 11.0  # units; about as many pixels on a phone
_ON_WHITE = {
    INK: "#1b1f24",
    GRID: "#c4cad1",
    FP32: "#7d8894",
    BUILD: "#1f6feb",
    BAD: "#cf222e",
    GOOD: "#1a7f37",
    PAPER: "#fff",
}
_NARROW, _BROAD = frozenset("iIjlftr.,:;'|!()[]{}/\\ -\N{MINUS SIGN}"), frozenset("mwMW@%+…")


def length(value: float) -> str:
    """A coordinate as short as it can be."""
    return f"{round(value, 3) + 0:.3f}".rstrip("0").rstrip(".")


def path(points: Iterable[tuple[float, float]], style: str, *, closed: bool = False) -> str:
    """Straight lines from point to point."""
    line = " L ".join(f"{length(x)} {length(y)}" for x, y in points)
    return f'<path d="M {line}{" z" if closed else ""}" style="{style}"/>'


def box(left: float, top: float, right: float, bottom: float, style: str) -> str:
    """A rectangle."""
    return path([(left, bottom), (right, bottom), (right, top), (left, top)], style, closed=True)


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "middle",
    colour: str = INK,
    size: float = LETTERS,
    turned: bool = False,
    halo: bool = False,
) -> str:
    """A line of text; `y` is where its letters stand.

    Args:
        x: Where it starts, has its middle or ends, as `anchor` says.
        y: The line that its letters stand on.
        words: The text, as it is to be read.
        anchor: start, middle or end.
        colour: One of this module's.
        size: Height of the letters' line.
        turned: From the bottom to the top.
        halo: Keep what lies behind at a distance.
    """
    style = f"font-size: {length(size)}px; text-anchor: {anchor}; fill: {colour}"
    if halo:
        style += f"; stroke: {PAPER}; stroke-width: 4px; paint-order: stroke"
    turn = f' transform="rotate(-90 {length(x)} {length(y)})"' if turned else ""
    return f'<text x="{length(x)}" y="{length(y)}"{turn} style="{style}">{escape(words)}</text>'


def text_width(words: str, size: float = LETTERS) -> float:
    """About how wide a text is in a sans-serif font; rather too much, as the page's font is not known."""
    return size * sum(map(_letter_width, words))


def _letter_width(letter: str) -> float:
    if letter in _NARROW:
        return 0.4
    if letter in _BROAD:
        return 0.9
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    return 0.72 if letter.isupper() else 0.62


def chart_text(text: str, most: int = 22) -> str:
    """A name from outside for use in a chart: one line, printable, not longer than that."""
    line = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def chart_tail(text: str, most: int = 40) -> str:
    """The same for paths, whose end says more."""
    line = chart_text(text, len(text) + 1)
    return line if len(line) <= most else f"…{line[1 - most :]}"


def svg_element(width: float, height: float, label: str, contents: Iterable[str]) -> str:
    """The drawing.

    Args:
        width: Of the drawing; a page may scale it.
        height: Of the drawing.
        label: What is shown, for those who do not see it.
        contents: Elements.
    """
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {length(width)} {length(height)}" role="img"'
    return "\n".join([f'{head} aria-label="{escape(label)}">', *contents, "</svg>"])


def file_from_svg(svg: str) -> str:
    """The same as a file of its own: as large as it was drawn, on white, in colours that need no page."""
    for variable, colour in _ON_WHITE.items():
        svg = svg.replace(variable, colour)
    width, height = svg.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()
    head = f'<svg width="{width}" height="{height}" style="background: #fff" font-family="sans-serif" '
    return svg.replace("<svg ", head, 1) + "\n"
