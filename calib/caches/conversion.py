"""Converting a calibration cache: to another TensorRT version, another calibrator's header, JSON.

The scales never change. TensorRT accepts a cache only if the version and the calibrator in its first line are its own,
and otherwise recalibrates without saying so. The line is therefore rewritten for the TensorRT that will read it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calib.caches.cache import (
    DEFAULT_VERSION,
    CalibrationCache,
    cache_from_text,
    checked_header,
    header_from_algorithm,
    number_from_version,
)
from calib.documents import document_from_json
from calib.errors import CacheError
from calib.names import CALIBRATORS
from calib.regular_files import text_of_file

_FIRST_WITHOUT_CACHES = 11
_DOTTED = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\d+)?")


def version_from_text(text: str) -> int:
    """TensorRT's version as a cache holds it: 8600 or 8.6.0 gives 8600; 100300 or 10.3.0 gives 100300.

    Raises:
        CacheError: The text is not a version, or that version of TensorRT does not read caches (11 and later).
    """
    dotted = _DOTTED.fullmatch(text)
    if dotted:
        major = int(dotted[1])
        version = number_from_version(text)
    elif text.isdigit() and 4 <= len(text) <= 6:
        version = int(text)
        major = version // 10000 if len(text) > 4 else version // 1000
    else:
        raise CacheError(f"TensorRT version: expected a version like 8600, 8.6.0, 100300 or 10.3.0, found '{text}'")
    if major >= _FIRST_WITHOUT_CACHES:
        raise CacheError(
            f"TensorRT version: {text} does not read calibration caches; convert to a Q/DQ model instead "
            "(an output ending in .onnx, with --model)"
        )
    return version


def with_header(cache: CalibrationCache, calibrator: str | None = None, version: int | None = None) -> CalibrationCache:
    """The same scales under a different first line.

    Args:
        cache: What to convert.
        calibrator: One of `calib.names.CALIBRATORS`; None keeps the cache's own.
        version: TensorRT's version; None keeps the cache's own (8600 if it has none).
    """
    number = version or cache.version or DEFAULT_VERSION
    if calibrator is None:
        name = None if cache.version is None else cache.header.split("-", 2)[2]
    else:
        name = CALIBRATORS[calibrator]
    if name is not None:
        return replace(cache, header=f"TRT-{number}-{name}")
    if cache.version is None:
        return cache
    from calib.algorithms import Percentile

    return replace(cache, header=header_from_algorithm(Percentile()))


def read_text_or_json(path: Path) -> CalibrationCache:
    """Read a cache from JSON or from TensorRT's text, told apart by contents.

    Raises:
        CacheError: The file cannot be read, or holds no cache.
    """
    try:
        text = text_of_file(path)
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CacheError(
            f"{path}: expected text, found binary data; a cache is text, JSON, or a Q/DQ model whose name ends in .onnx"
        ) from None
    return (cache_from_json if text.lstrip().startswith("{") else cache_from_text)(text, str(path))


def json_from_cache(cache: CalibrationCache) -> str:
    """A cache as JSON: the header, its parts, scales and amax. `header` and `scales` hold all that the text does."""
    document = {
        "header": cache.header,
        "algo": None if cache.made_by else cache.algo,
        **({"made_by": cache.made_by} if cache.made_by else {}),
        "percentile": cache.percentile,
        "version": cache.version,
        "scales": dict(cache.scales),
        "amax": cache.amax,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class _CacheDocument:
    """What is read of such a document."""

    header: str
    scales: dict[str, Any]
    made_by: str = ""


def cache_from_json(text: str, source: str = "cache") -> CalibrationCache:
    """Read what `json_from_cache` wrote; only `header`, `scales` and `made_by` are used.

    Raises:
        CacheError: The text is not such a document, or a scale is not finite and positive.
    """
    try:
        document = document_from_json(_CacheDocument, text)
        json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise CacheError(
            f"{source}: expected an object with 'header' and the tensors' 'scales', found something else: {error}"
        ) from error
    if not document.scales:
        raise CacheError(f"{source}: expected an object with 'header' and the tensors' 'scales', found no scales")
    header = checked_header(document.header, f"{source}: header")
    scales = {name: _checked_scale(value, name, source) for name, value in document.scales.items()}
    return CalibrationCache(header, scales, made_by=document.made_by)


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"'{name}' appears twice")
        result[name] = value
    return result


def _checked_scale(value: object, name: str, source: str) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    try:
        with np.errstate(over="ignore"):
            scale = float(np.float32(number))
    except OverflowError:  # a whole number beyond what a float can hold
        scale = math.inf
    if not (math.isfinite(scale) and scale > 0):
        raise CacheError(f"{source}: expected a finite scale above zero for '{name}', found {value!r:.40}")
    return scale
