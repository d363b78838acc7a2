"""Figures in the form that a report holds."""

from __future__ import annotations

import math


def rounded(value: float | None, digits: int) -> float | None:
    """A figure with this many decimals; None if there is none or it is not finite, because JSON has no infinity."""
    return None if value is None or not math.isfinite(value) else round(value, digits)
