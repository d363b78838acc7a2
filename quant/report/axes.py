"""A frame with two axes, and the bars, lines, dots and texts in it, drawn once it has its place in the chart.

What shows a value has an id that says which (`value.drop.1`: the second row's drop), so that a test can read it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quant.report.scales import Axis, Scale, Tick
from quant.report.svg import GRID, INK, LETTERS, box, length, path, text, text_width

PAD = 3.0  # beside all, units
_MARK = 3.5  # a tick's length, and its label's distance
_LINE = 1.2 * LETTERS  # a line of text
_DOWN = 0.37  # from the middle of a line of text to where its letters stand, as a share of their size
_GRID_LINE = f"fill: none; stroke: {GRID}; stroke-width: 0.6"
_AXIS_LINE = f"fill: none; stroke: {GRID}; stroke-width: 0.8"


@dataclass(frozen=True)
class Margins:
    """Room beside axes that their labels need, units."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Place:
    """Where axes lie in the drawing, units from its left and top; the margins are those around them."""

    left: float
    top: float
    right: float
    bottom: float
    margins: Margins
    scales: tuple[Scale, Scale]

    def x(self, value: float) -> float:
        """Units from the left."""
        return self.left + (self.right - self.left) * self.scales[0].fraction(value)

    def y(self, value: float) -> float:
        """Units from the top."""
        return self.bottom - (self.bottom - self.top) * self.scales[1].fraction(value)

    def points(self, xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
        """Both, of each point."""
        return [(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True)]


Mark = Callable[[Place], str]


class Axes:
    """A frame with two axes; the methods add to what is drawn in it, in this order, texts above all."""

    def __init__(self, chart: str) -> None:
        """Empty axes.

        Args:
            chart: The chart's name: ids begin with it.
        """
        self.x, self.y = Axis(), Axis()
        self.title, self.title_colour = "", INK
        self.radii: set[float] = set()
        self._chart = chart
        self._marks: list[Mark] = []
        self._texts: list[Mark] = []
        self._after: list[tuple[float, float]] = []  # texts to the right of a value: the value, how far they reach
        self._ticks: tuple[list[Tick], list[Tick]] = ([], [])

    def bar(
        self, across: tuple[float, float], up: tuple[float, float], colour: str, value: str, opacity: float = 1.0
    ) -> None:
        """A rectangle between two values each way."""
        self._see(across, up)
        style = f"fill: {colour}" + (f"; opacity: {opacity:.3f}" if opacity < 1 else "")
        self._mark(value, lambda at: box(at.x(min(across)), at.y(max(up)), at.x(max(across)), at.y(min(up)), style))

    def line(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        colour: str,
        width: float,
        value: str = "",
        *,
        dashed: bool = False,
    ) -> None:
        """Straight lines from point to point."""
        self._see(xs, ys)
        style = _stroke(colour, width, dashed=dashed)
        self._mark(value, lambda at: path(at.points(xs, ys), style))

    def dots(
        self, xs: Sequence[float], ys: Sequence[float], colour: str, radius: float, value: str, *,
        line: float = 0.0, opacity: float = 1.0,
    ) -> None:  # fmt: skip
        """A dot on each point, and a line of some width through them."""
        self._see(xs, ys)
        self.radii.add(radius)

        def draw(at: Place) -> str:
            points = at.points(xs, ys)
            through = path(points, _stroke(colour, line)) if line else ""
            return through + "".join(self._dot(*point, colour, radius, opacity) for point in points)

        self._mark(value, draw)

    def steps(self, counts: Sequence[float], width: float, floor: float, colour: str, value: str) -> None:
        """The filled outline of a histogram whose bins are that wide and start at zero; not below `floor`."""

        def draw(at: Place) -> str:
            points = [(0.0, floor)]
            for i, count in enumerate(counts):
                if max(count, floor) != points[-1][1]:
                    points += [(i * width, points[-1][1]), (i * width, max(count, floor))]
            points += [(len(counts) * width, points[-1][1]), (len(counts) * width, floor)]
            return path([(at.x(x), at.y(y)) for x, y in points], f"fill: {colour}; opacity: 0.75", closed=True)

        self._mark(value, draw)

    def upright(self, x: float, colour: str, width: float, value: str = "", *, dashed: bool = False) -> None:
        """A line from the bottom to the top."""
        self.x.seen.append(x)
        style = _stroke(colour, width, dashed=dashed)
        self._mark(value, lambda at: path([(at.x(x), at.bottom), (at.x(x), at.top)], style))

    def band(self, left: float, right: float, colour: str, value: str, opacity: float) -> None:
        """A stripe from the bottom to the top."""
        style = f"fill: {colour}; opacity: {opacity}"
        self._mark(value, lambda at: box(at.x(left), at.top, at.x(right), at.bottom, style))

    def label(
        self,
        x: float,
        y: float | None,
        words: str,
        *,
        anchor: str = "middle",
        right: float = 0.0,
        down: float | None = None,
        colour: str = INK,
        size: float = LETTERS,
        halo: bool = False,
    ) -> None:
        """A text at a point or beside it.

        Args:
            x: Value across.
            y: Value up; None for the top of the axes.
            words: The text.
            anchor: See `text`.
            right: Units to the right of the point.
            down: Units that its letters stand below the point; half a line by default.
            colour: Its colour.
            size: Of its letters.
            halo: See `text`.
        """
        below = _DOWN * size if down is None else down
        if anchor == "start":
            self._after.append((x, right + text_width(words, size)))
        self._texts.append(
            lambda at: text(
                at.x(x) + right,
                (at.top if y is None else at.y(y)) + below,
                words,
                anchor=anchor,
                colour=colour,
                size=size,
                halo=halo,
            )
        )

    def legend(self, entries: Sequence[tuple[str, str]], radius: float = 0.0) -> None:
        """Names and colours: lines with dots of that radius at the top left, else boxes at the bottom right."""
        wide = 26 + max(text_width(name) for name, _ in entries)

        def draw(at: Place) -> str:
            parts = []
            for i, (name, colour) in enumerate(entries):
                if radius:
                    left, y = at.left + 8, at.top + 12 + 16 * i
                    parts.append(path([(left, y), (left + 20, y)], _stroke(colour, 1.5)))
                    parts.append(self._dot(left + 10, y, colour, radius))
                else:
                    left, y = at.right - 6 - wide, at.bottom - 10 - 16 * (len(entries) - 1 - i)
                    parts.append(box(left, y - 4, left + 20, y + 4, f"fill: {colour}"))
                parts.append(text(left + 26, y + _DOWN * LETTERS, name, anchor="start"))
            return "".join(parts)

        self._texts.append(draw)

    def margins(self, width: float, height: float) -> Margins:
        """Room that labels need, in about that much space; the ticks are chosen for it."""
        self._ticks = self.x.placed(width - 40, across=True), self.y.placed(height - 30, across=False)
        below, beside = self._ticks
        left = bottom = right = PAD
        if self.y.label:
            left += _LINE + 5
        if self.y.named and beside:
            left += max(text_width(label, self.y.size) for _, label in beside) + _MARK + self.y.marks * _MARK
        if self.x.label:
            bottom += _LINE + 2
        if self.x.named and below:
            deep = max(text_width(label, self.x.size) for _, label in below) if self.x.turned else 1.2 * self.x.size
            bottom += deep + _MARK + self.x.marks * _MARK
            if not self.x.turned:
                right = max(right, self._beyond(below[-1][0], text_width(below[-1][1], self.x.size) / 2, width - left))
        for value, wide in self._after:
            right = max(right, self._beyond(value, wide, width - left))
        return Margins(left, PAD + (1.7 * LETTERS if self.title else 0.0), right, bottom)

    def _beyond(self, value: float, wide: float, room: float) -> float:
        """Room to the right of the axes that a text needs which reaches that far to the right of a value."""
        part = self.x.scale().fraction(value)
        return PAD + (wide - (room - PAD) * (1 - part)) / part if part > 0 else PAD

    def svg(self, place: Place, number: int, first: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        """The axes in their place.

        Args:
            place: Where they lie.
            number: Which axes of the chart these are, from 1.
            first: Numbers of the next ticks across and up: ids differ in all of the chart.

        Returns:
            The element, and the numbers of the ticks that come after.
        """
        across, up = self._ticks
        parts = [box(place.left, place.top, place.right, place.bottom, "fill: none")]
        parts += [path([(place.x(x), place.bottom), (place.x(x), place.top)], _GRID_LINE) for x in self.x.lines]
        parts += [path([(place.left, place.y(y)), (place.right, place.y(y))], _GRID_LINE) for y in self.y.lines]
        parts += [self._tick_across(place, *tick, first[0] + i) for i, tick in enumerate(across)]
        parts += [self._tick_up(place, *tick, first[1] + i) for i, tick in enumerate(up)]
        parts += [draw(place) for draw in self._marks]
        parts.append(path([(place.left, place.bottom), (place.left, place.top)], _AXIS_LINE))
        if self.x.line:
            parts.append(path([(place.left, place.bottom), (place.right, place.bottom)], _AXIS_LINE))
        parts += [draw(place) for draw in self._texts]
        middle = (place.left + place.right) / 2
        if self.x.label:
            parts.append(text(middle, place.bottom + place.margins.bottom - PAD - 3, self.x.label))
        if self.y.label:
            x = place.left - place.margins.left + PAD + LETTERS - 1
            parts.append(text(x, (place.top + place.bottom) / 2, self.y.label, turned=True))
        if self.title:
            parts.append(text(middle, place.top - 6, self.title, colour=self.title_colour))
        contents = "\n".join(parts)
        numbers = first[0] + len(across), first[1] + len(up)
        return f'<g id="{self._chart}-axes_{number}">\n{contents}\n</g>', numbers

    def _tick_across(self, at: Place, value: float, label: str, number: int) -> str:
        x, parts = at.x(value), []
        if self.x.grid:
            parts.append(path([(x, at.bottom), (x, at.top)], _GRID_LINE))
        if self.x.marks:
            parts.append(_use(f"{self._chart}-across", x, at.bottom))
        if self.x.named:
            away = _MARK + self.x.marks * _MARK
            if self.x.turned:
                where = x + _DOWN * self.x.size, at.bottom + away
                parts.append(text(*where, label, anchor="end", size=self.x.size, turned=True))
            else:
                parts.append(text(x, at.bottom + away + 0.76 * self.x.size, label, size=self.x.size))
        return f'<g id="{self._chart}-xtick_{number}">{"".join(parts)}</g>'

    def _tick_up(self, at: Place, value: float, label: str, number: int) -> str:
        y, parts = at.y(value), []
        if self.y.grid:
            parts.append(path([(at.left, y), (at.right, y)], _GRID_LINE))
        if self.y.marks:
            parts.append(_use(f"{self._chart}-up", at.left, y))
        if self.y.named:
            away = _MARK + self.y.marks * _MARK
            parts.append(text(at.left - away, y + _DOWN * self.y.size, label, anchor="end", size=self.y.size))
        return f'<g id="{self._chart}-ytick_{number}">{"".join(parts)}</g>'

    def _see(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.x.seen.extend(xs)
        self.y.seen.extend(ys)

    def _mark(self, value: str, draw: Mark) -> None:
        """Add to the drawing; with an id where it shows a value."""
        if value:
            self._marks.append(lambda at: f'<g id="{self._chart}-value.{value}">{draw(at)}</g>')
        else:
            self._marks.append(draw)

    def _dot(self, x: float, y: float, colour: str, radius: float, opacity: float = 1.0) -> str:
        style = f"fill: {colour}" + (f"; opacity: {opacity}" if opacity < 1 else "")
        return _use(_dot_id(self._chart, radius), x, y, style)


def definitions(chart: str, radii: set[float]) -> str:
    """The shapes that ticks and dots of a chart use."""
    style = f"stroke: {GRID}; stroke-width: 0.8"
    shapes = [(f"{chart}-across", f"M 0 0 L 0 {_MARK}", style), (f"{chart}-up", f"M 0 0 L {-_MARK} 0", style)]
    for radius in sorted(radii):
        r, wide = length(radius), length(2 * radius)
        circle = f"M -{r} 0 a {r} {r} 0 1 0 {wide} 0 a {r} {r} 0 1 0 -{wide} 0 z"
        shapes.append((_dot_id(chart, radius), circle, "stroke: none"))
    return "<defs>" + "".join(f'<path id="{name}" d="{d}" style="{look}"/>' for name, d, look in shapes) + "</defs>"


def _dot_id(chart: str, radius: float) -> str:
    return f"{chart}-dot{length(radius)}"


def _stroke(colour: str, width: float, *, dashed: bool = False) -> str:
    dashes = "; stroke-dasharray: 4.4 1.9" if dashed else ""
    return f"fill: none; stroke: {colour}; stroke-width: {length(width)}{dashes}; stroke-linejoin: round"


def _use(name: str, x: float, y: float, style: str = "") -> str:
    look = f' style="{style}"' if style else ""
    return f'<use href="#{name}" x="{length(x)}" y="{length(y)}"{look}/>'
