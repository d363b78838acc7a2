"""Latency: precisions, batch sizes, fixed and dynamic shapes, explicit against implicit, and PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.caches.cache import CalibrationCache, read_cache, text_from_cache
from calib.calibrator import EntropyCalibrator
from gpu_sections.bench import Bench, Row, layers_text, top1
from quant.backend import Latency
from quant.errors import QuantError
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.model import OnnxModel, load_model
from quant.qdq.operators import QUANTIZED_OPS
from quant.qdq.placement import Placement
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.engine_build import EngineBuild
from quant.tensorrt.engines.engine import Engine

BATCHES = (250, 1, 32)
DEPLOYED_BATCHES = (64, 1, 8)
PRECISIONS = ("fp32", "fp16", "int8")
FORCED = ("wide", "everywhere")  # explicit builds with fixed pairs
WIDE = 64  # output channels: resnet20's last stage, the only one where INT8 costs it next to nothing


def best_latency(engine: Engine, inputs: Mapping[str, NDArray[Any]]) -> Latency:
    """The best median of three series: the one least disturbed by other work on the machine."""
    return min((engine.latency(inputs) for _ in range(3)), key=lambda found: found.milliseconds)


def latency(bench: Bench) -> None:
    """Time FP32, FP16 and INT8 at three batch sizes, with fixed shapes."""
    for batch in BATCHES:
        for name in bench.models:
            if bench.results.has("latency", f"{name} {batch}"):
                continue
            images, cache = bench.test_images[0], bench.cpu_cache(name, "entropy")
            row: Row = {"model": name, "batch": batch}
            for precision in PRECISIONS:
                found = _latency_of(bench, bench.model(name), precision, batch, cache, images)
                row[f"{precision} ms"] = round(found.milliseconds, 4)
                row[f"{precision} p99"] = round(found.p99 or 0.0, 4)
            row["int8 images/s"] = round(1000 * batch / row["int8 ms"])
            row["fp32 : fp16 : int8"] = " : ".join(f"{row['fp32 ms'] / row[f'{p} ms']:.2f}" for p in PRECISIONS)
            row["level"] = bench.level
            bench.results.add("latency", f"{name} {batch}", row)


def dynamic(bench: Bench) -> None:
    """Compare one INT8 engine with a dynamic shape for all batches with the fixed ones that `latency` measured."""
    for name in bench.models:
        fixed = bench.results.document().get("latency", {})
        missing = [b for b in BATCHES if f"{name} {b}" in fixed and not bench.results.has("dynamic", f"{name} {b}")]
        if not missing:
            continue
        images, cache = bench.test_images[0], bench.cpu_cache(name, "entropy")
        with bench.backend(BatchRange(1, 32, max(BATCHES))) as backend:
            engine = backend.build(bench.model(name), "int8", cache).engine
            for batch in missing:
                found = best_latency(engine, {"input": images[:batch]})
                static = fixed[f"{name} {batch}"]["int8 ms"]
                row: Row = {
                    "model": name,
                    "batch": batch,
                    "fixed ms": static,
                    "dynamic ms": round(found.milliseconds, 4),
                    "dynamic / fixed": round(found.milliseconds / static, 2),
                    "level": bench.level,
                }
                bench.results.add("dynamic", f"{name} {batch}", row)


def _latency_of(
    bench: Bench,
    model: OnnxModel,
    precision: str,
    batch: int,
    cache: CalibrationCache | None,
    images: NDArray[np.float32],
) -> Latency:
    with bench.backend(batch) as backend:
        return best_latency(backend.build(model, precision, cache).engine, {"input": images[:batch]})


def explicit(bench: Bench) -> None:
    """Compare a calibration cache with Q/DQ from the same scales: with FP16, without it, and with fixed pairs."""
    failed = []
    for name in bench.models:
        for kind in ("mixed", "strict", *FORCED):
            if not bench.results.has("explicit", f"{name} {kind}"):
                try:
                    bench.results.add("explicit", f"{name} {kind}", _explicit_row(bench, name, kind))
                except QuantError as error:  # the other rows are still worth having
                    failed.append(f"{name} {kind}: {error}")
    if failed:
        raise QuantError("; ".join(failed))


def _explicit_row(bench: Bench, name: str, kind: str) -> Row:
    cache, strict = bench.cpu_cache(name, "entropy"), kind == "strict"
    known = bench.results.document().get("explicit", {}).get(f"{name} mixed", {}) if kind in FORCED else {}
    row: Row = {
        "model": name,
        "pairs": kind if kind in FORCED else "chosen",
        "FP16 allowed": "no" if strict else "yes",
    }
    with bench.backend(250, strict_int8=strict) as backend:
        if known:
            row |= {key: known[key] for key in known if key.startswith("implicit")}
        else:
            row |= _measured(bench, "implicit", backend.build(bench.model(name), "int8", cache))
    with bench.backend(250, strict_int8=strict, explicit=kind not in FORCED) as backend:
        if kind in FORCED:
            build = backend.load(_with_pairs(bench, name, cache, kind), "int8")
        else:
            build = backend.build(bench.model(name), "int8", cache)
        row |= _measured(bench, "explicit", build)
    row["explicit / implicit"] = round(row["explicit ms"] / row["implicit ms"], 3)
    row["level"] = bench.level
    return row


def _measured(bench: Bench, kind: str, build: EngineBuild) -> Row:
    images, labels = bench.test_images
    return {
        f"{kind} ms": round(best_latency(build.engine, {"input": images[:250]}).milliseconds, 4),
        f"{kind} top-1, %": round(top1(build.engine.run({"input": images})[0], labels), 2),
        f"{kind} layers": layers_text(build.details),
    }


def _with_pairs(bench: Bench, name: str, cache: CalibrationCache, kind: str) -> OnnxModel:
    """The model with Q/DQ on every kernel, or on those with constant weights and at least `WIDE` output channels."""
    named = prepared_proto(bench.model(name).proto, BatchRange(250, 250, 250), name)
    editor = prepared_for_quantization(named)
    kernels = [node for node in editor.nodes if node.op_type in QUANTIZED_OPS]
    floats = frozenset(node.name for node in kernels if kind == "wide" and not _is_wide(node, editor))
    path = bench.work / f"{name}.{kind}.onnx"
    onnx.save(qdq_model_from_amax(named, cache.amax, Placement(float_nodes=floats)), path)
    return load_model(path)


def _is_wide(kernel: onnx.NodeProto, editor: GraphEditor) -> bool:
    weights = editor.constants.get(kernel.input[1])
    return weights is not None and weights.shape[0 if kernel.op_type == "Conv" else -1] >= WIDE


def deployment(bench: Bench) -> None:
    """Compare torchvision's resnet18, exported and calibrated on photographs, with PyTorch on the same GPU."""
    if bench.torch is None:
        raise QuantError("deployment: expected a Python interpreter with PyTorch and torchvision; give --torch")
    missing = [batch for batch in DEPLOYED_BATCHES if not bench.results.has("deployment", str(batch))]
    if not missing:
        return
    path = bench.work / "resnet18.onnx"
    eager = _torch_resnet18(bench, bench.torch, path)
    check = eager["export"]
    model = load_model(path)
    cache = _photo_cache(bench, model)
    photos = np.concatenate([batch.inputs["input"] for batch in bench.stream("imagenet-photos", 224, batch=20)])
    for batch in missing:
        row: Row = {"batch": batch}
        for precision in ("fp32", "fp16"):
            row[f"PyTorch {precision} ms"] = eager[precision][str(batch)]
        inputs = np.resize(photos, (batch, *photos.shape[1:]))  # repeats the 60 photographs
        for precision in PRECISIONS:
            found = _latency_of(bench, model, precision, batch, cache, inputs)
            row[f"{precision} ms"] = round(found.milliseconds, 4)
            row[f"{precision} images/s"] = round(found.images_per_second)
        row["PyTorch fp16 : int8"] = round(row["PyTorch fp16 ms"] / row["int8 ms"], 2)
        row["ONNX Runtime against PyTorch"] = f"{check['difference']:.2g} of {check['largest']:.2g}"
        row["level"] = bench.level
        bench.results.add("deployment", str(batch), row)


def _photo_cache(bench: Bench, model: OnnxModel) -> CalibrationCache:
    path = bench.work / "resnet18.entropy.cpu.cache"
    if not path.exists():
        from quant.collectors.onnxruntime_collector import collect_statistics

        calibrator = EntropyCalibrator(bench.stream("imagenet-photos", 224, batch=20))
        collect_statistics(model, calibrator)
        path.write_text(text_from_cache(calibrator.compute_cache()), encoding="utf-8")
    return read_cache(path)


def _torch_resnet18(bench: Bench, python: str, path: Path) -> dict[str, dict[str, float]]:
    """The model and check of `calib export`, and PyTorch's own milliseconds by precision and batch.

    This runs in a separate interpreter, which needs PyTorch, torchvision and the packages of `calib export`.
    """
    script = Path(__file__).parents[2] / "scripts" / "torch_resnet18.py"
    command = [python, str(script), str(path), str(bench.folder("imagenet-photos"))]
    own = ("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE")  # settings of this interpreter
    clean = {key: value for key, value in os.environ.items() if key not in own}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=clean)
    figures: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return figures
