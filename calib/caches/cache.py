"""TensorRT's calibration cache: text, a header line, then `tensor name: 8 hex digits` with the scale's float32 bits.

The header is `TRT-<version>-<calibrator>`; the legacy (percentile) calibrator writes `0 <cutoff> <quantile>` instead,
both as float64 bits. The format was worked out from caches that TensorRT 8.6.0 wrote. A tensor's name may itself
contain ": ", so a line is split at the last one. TensorRT omits leading zeros: a scale of 3e-32 has seven digits, and
the scale of an all-zero tensor is the single digit 0. TensorRT refuses to build with a scale of 0, so it is read as
1 / 127 here: any positive scale represents zeros.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calib.errors import CacheError
from calib.regular_files import text_of_file

if TYPE_CHECKING:
    from calib.algorithms import Algorithm

DEFAULT_VERSION = 8600  # TensorRT 8.6.0: major, minor (two digits), patch (two digits from 10 on)
INT8_LEVELS = 127  # symmetric INT8: scale = amax / 127

_CALIBRATORS = {
    "EntropyCalibration2": "entropy",
    "MinMaxCalibration": "minmax",
    "EntropyCalibration": "entropy1",
    "PercentileCalibration": "percentile",
    "MSECalibration": "mse",  # ours: TensorRT has no such calibrator, and takes these scales only under another header
}
_HEADER = re.compile(r"TRT-([0-9]{1,9})-(\w+)", re.ASCII)
_LEGACY_HEADER = re.compile(r"0 ([0-9a-fA-F]{16}) ([0-9a-fA-F]{16})")
_DAMAGED = "recalibrate, or take an undamaged copy"  # never "delete it": it may be the only one, from elsewhere
_SCALE = re.compile(r"[0-9a-fA-F]{7,8}|0")  # with fewer digits it is not a normal float32


@dataclass(frozen=True)
class CalibrationCache:
    """A cache's contents.

    Attributes:
        header: First line.
        scales: Scale of each tensor in file order, activation units per step; amax / 127, float32 precision.
        zero_tensors: Tensors whose scale TensorRT wrote as 0 because all their values were zero; amax is 1 here.
        made_by: What computed the scales, in words, where the first line cannot say; empty where it does. TensorRT's
            text has no room for it.
    """

    header: str
    scales: Mapping[str, float]
    zero_tensors: tuple[str, ...] = ()
    made_by: str = ""

    @property
    def algo(self) -> str:
        """entropy, minmax, percentile, mse or entropy1 (TensorRT's first entropy calibrator)."""
        match = _HEADER.fullmatch(self.header)
        return _CALIBRATORS[match[2]] if match else "percentile"

    @property
    def version(self) -> int | None:
        """TensorRT version in the header, 8600 for 8.6.0; None for the percentile header, which holds none."""
        match = _HEADER.fullmatch(self.header)
        return int(match[1]) if match else None

    @property
    def percentile(self) -> float | None:
        """Percentile in the header, per cent; None for other algorithms."""
        match = _LEGACY_HEADER.fullmatch(self.header)
        return 100 * _float64(match[2]) if match else None

    @property
    def amax(self) -> dict[str, float]:
        """Largest magnitude kept of each tensor, activation units."""
        return {name: scale * INT8_LEVELS for name, scale in self.scales.items()}


def _float64(digits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(digits))[0])


def header_from_algorithm(algorithm: Algorithm, version: int = DEFAULT_VERSION) -> str:
    """First line of a cache of this algorithm, as TensorRT of this version would write it."""
    from calib.algorithms import Percentile

    if isinstance(algorithm, Percentile):
        share = float(Decimal(repr(algorithm.percentile)) / 100)  # 99.99 / 100 in floats is not TensorRT's 0.9999
        cutoff, quantile = (struct.pack(">d", number).hex() for number in (1.0, share))
        return f"0 {cutoff} {quantile}"
    calibrator = next(key for key, name in _CALIBRATORS.items() if name == algorithm.name)
    return f"TRT-{version}-{calibrator}"


def scale_from_amax(amax: float) -> np.float32:
    """Amax / 127 as a float32 that is positive and normal, however small amax is.

    The division is done in float64, so that 127 times a scale gives exactly that scale back.
    """
    return max(np.float32(amax / INT8_LEVELS), np.finfo(np.float32).tiny)


def cache_from_amax(
    amax: Mapping[str, float], algorithm: Algorithm, version: int = DEFAULT_VERSION
) -> CalibrationCache:
    """The cache for these amax values (activation units); scales are rounded to float32, as in the file."""
    scales = {name: float(scale_from_amax(value)) for name, value in amax.items()}
    return CalibrationCache(header_from_algorithm(algorithm, version), scales)


