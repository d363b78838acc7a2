"""Figures as a report holds them."""

from __future__ import annotations

import math


def rounded(value: float | None, digits: int) -> float | None:
    """A figure with so many decimals; None where there is none, or where it is not finite: JSON has no infinity."""
    return None if value is None or not math.isfinite(value) else round(value, digits)
