"""The comparison on a GPU that docs/gpu-results.md shows: parity, accuracy, latency, deployment, reuse.

Every section is measured on its own and kept as JSON, so that a machine may be used for a short time again and again;
the page is made from all sections that are there.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calib.cache import CalibrationCache, read_cache
from calib.calibrator import calibrator_from_name
from calib.files import Transaction
from datasets import BatchStream, ImageSource, Preprocessing, open_source
from quant.engine_file import sidecar_path
from quant.errors import QuantError
from quant.evaluate import Evaluation, evaluate
from quant.graph import OnnxModel, load_model
from quant.onnxruntime_backend import OnnxRuntimeSession
from quant.tensorrt_backend import EngineBuild, TensorRTBackend
from quant.tensorrt_builder import native_cache_from_onnx
from quant.tensorrt_network import BatchRange
from quant.tensorrt_options import BuilderOptions

Rows = list[dict[str, Any]]
ALGORITHMS = {"entropy": "entropy2", "minmax": "minmax", "percentile": "legacy"}  # and the reference caches' names
MODELS = ("resnet20", "mobilenetv2", "vit")
BATCHES = (1, 32, 250)


@dataclass(frozen=True)
class Bench:
    """Where things lie, and how engines are built.

    Attributes:
        shared: Folder with `models`, `data` and `reference`.
        work: Scratch folder; holds unpacked images, timing cache and the sections' JSON.
        level: Builder effort, 0 to 5.
        torch: Python interpreter that has PyTorch and torchvision; None leaves that section out.
    """

    shared: Path
    work: Path
    level: int = 3
    torch: str | None = None

    @property
    def options(self) -> BuilderOptions:
        """How engines are built."""
        return BuilderOptions(level=self.level, timing_cache=self.work / "timing.cache")

    def backend(self, batch: BatchRange | int, **changes: Any) -> TensorRTBackend:  # noqa: ANN401 - of BuilderOptions
        """A back end with these options."""
        return TensorRTBackend(batch, BuilderOptions(**{**vars(self.options), **changes}))

    def model(self, name: str) -> OnnxModel:
        """A model by name."""
        return load_model(self.shared / "models" / f"{name}.onnx")

    def stream(self, archive: str, size: int, images: int | None = None, batch: int = 64) -> BatchStream:
        """The first images of an archive, for square inputs of that size."""
        if not (self.work / archive).exists():
            with tarfile.open(self.shared / "data" / f"{archive}.tar.gz") as file:
                file.extractall(self.work, filter="data")
        source = open_source(self.work / archive)
        assert isinstance(source, ImageSource)
        preprocessing = Preprocessing.from_spec("imagenet").bound_to((None, 3, size, size), "float32")
        count = len(source) if images is None else images
        return BatchStream(source, np.arange(count), preprocessing=preprocessing, batch_size=batch)


def parity(bench: Bench) -> Rows:
    """TensorRT's own calibration through our calibrators against TensorRT's reference caches."""
    rows: Rows = []
    for name in ("resnet20", "mobilenetv2"):
        for algorithm, kind in ALGORITHMS.items():
            path = bench.shared / "reference" / "tensorrt-8.6.0" / f"{name}.{kind}.cache"
            if not path.exists():
                continue
            start = time.perf_counter()
            cache, feed = native_cache_from_onnx(
                bench.model(name).proto,
                calibrator_from_name(algorithm, bench.stream("cifar10-calib", 32, 512)),
                64,
                bench.options,
            )
            expected = read_cache(path).amax
            errors = np.array([abs(cache.amax.get(tensor, 0.0) / value - 1) for tensor, value in expected.items()])
            rows.append(
                {
                    "model": name,
                    "algorithm": algorithm,
                    "tensors": len(expected),
                    "within 0.5 %": _share(errors <= 0.005),
                    "within 1 %": _share(errors <= 0.01),
                    "worst": f"{100 * errors.max():.3f} %",
                    "seconds": round(time.perf_counter() - start, 1),
                    "waited for data, s": round(feed.waited_seconds, 2),
                    "decoding, s": round(feed.decode_seconds, 2),
                    "copies, s": round(feed.copy_seconds, 4),
                }
            )
    return rows


def accuracy(bench: Bench) -> Rows:
    """Top-1 of all engines on all test images: scales from TensorRT, from the CPU, and as explicit Q/DQ."""
    rows: Rows = []
    for name in MODELS:
        model = bench.model(name)
        with bench.backend(250) as backend, bench.backend(250, explicit=True) as explicit:
            builds: dict[str, EngineBuild] = {p: backend.build(model, p) for p in ("fp32", "fp16")}
            for algorithm in ALGORITHMS:
                calibrator = calibrator_from_name(algorithm, bench.stream("cifar10-calib", 32, 512))
                native, _ = native_cache_from_onnx(model.proto, calibrator, 64, bench.options)
                builds[f"int8 {algorithm}, TensorRT's scales"] = backend.build(model, "int8", cache=native)
                own = _toolkit_cache(bench, backend, model, algorithm)
                builds[f"int8 {algorithm}, the CPU's scales"] = backend.build(model, "int8", cache=own)
                if algorithm == "entropy":
                    builds["int8 entropy, the CPU's scales, explicit Q/DQ"] = explicit.build(model, "int8", cache=own)
            found = evaluate(
                {label: build.runnable for label, build in builds.items()},
                "fp32",
                bench.stream("cifar10-test", 32, batch=250),
            )
            inputs = next(iter(bench.stream("cifar10-test", 32, 250, 250))).inputs
            rows += [_accuracy_row(name, label, build, found, inputs) for label, build in builds.items()]
    return rows


def _toolkit_cache(bench: Bench, backend: TensorRTBackend, model: OnnxModel, algorithm: str) -> CalibrationCache:
    calibrator = calibrator_from_name(algorithm, bench.stream("cifar10-calib", 32, 512))
    backend.collect(model, calibrator, lambda images: None)
    return calibrator.compute_cache()


def _accuracy_row(
    name: str,
    label: str,
    build: EngineBuild,
    found: dict[str, Evaluation],
    inputs: Any,  # noqa: ANN401 - arrays by name
) -> dict[str, Any]:
    latency = build.engine.latency(inputs)
    top1, baseline = found[label].top1, found["fp32"].top1
    assert top1 is not None and baseline is not None
    return {
        "model": name,
        "engine": label,
        "top-1, %": round(top1, 2),
        "drop, points": round(baseline - top1, 2),
        "ms (batch 250)": round(latency.milliseconds, 3),
        "p99 ms": round(latency.p99, 3),
        "MB": round(build.bytes / 1e6, 2),
        "device MB": round(build.details["device_memory_bytes"] / 1e6, 1),
        "layers": ", ".join(f"{count} {kind}" for kind, count in build.details["graph"]["precisions"].items()),
        "ONNX nodes": build.details["graph"]["onnx_nodes"],
    }


def latency(bench: Bench) -> Rows:
    """Latency of FP32, FP16 and INT8 at three batch sizes, with fixed and with dynamic shapes."""
    rows: Rows = []
    for name in MODELS:
        model = bench.model(name)
        with bench.backend(1) as backend:
            cache = _toolkit_cache(bench, backend, model, "entropy")
        inputs = next(iter(bench.stream("cifar10-test", 32, 250, 250))).inputs
        for batch in BATCHES:
            some = {key: array[:batch] for key, array in inputs.items()}
            row: dict[str, Any] = {"model": name, "batch": batch}
            for precision in ("fp32", "fp16", "int8"):
                with bench.backend(batch) as backend:
                    row[f"{precision} ms"] = round(
                        backend.build(model, precision, cache=cache).engine.latency(some).milliseconds, 4
                    )
            with bench.backend(BatchRange(1, batch, max(BATCHES))) as backend:
                row["int8 dynamic ms"] = round(
                    backend.build(model, "int8", cache=cache).engine.latency(some).milliseconds, 4
                )
            row["fp32 : fp16 : int8"] = " : ".join(
                f"{row['fp32 ms'] / row[f'{p} ms']:.2f}" for p in ("fp32", "fp16", "int8")
            )
            rows.append(row)
    return rows


def deployment(bench: Bench) -> Rows:
    """The resnet18 of torchvision, exported, calibrated on photographs, against PyTorch on the same GPU."""
    if bench.torch is None:
        raise QuantError("deployment: expected a Python interpreter with PyTorch and torchvision; give --torch")
    path = bench.work / "resnet18.onnx"
    eager = _torch_resnet18(bench.torch, path)
    model = load_model(path)
    check = np.load(path.with_suffix(".npz"))
    (logits,) = OnnxRuntimeSession(model.proto).run({"input": check["images"]})
    if not np.allclose(logits, check["logits"], atol=1e-3, rtol=1e-3):
        raise QuantError("deployment: the exported model does not give what PyTorch gives")
    calibrator = calibrator_from_name("entropy", bench.stream("imagenet-photos", 224, batch=20))
    rows: Rows = []
    cache: CalibrationCache | None = None
    for batch in (1, 8, 64):
        row: dict[str, Any] = {"batch": batch, **{f"PyTorch {p} ms": eager[p][str(batch)] for p in ("fp32", "fp16")}}
        with bench.backend(batch) as backend:
            if cache is None:
                backend.collect(model, calibrator, lambda images: None)
                cache = calibrator.compute_cache()
            inputs = next(iter(bench.stream("imagenet-photos", 224, min(batch, 60), min(batch, 60)))).inputs
            for precision in ("fp32", "fp16", "int8"):
                found = backend.build(model, precision, cache=cache).engine.latency(inputs)
                row[f"{precision} ms"] = round(found.milliseconds, 4)
                row[f"{precision} images/s"] = round(found.images_per_second)
        rows.append(row)
    return rows


def _torch_resnet18(python: str, path: Path) -> dict[str, dict[str, float]]:
    """Export the model, and PyTorch's own milliseconds by precision and batch; in an interpreter of its own."""
    script = Path(__file__).parents[1] / "scripts" / "torch_resnet18.py"
    own = ("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE")  # of this interpreter
    clean = {key: value for key, value in os.environ.items() if key not in own}
    done = subprocess.run([python, str(script), str(path)], check=True, capture_output=True, text=True, env=clean)
    figures: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return figures