def checked_header(line: str, source: str) -> str:
    """The first line of a cache, checked and stripped of surrounding blanks.

    Raises:
        CacheError: The line is not a cache's first line, or names an unknown calibrator.
    """
    header = line.strip()
    match, legacy = _HEADER.fullmatch(header), _LEGACY_HEADER.fullmatch(header)
    if match is None and legacy is None:
        raise CacheError(
            f"{source}: expected 'TRT-<version>-<calibrator>', found '{header[:60]}'; this is no calibration cache"
        )
    if match and match[2] not in _CALIBRATORS:
        raise CacheError(f"{source}: expected one of {', '.join(_CALIBRATORS)}, found '{match[2]}'; recalibrate")
    if legacy:
        cutoff, quantile = _float64(legacy[1]), _float64(legacy[2])
        if not (0 <= cutoff <= 1 and 0 < quantile <= 1):  # NaN too
            raise CacheError(
                f"{source}: expected a cutoff from 0 to 1 and a quantile above 0 and up to 1, found {cutoff:g} and "
                f"{quantile:g}; {_DAMAGED}"
            )
    return header


def cache_from_text(text: str, source: str = "calibration cache") -> CalibrationCache:
    """Parse and check a cache.

    Args:
        text: The whole file, with Unix or Windows line endings.
        source: Name of the file for messages.

    Raises:
        CacheError: The text is not a cache, names an unknown calibrator, or has a malformed line, a scale that is not
            finite and positive, or the same tensor twice. The message names the line.
    """
    lines = text.splitlines()
    header = checked_header(lines[0] if lines else "", f"{source}:1")
    scales: dict[str, float] = {}
    zeros: list[str] = []
    whole = text.endswith("\n")  # otherwise the last line may be cut off
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        name, separator, digits = line.rpartition(": ")
        digits = digits.strip()
        cut_off = len(digits) < 8 and number == len(lines) and not whole
        if not (name and separator and _SCALE.fullmatch(digits)) or cut_off:
            raise CacheError(f"{source}:{number}: expected '<tensor>: <8 hex digits>', found '{line[:60]}'; {_DAMAGED}")
        scale = float(struct.unpack(">f", bytes.fromhex(digits.zfill(8)))[0])
        if digits == "0":
            zeros.append(name)
            scale = float(scale_from_amax(1.0))
        if not (math.isfinite(scale) and scale > 0):
            raise CacheError(
                f"{source}:{number}: expected a finite scale above zero for '{name}', found {scale}; {_DAMAGED}"
            )
        if name in scales:
            raise CacheError(f"{source}:{number}: expected each tensor once, found '{name}' again; {_DAMAGED}")
        scales[name] = scale
    if not scales:
        raise CacheError(f"{source}: expected scales after the header, found none; {_DAMAGED}")
    if len(zeros) == len(scales):
        raise CacheError(f"{source}: expected scales above zero, found 0 for every tensor; {_DAMAGED}")
    return CalibrationCache(header, scales, tuple(zeros))


def read_cache(path: Path) -> CalibrationCache:
    """Read and check a cache file.

    Raises:
        CacheError: The file cannot be read, or is not a valid cache, see `cache_from_text`.
    """
    try:
        text = text_of_file(path)
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CacheError(f"{path}: expected text, found binary data; this is no calibration cache") from None
    return cache_from_text(text, str(path))


def text_from_cache(cache: CalibrationCache) -> str:
    """The file's text.

    Raises:
        CacheError: A tensor's name contains a line break or is no Unicode, or a scale is not finite and positive.
    """
    lines = [cache.header]
    for name, scale in cache.scales.items():
        if name.splitlines() != [name]:
            raise CacheError(f"tensor {name!r}: expected a name without a line break; rename the tensor")
        if not _is_unicode(name):
            raise CacheError(
                f"tensor {name!r}: expected a name in Unicode, found half of a character; rename the tensor"
            )
        if not (math.isfinite(scale) and scale > 0):
            raise CacheError(f"tensor '{name}': expected a finite scale above zero, found {scale}")
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_tensorrt_s_own(tensor: str) -> bool:
    """Is a tensor one of TensorRT's network only: numbered by TensorRT, or named by its ONNX parser?"""
    return tensor.startswith(("(Unnamed Layer*", "ONNXTRT_"))


@dataclass(frozen=True)
class Coverage:
    """How well a cache fits a model.

    Attributes:
        missing: Tensors that need a scale but have none in the cache.
        foreign: Tensors in the cache that the model does not have.
    """

    missing: tuple[str, ...]
    foreign: tuple[str, ...]


def coverage(cache: CalibrationCache, needed: Collection[str], known: Collection[str]) -> Coverage:
    """Compare a cache with a model.

    Args:
        cache: The cache.
        needed: Tensors that must have a scale.
        known: All tensors of the model. Those of TensorRT's own network never count as foreign.
    """
    known_names = set(known)
    missing = tuple(name for name in needed if name not in cache.scales)
    foreign = tuple(name for name in cache.scales if name not in known_names and not is_tensorrt_s_own(name))
    return Coverage(missing, foreign)


def number_from_version(version: str) -> int:
    """A version as the number that caches hold: 8600 for 8.6.0, 100300 for 10.3.0."""
    parts = [int(part) for part in re.findall(r"\d+", version)[:3]]
    major, minor, patch = (*parts, 0, 0, 0)[:3]
    return major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch
