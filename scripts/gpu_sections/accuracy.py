"""Scales and accuracy: TensorRT's own calibration against its reference caches, and top-1 of all engines."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping

import numpy as np

from calib.caches.cache import CalibrationCache, read_cache
from gpu_sections.bench import ALGORITHMS, Bench, Row, layers_text, top1


def parity(bench: Bench) -> None:
    """Compare TensorRT's own calibration, through our calibrators, with TensorRT's reference caches."""
    for name in bench.models:
        for algorithm in bench.algorithms:
            kind = ALGORITHMS[algorithm]
            path = bench.shared / "reference" / "tensorrt-8.6.0" / f"{name}.{kind}.cache"
            if path.exists() and not bench.results.has("parity", f"{name} {algorithm}"):
                bench.results.add(
                    "parity", f"{name} {algorithm}", _parity_row(bench, name, algorithm, read_cache(path))
                )


def _parity_row(bench: Bench, name: str, algorithm: str, reference: CalibrationCache) -> Row:
    start = time.perf_counter()
    cache, feed = bench.native_cache(name, algorithm)
    found, expected = by_kind(cache.amax), by_kind(reference.amax)
    errors = np.array([abs(found.get(tensor, 0.0) / amax - 1) for tensor, amax in expected.items()])
    row: Row = {
        "model": name,
        "algorithm": algorithm,
        "tensors": len(errors),
        "within 0.5 %": int((errors <= 0.005).sum()),
        "within 1 %": int((errors <= 0.01).sum()),
        "worst, %": round(100 * float(errors.max()), 5),
    }
    if feed is not None:
        row |= {
            "seconds": round(time.perf_counter() - start, 1),
            "decoding, s": round(feed.decode_seconds, 3),
            "copies, s": round(feed.copy_seconds, 4),
            "TensorRT waited, s": round(feed.waited_seconds, 4),
        }
    return row


def by_kind(amax: Mapping[str, float]) -> dict[str, float]:
    """Amax with TensorRT's inner tensors numbered by kind: their own numbers depend on the nodes parsed before."""
    seen: Counter[str] = Counter()
    named = {}
    for tensor, value in amax.items():
        match = re.fullmatch(r"\(Unnamed Layer\* \d+\) (.+)", tensor)
        if match is not None:
            seen[match[1]] += 1
        named[tensor if match is None else f"{match[1]} {seen[match[1]]}"] = value
    return named


def accuracy(bench: Bench) -> None:
    """Measure top-1 on all test images: FP32, FP16, and INT8 with scales from TensorRT and from the CPU."""
    for name in bench.models:
        if "entropy" in bench.algorithms:  # only once, even if several processes share the algorithms
            _engine_row(bench, name, "fp32", None, "")
            _engine_row(bench, name, "fp16", None, "")
        for algorithm in bench.algorithms:
            _engine_row(bench, name, "int8", bench.cpu_cache(name, algorithm), f" {algorithm}, the CPU's scales")
            native = f" {algorithm}, TensorRT's scales"
            if not bench.results.has("accuracy", f"{name} int8{native}"):
                _engine_row(bench, name, "int8", bench.native_cache(name, algorithm)[0], native)


def _engine_row(bench: Bench, name: str, precision: str, cache: CalibrationCache | None, what: str) -> None:
    label = f"{precision}{what}"
    key = f"{name} {label}"
    if bench.results.has("accuracy", key):
        return
    images, labels = bench.test_images
    with bench.backend(250) as backend:
        start = time.perf_counter()
        build = backend.build(bench.model(name), precision, cache)
        seconds = time.perf_counter() - start
        found = top1(build.engine.run({"input": images})[0], labels)
    row: Row = {
        "model": name,
        "engine": label,
        "top-1, %": round(found, 2),
        "MB": round(build.bytes / 1e6, 2),
        "device MB": round(build.details["device_memory_bytes"] / 1e6, 1),
        "tensors without scale": len(build.details["without_scale"]),
        "layers": layers_text(build.details),
        "build, s": round(seconds, 1),
        "level": bench.level,
    }
    bench.results.add("accuracy", key, row)
