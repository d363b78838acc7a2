"""A chart: axes in rows and columns, laid out so that every label has its place."""

from __future__ import annotations

from collections.abc import Sequence

from quant.report.axes import Axes, Place, definitions
from quant.report.svg import svg_element

WIDTH = 360.0  # units: about a phone's width, so that letters keep their size there


class Figure:
    """A chart.

    Attributes:
        axes: Its axes, row by row.
    """

    def __init__(
        self,
        name: str,
        height: float,
        *,
        columns: int = 1,
        shares: Sequence[float] = (1,),
        width: float = WIDTH,
        square: bool = False,
    ) -> None:
        """A chart without contents.

        Args:
            name: Unique on the page: ids begin with it.
            height: Units.
            columns: Axes side by side.
            shares: Heights of the rows of axes in proportion.
            width: Units.
            square: Make the axes as wide as they are high.
        """
        self._name, self._width, self._height = name, width, height
        self._shares, self._square = shares, square
        self._rows = [[Axes(name) for _ in range(columns)] for _ in shares]
        self.axes = [axes for row in self._rows for axes in row]

    def svg(self, label: str) -> str:
        """The SVG element.

        Args:
            label: What is shown, for those who do not see it.
        """
        radii = {radius for axes in self.axes for radius in axes.radii}
        parts = [definitions(self._name, radii), f'<g id="{self._name}-figure_1">']
        numbers = (1, 1)
        for i, (axes, place) in enumerate(zip(self.axes, self._places(), strict=True)):
            element, numbers = axes.svg(place, i + 1, numbers)
            parts.append(element)
        return svg_element(self._width, self._height, label, [*parts, "</g>"])

    def _places(self) -> list[Place]:
        """Axes of a column begin and end at the same places, those of a row too; all columns are as wide."""
        columns, total = len(self._rows[0]), sum(self._shares)
        margins = [
            [axes.margins(self._width / columns, self._height * share / total) for axes in row]
            for row, share in zip(self._rows, self._shares, strict=True)
        ]
        lefts = [max(row[j].left for row in margins) for j in range(columns)]
        rights = [max(row[j].right for row in margins) for j in range(columns)]
        tops, bottoms = ([max(getattr(m, side) for m in row) for row in margins] for side in ("top", "bottom"))
        width = (self._width - sum(lefts) - sum(rights)) / columns
        height = (self._height - sum(tops) - sum(bottoms)) / total
        found = []
        y = 0.0
        for i, row in enumerate(self._rows):
            x = 0.0
            for j, axes in enumerate(row):
                left, top, high = x + lefts[j], y + tops[i], height * self._shares[i]
                side = min(width, high)
                across, up = (side, side) if self._square else (width, high)
                left += (width - across) / 2
                scales = axes.x.scale(), axes.y.scale()
                found.append(Place(left, top, left + across, top + up, margins[i][j], scales))
                x += lefts[j] + width + rights[j]
            y += tops[i] + height * self._shares[i] + bottoms[i]
        return found
