"""A calibration cache for people: the table that `calib cache show` prints."""

from __future__ import annotations

from calib.caches.cache import CalibrationCache
from calib.texts import plain_text, table_of_names, wrapped


def table_from_cache(cache: CalibrationCache, name: str, width: int | None = None) -> str:
    """A cache as a table below a line that begins with its name: tensor, scale, amax.

    Args:
        cache: The cache.
        name: What to call it.
        width: Columns of the terminal; None for any.
    """
    amax = cache.amax
    version = f", TensorRT {cache.version}" if cache.version else ""
    percentile = f" {cache.percentile:g}" if cache.percentile else ""
    made_by = plain_text(cache.made_by) if cache.made_by else f"{cache.algo}{percentile}"
    rows = [(plain_text(tensor), (f"{scale:.6g}", f"{amax[tensor]:.6g}")) for tensor, scale in cache.scales.items()]
    lines = [
        *wrapped(f"{name}: {made_by}, {len(cache.scales)} tensors{version}", width),
        *table_of_names(("tensor", "scale", "amax"), rows, width),
    ]
    return "\n".join(lines) + "\n"
