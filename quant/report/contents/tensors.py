"""What INT8 does to each tensor alone; the one to look at first comes first."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from calib.histograms.histogram import Histogram
from calib.histograms.noise import clipped_share, coarse_counts, sqnr_db

_PLOTTED = 6  # tensors with a histogram in the report


def tensor_rows(
    amax: Mapping[str, float], histograms: Mapping[str, Histogram], quantized: Collection[str] | None
) -> list[dict[str, Any]]:
    """A row for each tensor: quantized ones before others, and the lowest SQNR first within each group.

    Args:
        amax: Largest magnitude kept by tensor, in activation units.
        histograms: Statistics by tensor; empty for a cache without them.
        quantized: Tensors that the INT8 model quantizes; None if that is not known.

    Returns:
        Rows with shares in per cent and SQNR in dB. What is not known is null; a tensor of zeros has no SQNR.
    """
    rows = [_row(name, value, histograms.get(name), quantized) for name, value in amax.items()]
    rows.sort(key=lambda row: (row["quantized"] is False, math.inf if row["sqnr_db"] is None else row["sqnr_db"]))
    for row in rows[:_PLOTTED]:
        histogram = histograms.get(row["name"])
        if histogram is not None and histogram.abs_max:
            counts, width = coarse_counts(histogram)
            row["histogram"] = {"bin_width": width, "counts": counts.tolist()}
    return rows


def _row(name: str, amax: float, histogram: Histogram | None, quantized: Collection[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "quantized": None if quantized is None else name in quantized,
        "amax": amax,
        **dict.fromkeys(("abs_max", "min", "max", "amax_ratio", "clipped", "sqnr_db", "zeros", "count")),
    }
    if histogram is None:
        return row
    noise = sqnr_db(histogram, amax)
    return row | {
        "abs_max": histogram.abs_max,
        "min": histogram.min,
        "max": histogram.max,
        "amax_ratio": round(amax / histogram.abs_max, 6) if histogram.abs_max else None,
        "clipped": round(100 * clipped_share(histogram, amax), 6),
        "sqnr_db": round(noise, 3) if math.isfinite(noise) else None,
        "zeros": histogram.zeros,
        "count": histogram.count,
    }
