"""The sections of the report, their measurement, and the page."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

from calib.errors import CalibrationError
from gpu_sections.accuracy import accuracy, parity
from gpu_sections.bench import Bench, Results
from gpu_sections.caches import cases, reuse
from gpu_sections.placements import placements
from gpu_sections.recovery import recovery
from gpu_sections.robustness import failures, feeding
from gpu_sections.speed import deployment, dynamic, explicit, latency
from gpu_sections.verdict import collection, verdict
from quant.errors import QuantError

Section = tuple[str, str, Callable[[Bench], None]]
SECTIONS: dict[str, Section] = {
    "parity": (
        "TensorRT's own calibration, through this toolkit's calibrators",
        "512 images in name order, batch 64, against the caches that TensorRT 8.6.0 wrote from the same images. "
        "Tensors inside TensorRT's network, which it numbers, are compared by kind.",
        parity,
    ),
    "accuracy": (
        "Accuracy on the 10,000 CIFAR-10 test images",
        "INT8 engines may use FP16 kernels. The CPU's scales come from ONNX Runtime; their engines were built without "
        "images.",
        accuracy,
    ),
    "latency": (
        "Latency",
        "Fixed shapes; entropy scales. Ratios are speeds against FP32.",
        latency,
    ),
    "dynamic": ("Dynamic shapes", "One INT8 engine for all batches, 1:32:250, against the fixed ones.", dynamic),
    "explicit": (
        "Explicit Q/DQ against the implicit build from the same cache",
        "Batch 250, top-1 on all 10,000 CIFAR-10 test images. `chosen` is what `--explicit` does: it takes the "
        "fastest of several placements (and of the float engine, if TensorRT by itself runs no kernel in INT8); of "
        "those within 5 % of the fastest, it takes the one with the most INT8. `everywhere` has pairs on all kernels; "
        "`wide` has them on kernels with at least 64 output channels and constant weights.",
        explicit,
    ),
    "placements": (
        "What explicit builds try",
        "Batch 250 (the detector: 8); top-1 on all 10,000 CIFAR-10 test images, for the detector the SQNR of its "
        "outputs against FP32. The first row of a model is TensorRT's own choice from the same cache. The next ones, "
        "at most four, are what `--explicit` tries, of which it takes the first that is as fast within 5 %, else the "
        "fastest; then come placements by themselves. `work` is the share of multiply-accumulates in layers that "
        "compute in INT8.",
        placements,
    ),
    "recovery": (
        "INT8 that loses too much, made good",
        "Batch 250, `--max-drop 0.5`, top-1 on all 10,000 CIFAR-10 test images, entropy scales of 512 images. "
        "mobilenetv2-planted is mobilenetv2 with a tenth of its free channels 64 times louder, the same function "
        "(`scripts/make_loud_channels.py`). `only products left in float` allows no other step.",
        recovery,
    ),
    "collection": (
        "Calibration on the GPU",
        "Forward pass and counting of all activations, batch 64, level 0; images in memory repeat. "
        "`engine s` comes on top, once.",
        collection,
    ),
    "verdict": (
        "Time to the verdict",
        "Whole processes of `calib run --backend tensorrt`: 512 calibration images, 10,000 evaluation images, nothing "
        "used again. At level 0, builds go on beside calibration and evaluation, so stages add up to more than all.",
        verdict,
    ),
    "deployment": (
        "Deployment: torchvision's resnet18 against PyTorch",
        "Random weights, seed 0; exported by `calib export`, which compares ONNX Runtime with PyTorch on 16 "
        "photographs (largest difference of a logit, and largest logit); calibrated on 60. PyTorch runs eagerly.",
        deployment,
    ),
    "cases": (
        "Wrong or damaged caches",
        "resnet20; top-1 on the first 2,000 CIFAR-10 test images in name order, "
        "two of the ten classes (FP32: 76.15 %).",
        cases,
    ),
    "reuse": ("One cache, several builds (resnet20)", "Without a timing cache.", reuse),
    "failures": (
        "What is left after a failure",
        "`calib run --backend tensorrt --calibrator tensorrt` on the sample project, with an older cache and engine.",
        failures,
    ),
    "feeding": (
        "200 batches through the calibrator",
        "Copies run while the next batch is decoded, so decoding and copies overlap and add up to more than the total.",
        feeding,
    ),
}


def measure(bench: Bench, sections: Sequence[str], say: Callable[[str], None]) -> None:
    """Measure the missing rows; a section that fails does not stop the others.

    Args:
        bench: Where and how to measure.
        sections: Names among `SECTIONS`.
        say: Called with a line for each section.
    """
    bench.work.mkdir(parents=True, exist_ok=True)
    bench.results.path.parent.mkdir(parents=True, exist_ok=True)
    known = (
        bench.results.document().get("machine", {}).get("machine", {})
    )  # PyTorch's version, if an earlier run had it
    bench.results.add("machine", "machine", {**known, **_machine(bench)})
    for name in sections:
        start = time.perf_counter()
        try:
            SECTIONS[name][2](bench)
        except (QuantError, CalibrationError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            say(f"{name}: failed: {getattr(error, 'stderr', None) or error}")
        rows = bench.results.document().get(name, {})
        say(f"{name}: {len(rows)} rows, {time.perf_counter() - start:.0f} s")


def _machine(bench: Bench) -> dict[str, Any]:
    import onnxruntime

    from calib.processors import usable_processors
    from quant.cuda.device import find_device
    from quant.onnxruntime.backend import processor_name
    from quant.tensorrt.bindings import load_tensorrt

    gpu = find_device()
    machine = {
        "GPU": f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory >> 20} MiB",
        "NVIDIA driver": f"for CUDA {gpu.driver_cuda}",
        "Processors": f"{usable_processors()}, {processor_name()}",
        "TensorRT": load_tensorrt().version,
        "ONNX Runtime": onnxruntime.__version__,
        "Python": platform.python_version(),
    }
    if bench.torch is not None:
        command = [bench.torch, "-c", "import torch, torchvision; print(torch.__version__, torchvision.__version__)"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        machine["PyTorch, torchvision"] = done.stdout.strip().replace(" ", ", ") or "not found"
    return machine


def page(results: Results, command: str) -> str:
    """The page, from all measured rows and the remarks on them; needs no GPU.

    Args:
        results: The rows.
        command: The command that measured them.
    """
    document = results.document()
    lines = ["# Results on a GPU", ""]
    for machine in document.get("machine", {}).values():
        lines += [f"- {key}: {value}" for key, value in machine.items()]
    lines += [
        "",
        "Latencies are medians (p99: 99th percentiles) of 200 runs by CUDA events after 20 for warm-up, the best of",
        "three series, inputs and outputs in device memory. `level` is the builder's optimization level (`--level`).",
        "Images are preprocessed with the preset `imagenet`. Measured with",
        "",
        f"    {command}",
        "",
    ]
    for remark in document.get("remarks", {}).values():
        lines += [f"- {line}" if i == 0 else f"  {line}" for i, line in enumerate(wrap(str(remark["text"]), 116))]
    lines += [""] * bool(document.get("remarks"))
    for name, (title, introduction, _) in SECTIONS.items():
        rows = list(document.get(name, {}).values())
        if name == "accuracy":
            rows = _with_drops(rows)
        if rows:
            lines += [f"## {title}", "", introduction, "", *_table(rows), ""]
    return "\n".join(lines)


def _with_drops(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by model, each with its drop against that model's FP32 engine."""
    key = "top-1, %"
    fp32 = {row["model"]: row[key] for row in rows if row["engine"] == "fp32"}
    ordered = sorted(rows, key=lambda row: (row["model"], not row["engine"].startswith("fp"), row["engine"]))
    drops = [round(fp32[row["model"]] - row[key], 2) if row["model"] in fp32 else "" for row in ordered]
    return [
        {"model": row["model"], "engine": row["engine"], key: row[key], "drop, points": drop, **row}
        for row, drop in zip(ordered, drops, strict=True)
    ]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body = ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns), *body]


def _cell(value: object) -> str:
    return "" if value is None else " ".join(str(value).replace("|", "\\|").split())
