"""A calibration cache for people: the table that `calib cache show` prints."""

from __future__ import annotations

from calib.caches.cache import CalibrationCache
from calib.texts import plain_text


def table_from_cache(cache: CalibrationCache, name: str) -> str:
    """A cache as a table below a line that begins with its name: tensor, scale, amax."""
    shown = {tensor: plain_text(tensor) for tensor in cache.scales}
    widest = max(map(len, shown.values()))
    amax = cache.amax
    version = f", TensorRT {cache.version}" if cache.version else ""
    percentile = f" {cache.percentile:g}" if cache.percentile else ""
    made_by = plain_text(cache.made_by) if cache.made_by else f"{cache.algo}{percentile}"
    lines = [
        f"{name}: {made_by}, {len(cache.scales)} tensors{version}",
        f"{'tensor':<{widest}}  {'scale':>12}  {'amax':>12}",
        *(
            f"{shown[tensor]:<{widest}}  {scale:>12.6g}  {amax[tensor]:>12.6g}"
            for tensor, scale in cache.scales.items()
        ),
    ]
    return "\n".join(lines) + "\n"
