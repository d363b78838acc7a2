"""What happens with each kind of cache, and what a second build with the same cache costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from calib.algorithms import Entropy
from calib.caches.cache import CalibrationCache, cache_from_text, read_cache, text_from_cache
from calib.caches.plausibility import implausible_scales
from calib.calibrator import MinMaxCalibrator, calibrator_from_name
from calib.errors import CalibrationError
from gpu_sections.bench import Bench, Row, top1
from quant.calibration.stored import trusted_cache
from quant.collectors.onnxruntime_collector import collect_statistics
from quant.errors import QuantError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.backend import TensorRTBackend
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.native_calibration import native_cache_from_onnx
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.engine_file import sidecar_path

_IMAGES = 2000


def _crushed(text: str) -> str:
    cache = cache_from_text(text)
    return text_from_cache(CalibrationCache(cache.header, {name: s / 100 for name, s in cache.scales.items()}))


CASES: dict[str, Callable[[str], str]] = {
    "this release's header": lambda text: text,
    "another patch level (8601)": lambda text: text.replace("TRT-8600", "TRT-8601", 1),
    "another major release (100300)": lambda text: text.replace("TRT-8600", "TRT-100300", 1),
    "another algorithm's header": lambda text: text.replace("EntropyCalibration2", "MinMaxCalibration", 1),
    "crushed scales (a hundredth)": _crushed,
    "half of the lines": lambda text: "".join(text.splitlines(keepends=True)[: len(text.splitlines()) // 2]),
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "garbage": lambda text: f"hello\n{text[30:400]}",
}


def cases(bench: Bench) -> None:
    """Hand over TensorRT's own resnet20 cache, changed in eight ways, as `--trust-cache` does."""
    text = (bench.shared / "reference" / "tensorrt-8.6.0" / "resnet20.entropy2.cache").read_text(encoding="utf-8")
    for name, change in CASES.items():
        if not bench.results.has("cases", name):
            path = bench.work / "case.cache"
            path.write_bytes(change(text).encode())
            bench.results.add("cases", name, {"cache": name, **_case(bench, path)})


def _case(bench: Bench, path: Path) -> Row:
    model = bench.model("resnet20")
    try:
        cache = trusted_cache(path, model, Entropy())
    except CalibrationError as error:
        return {"outcome": f"refused: {str(error).removeprefix(str(path.parent) + '/')}", "top-1, %": ""}
    few = MinMaxCalibrator(bench.stream("cifar10-test", 32, 64))
    collect_statistics(model, few)
    odd = implausible_scales(cache, few.statistics)
    notes: list[str] = [f"warned: {len(odd)} of {len(cache.scales)} scales do not suit the images"] if odd else []
    images, labels = bench.test_images[0][:_IMAGES], bench.test_images[1][:_IMAGES]
    try:
        size = BatchRange(250, 250, 250)
        built = engine_from_onnx(model.proto, "int8", size, bench.options, cache=cache, note=notes.append)
    except QuantError as error:
        return {"outcome": f"refused: {error}", "top-1, %": ""}
    with Engine(built.data) as engine:
        found = top1(engine.run({"input": images})[0], labels)
    return {"outcome": "; ".join(["used, no image read", *notes]), "top-1, %": round(found, 2)}


def reuse(bench: Bench) -> None:
    """Time two builds in a row with one cache, and a third one that finds the engine on disk."""
    if bench.results.has("reuse", "found"):
        return
    model = bench.model("resnet20")
    folder = bench.work / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    options = replace(bench.options, timing_cache=None)
    engine, cache_path = folder / "model.int8.engine", folder / "calibration.cache"
    steps = {
        "calibrated": "TensorRT calibrates, and the engine is built",
        "built": "built again with the cache",
        "found": "the engine is found on disk",
    }
    for key, title in steps.items():
        start, images = time.perf_counter(), 0
        with TensorRTBackend(64, options, engines=folder) as backend:
            if key == "calibrated":
                calibrator = calibrator_from_name("entropy", bench.calibration_stream())
                cache, feed = native_cache_from_onnx(model.proto, calibrator, 64, options)
                images = feed.images
                cache_path.write_text(text_from_cache(cache), encoding="utf-8")
            build = backend.build(model, "int8", read_cache(cache_path))
            seconds = round(time.perf_counter() - start, 2)
        if key == "built":
            assert isinstance(build.payload, bytes)
            engine.write_bytes(build.payload)
            sidecar_path(engine).write_bytes(build.files[".json"])
        row = {"step": title, "images read": images, "seconds": seconds, "engine used again": build.reused}
        bench.results.add("reuse", key, row)
