"""A calibration cache for people: the table that `calib cache show` prints."""

from __future__ import annotations

import json
from pathlib import Path

from calib.cache import read_cache


def text_from_cache_file(path: Path) -> str:
    """A cache as a table: tensor, scale, amax.

    Raises:
        CacheError: The file is no cache.
    """
    cache = read_cache(path)
    widest = max(len(name) for name in cache.scales)
    version = f", TensorRT {cache.version}" if cache.version else ""
    percentile = f" {cache.percentile:g}" if cache.percentile else ""
    lines = [
        f"{path}: {cache.algo}{percentile}, {len(cache.scales)} tensors{version}",
        f"{'tensor':<{widest}}  {'scale':>12}  {'amax':>12}",
        *(f"{name:<{widest}}  {scale:>12.6g}  {cache.amax[name]:>12.6g}" for name, scale in cache.scales.items()),
    ]
    return "\n".join(lines) + "\n"


def json_from_cache(path: Path) -> str:
    """A cache as JSON: header, algorithm, scales.

    Raises:
        CacheError: The file is no cache.
    """
    cache = read_cache(path)
    document = {
        "header": cache.header,
        "algo": cache.algo,
        "percentile": cache.percentile,
        "version": cache.version,
        "scales": dict(cache.scales),
        "amax": cache.amax,
    }
    return json.dumps(document, indent=1) + "\n"
