"""One direction of a chart: from values to places along an axis, and the round values that its ticks stand at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quant.report.svg import LETTERS, text_width

Tick = tuple[float, str]  # value, label
_MOST = 9  # ticks
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """Values along an axis.

    Attributes:
        low: Value at its start: left, or bottom.
        high: Value at its end; below `low` where the axis runs the other way.
        log: Whether equal ratios, not equal differences, are equally long. Both ends are positive then.
    """

    low: float
    high: float
    log: bool = False

    def fraction(self, value: float) -> float:
        """Where a value lies: 0 at the start, 1 at the end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def scale_around(values: Sequence[float], margin: float, *, from_zero: bool = False, log: bool = False) -> Scale:
    """A scale that shows all values with some room beside them.

    Args:
        values: What is drawn.
        margin: Room on each side as a share of what the values span.
        from_zero: Bars stand on zero: no room beyond it.
        log: See `Scale`.
    """
    low, high = min(values), max(values)
    if log:
        ratio = (high / low if high > low else 2.0) ** margin
        return Scale(low / ratio, high * ratio, log=True)
    room = margin * (high - low) if high > low else 0.5 * abs(high) or 0.5
    return Scale(
        low if from_zero and low == 0 < high else low - room, high if from_zero and high == 0 > low else high + room
    )


def round_ticks(
    scale: Scale, fit: Callable[[Sequence[Tick]], bool], label: Callable[[float], str] | None = None
) -> list[Tick]:
    """Ticks at round values: as many as fit, but two where the scale has them.

    Args:
        scale: The axis.
        fit: Whether there is room for such ticks.
        label: What a tick says; by default as many digits as tell the ticks apart.
    """
    found: list[Tick] = []
    for most in range(_MOST, 0, -1):
        values, form = _log_values(scale, most) if scale.log else _linear_values(scale, most)
        if found and len(values) < 2:
            break
        found = [(value, (label or form)(value).replace("-", "\N{MINUS SIGN}")) for value in values]
        if fit(found):
            break
    return found


def _linear_values(scale: Scale, most: int) -> tuple[list[float], Callable[[float], str]]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten."""
    low, high = sorted((scale.low, scale.high))
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = power * next(step for step in _STEPS if step * power * most >= (high - low) * (1 - 1e-9))
    values = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    if step < 1e-4 or max(abs(low), abs(high)) >= 1e6:
        return values, lambda value: f"{value:.6g}"
    digits = next(digits for digits in range(8) if math.isclose(round(step, digits), step, rel_tol=1e-6))
    return values, lambda value: f"{value:.{digits}f}"


def _log_values(scale: Scale, most: int) -> tuple[list[float], Callable[[float], str]]:
    """Powers of ten, or every second or third one; between few of them also 2 and 5 times."""

    def label(value: float) -> str:
        return f"{value:g}"

    first, last = math.ceil(math.log10(scale.low) - 1e-9), math.floor(math.log10(scale.high) + 1e-9)
    if last > first:
        return [10.0**i for i in range(first, last + 1, -(-(last - first + 1) // most))], label
    between = [m * 10.0**i for i in range(first - 1, last + 1) for m in (1, 2, 5)]
    between = [value for value in between if scale.low <= value <= scale.high]
    return (between, label) if len(between) > 1 else _linear_values(Scale(scale.low, scale.high), most)


@dataclass
class Axis:
    """One direction of the axes; what is not said follows from what is drawn.

    Attributes:
        label: What the values are.
        limits: Values at the start and at the end.
        log: See `Scale`.
        margin: Room beside the values, as a share of what they span.
        ticks: Values and their names; None for round values; an empty list for none.
        form: What round ticks say.
        grid: A line across the axes at each tick.
        size: Of the ticks' letters.
        turned: The ticks' labels run from the bottom to the top.
        marks: A short line at each tick.
        named: The ticks have labels: not where the axes beside or below have the same.
        line: Draw the axis itself.
        lines: Values with a line of the grid but no tick.
        seen: Values that are drawn.
        from_zero: Bars stand on zero: no room beyond it.
    """

    label: str = ""
    limits: tuple[float, float] | None = None
    log: bool = False
    margin: float = 0.05
    ticks: Sequence[Tick] | None = None
    form: Callable[[float], str] | None = None
    grid: bool = False
    size: float = LETTERS
    turned: bool = False
    marks: bool = True
    named: bool = True
    line: bool = True
    lines: Sequence[float] = ()
    seen: list[float] = field(default_factory=list)
    from_zero: bool = False

    def scale(self) -> Scale:
        """From values to places."""
        if self.limits is not None:
            return Scale(*self.limits, log=self.log)
        return scale_around(self.seen or [0.0, 1.0], self.margin, from_zero=self.from_zero, log=self.log)

    def placed(self, room: float, *, across: bool) -> list[Tick]:
        """The ticks, for an axis about that long."""
        if self.ticks is not None:
            return list(self.ticks)

        def fit(ticks: Sequence[Tick]) -> bool:
            widest = max((text_width(label, self.size) for _, label in ticks), default=0.0) + self.size
            return len(ticks) * (widest if across else 1.6 * self.size) <= room

        return round_ticks(self.scale(), fit, self.form)
