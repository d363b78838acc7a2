"""TensorRT's text as ONNX Runtime's TensorRT provider reads it, with `trt_int8_use_native_calibration_table`.

The provider wants `TRT-` in the first line. Of every other line, it takes what is before the first ':' for the tensor's
name and what is between that and the next one for the scale (`ReadDynamicRange` in its sources). TensorRT itself takes
the last ':'. So the line of a tensor called `x:0` is read as the scale 0 of `x`, without a word.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping

from calib.caches.cache import CalibrationCache, text_from_cache

PROVIDER = "onnxruntime-tensorrt"
_SEPARATOR = ":"


def reads_header(cache: CalibrationCache) -> bool:
    """Whether the provider takes the first line for that of a cache."""
    return "TRT-" in cache.header.split(_SEPARATOR)[0]


def scales_as_read(cache: CalibrationCache) -> dict[str, float]:
    """What the provider reads: scales by name; of lines with the same name, the last counts."""
    found = {}
    for line in text_from_cache(cache).splitlines()[1:]:
        name, digits = [*line.split(_SEPARATOR), ""][:2]
        match = re.match(r"\s*([0-9a-fA-F]*)", digits)  # as strtoul: up to what is no digit, 0 without any
        bits = int((match[1] if match else "") or "0", 16) & 0xFFFFFFFF
        found[name] = float(struct.unpack(">f", bits.to_bytes(4, "big"))[0])
    return found


def misread_tensors(cache: CalibrationCache) -> list[str]:
    """Tensors for which the provider reads another scale than the cache holds, or none; in file order."""
    found = scales_as_read(cache)
    return [name for name, scale in cache.scales.items() if found.get(name) != scale]


def names_for_provider(names: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """Names without ':' in place of those with it, by the old name; none of them is taken already.

    Args:
        names: Of all tensors in the cache.
        taken: Names that a new one may not have: of everything in the model.
    """
    used, renamed = {*names, *taken}, {}
    for name in names:
        if _SEPARATOR not in name:
            continue
        base = name.replace(_SEPARATOR, "_")
        fresh, number = base, 1
        while fresh in used:
            fresh, number = f"{base}_{number}", number + 1
        used.add(fresh)
        renamed[name] = fresh
    return renamed


def with_names(cache: CalibrationCache, renamed: Mapping[str, str]) -> CalibrationCache:
    """The same scales, in the same order, under other names."""
    scales = {renamed.get(name, name): scale for name, scale in cache.scales.items()}
    return CalibrationCache(cache.header, scales, tuple(renamed.get(name, name) for name in cache.zero_tensors))