def reuse(bench: Bench) -> Rows:
    """Two builds in a row with one cache, and the engine that is found on disk the third time."""
    model, rows = bench.model("mobilenetv2"), []
    folder = bench.work / "engines"
    folder.mkdir(exist_ok=True)
    for step in ("calibrate and build", "build again with the cache", "find the engine on disk"):
        start, images = time.perf_counter(), 0
        with TensorRTBackend(64, BuilderOptions(level=bench.level), engines=folder) as backend:
            if step == "calibrate and build":
                calibrator = calibrator_from_name("entropy", bench.stream("cifar10-calib", 32, 512))
                cache, feed = native_cache_from_onnx(model.proto, calibrator, 64, bench.options)
                images = feed.images
            build = backend.build(model, "int8", cache=cache)
            rows.append({"step": step, "images read": images, "seconds": round(time.perf_counter() - start, 1)})
            if step == "build again with the cache":
                (folder / "model.int8.engine").write_bytes(build.payload or b"")
                sidecar_path(folder / "model.int8.engine").write_bytes(build.files[".json"])
    return rows


SECTIONS: dict[str, tuple[str, Callable[[Bench], Rows]]] = {
    "parity": ("TensorRT's own calibration against its reference caches (512 images, batch 64, name order)", parity),
    "accuracy": ("Accuracy on the 10,000 CIFAR-10 test images", accuracy),
    "latency": ("Latency, fixed and dynamic shapes", latency),
    "deployment": ("Deployment: torchvision's resnet18 against PyTorch", deployment),
    "reuse": ("One cache, several builds (mobilenetv2)", reuse),
}


