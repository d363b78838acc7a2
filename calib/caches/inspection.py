"""A calibration cache for people: the table that `calib cache show` prints."""

from __future__ import annotations

from pathlib import Path

from calib.caches.cache import read_cache
from calib.caches.conversion import json_from_cache
from calib.texts import plain_text


def text_from_cache_file(path: Path) -> str:
    """A cache as a table: tensor, scale, amax.

    Raises:
        CacheError: The file is not a cache.
    """
    cache = read_cache(path)
    shown = {name: plain_text(name) for name in cache.scales}
    widest = max(len(name) for name in shown.values())
    amax = cache.amax
    version = f", TensorRT {cache.version}" if cache.version else ""
    percentile = f" {cache.percentile:g}" if cache.percentile else ""
    lines = [
        f"{path}: {cache.algo}{percentile}, {len(cache.scales)} tensors{version}",
        f"{'tensor':<{widest}}  {'scale':>12}  {'amax':>12}",
        *(f"{shown[name]:<{widest}}  {scale:>12.6g}  {amax[name]:>12.6g}" for name, scale in cache.scales.items()),
    ]
    return "\n".join(lines) + "\n"


def json_from_cache_file(path: Path) -> str:
    """A cache as JSON, see `calib.caches.conversion`.

    Raises:
        CacheError: The file is not a cache.
    """
    return json_from_cache(read_cache(path))
