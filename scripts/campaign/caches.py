"""Calibration caches: spoiled texts through every command that reads one, and trusted ones times a factor."""

from __future__ import annotations

import json
import math
import random
import unicodedata
from pathlib import Path

from campaign.cases import Fault, Told, calib, untouched_if_refused
from campaign.projects import RUN, fresh, spoiled, write_project

SIZE = 10_000
SECONDS = 120

_project: list[Path] = []
_COMMANDS = (
    ("cache", "show", "my.cache"),
    ("cache", "show", "my.cache", "--json"),
    ("cache", "check", "my.cache"),
    ("cache", "check", "my.cache", "--model", "model.onnx"),
    ("cache", "diff", "my.cache", "calib-out/calibration.cache"),
    ("cache", "diff", "my.cache", "scales.json", "--json"),
    ("cache", "convert", "my.cache", "new.json"),
    ("cache", "convert", "my.cache", "new.cache", "--tensorrt", "10.3.0", "--header", "minmax"),
    ("cache", "convert", "my.cache", "new.onnx", "--model", "model.onnx"),
)


def prepare(folder: Path) -> None:
    """Write a finished project."""
    _project.append(write_project(folder))


def attempt(chance: random.Random, folder: Path) -> str:
    """Spoil a cache and read it, or trust one whose scales were changed."""
    here = _project[0]
    sound = (here / "calib-out" / "calibration.cache").read_bytes()
    if chance.random() < 0.01:
        return _trusted(chance, fresh(here), sound)
    mine = here / "my.cache"
    source = sound if chance.random() < 0.8 else (here / "scales.json").read_bytes()
    mine.write_bytes(spoiled(chance, source))
    command = chance.choice(_COMMANDS)
    try:
        with untouched_if_refused(here) as ends:
            told = calib(*command, cwd=here)
            ends.append(told)
        _check_shown(told)
        _check_scales(mine)
        if told.code == 0 and "--json" in command:
            json.loads(told.out, parse_constant=_no_constant)
        return told.word
    finally:
        for name in ("my.cache", "new.json", "new.cache", "new.onnx"):
            (here / name).unlink(missing_ok=True)


def _no_constant(name: str) -> None:
    raise Fault(f"{name} is no JSON")


def _check_shown(told: Told) -> None:
    seen = [c for c in told.out + told.err if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"]
    if seen:
        raise Fault(f"{seen[0]!r} reaches the terminal")


def _check_scales(path: Path) -> None:
    """No scale that is accepted may be one that no quantization can have."""
    from calib.errors import CacheError
    from quant.jobs.cache_convert import read_cache_file

    try:
        cache = read_cache_file(path).cache
    except CacheError:
        return
    for name, scale in cache.scales.items():
        if not (math.isfinite(scale) and scale > 0):
            raise Fault(f"scale {scale} of '{name}' was accepted")
    if cache.percentile is not None and not 0 < cache.percentile <= 100:
        raise Fault(f"percentile {cache.percentile} was accepted")


def _trusted(chance: random.Random, here: Path, sound: bytes) -> str:
    """A whole cache, or one scale of it, times a factor: it is warned of; the sound one is not."""
    from calib.caches.cache import CalibrationCache, cache_from_text, text_from_cache

    cache = cache_from_text(sound.decode())
    factor = chance.choice((1, 0.01, 0.1, 0.5, 2, 10, 100))
    chosen = set(cache.scales)
    if factor in (0.01, 0.1, 10, 100) and chance.random() < 0.5:
        chosen = {chance.choice(list(cache.scales))}
    scales = {name: scale * (factor if name in chosen else 1) for name, scale in cache.scales.items()}
    (here / "my.cache").write_text(text_from_cache(CalibrationCache(cache.header, scales)))
    with untouched_if_refused(here) as ends:
        told = calib(*RUN, "--cache", "my.cache", "--trust-cache", cwd=here)
        ends.append(told)
    if told.code == 1:
        raise Fault(f"a sound cache times {factor} is refused: {told.err[-300:]}")
    if ("do not suit the images" in told.err) != (factor != 1):
        raise Fault(f"{len(chosen)} of {len(scales)} scales times {factor}: {told.err[-300:]}")
    return "trusted"