def measure(bench: Bench, sections: Sequence[str], say: Callable[[str], None]) -> None:
    """Measure sections; each is written when it is done, and one that fails does not keep the others from running.

    Args:
        bench: Where and how.
        sections: Names among `SECTIONS`.
        say: Called with a line for each section.
    """
    bench.work.mkdir(parents=True, exist_ok=True)
    for name in sections:
        start = time.perf_counter()
        try:
            rows = SECTIONS[name][1](bench)
        except (QuantError, subprocess.CalledProcessError) as error:
            say(f"{name}: failed: {getattr(error, 'stderr', None) or error}")
            continue
        with Transaction(bench.work) as files:
            files.stage(f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        say(f"{name}: {len(rows)} rows in {time.perf_counter() - start:.0f} s")


def page(bench: Bench, command: str) -> str:
    """The page, from all sections that were measured."""
    with TensorRTBackend(1) as backend:
        machine = f"{backend.device}; TensorRT {backend.version}"
    lines = [
        "# Results on a GPU",
        "",
        f"{machine}. Builder level {bench.level}. Latencies are medians of 200 runs by CUDA",
    ]
    lines += ["events after 20 for warm-up, inputs and outputs in device memory. Made by:", "", f"    {command}", ""]
    for name, (title, _) in SECTIONS.items():
        file = bench.work / f"{name}.json"
        if file.exists():
            lines += [f"## {title}", "", *_table(json.loads(file.read_text(encoding="utf-8"))), ""]
    return "\n".join(lines)


def _table(rows: Rows) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns), *body]


def _share(matches: Any) -> str:  # noqa: ANN401 - an array of booleans
    return f"{int(np.sum(matches))} of {len(matches)}"
