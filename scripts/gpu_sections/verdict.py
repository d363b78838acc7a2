"""What a user waits for: calibration on the GPU in images per second, and whole runs from command to report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_sections.bench import CALIBRATION_BATCH, Bench, Row
from gpu_sections.collection import Subject, throughput
from quant.tensorrt.building.options import BuilderOptions

_ROOT = Path(__file__).resolve().parents[2]
_LEVELS = (0, 3)
_STAGES = ("build fp32", "build fp16", "build int8", "calibration", "evaluation", "evaluation: latency", "recovery")
_IMAGES = {"memory": 32768, "files": 10000}


def collection(bench: Bench) -> None:
    """Images per second of calibration on the GPU, from decoded memory and from files."""
    for name in bench.models:
        for origin, images in _IMAGES.items():
            if not bench.results.has("collection", f"{name} {origin}"):
                archive = "cifar10-calib" if origin == "memory" else "cifar10-test"
                subject = Subject(bench.model(name), bench.folder(archive), CALIBRATION_BATCH, BuilderOptions(level=0))
                row = throughput(subject, images, decoded=origin == "memory")
                bench.results.add("collection", f"{name} {origin}", row)


def verdict(bench: Bench) -> None:
    """Whole runs in processes of their own, each in an empty folder; where the time went by their own account."""
    for name in bench.models:
        for level in _LEVELS:
            if not bench.results.has("verdict", f"{name} {level}"):
                bench.results.add("verdict", f"{name} {level}", _run(bench, name, level))


def _run(bench: Bench, name: str, level: int) -> Row:
    model = (bench.shared / "models" / f"{name}.onnx").resolve()
    command = [sys.executable, "-c", "from calib.cli import main; main()", "run", "--model", str(model)]
    command += ["--data", str(bench.folder("cifar10-calib").resolve()), "--preprocess", "imagenet"]
    command += ["--eval", str(bench.folder("cifar10-test").resolve()), "--out", "out"]
    command += ["--backend", "tensorrt", "--builder-level", str(level)]
    paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
        written = Path(folder) / "out" / "report.json"
        if not written.is_file():  # the verdict has exit codes too
            raise subprocess.SubprocessError(f"{name}, level {level}: {done.stderr.strip()[-200:]}")
        report = json.loads(written.read_text(encoding="utf-8"))
    stages = report["timings"]
    return {
        "model": name,
        "level": level,
        "s, all": round(seconds, 1),
        **{f"s, {stage}": round(stages.get(stage, 0.0), 1) for stage in _STAGES},
        "s, INT8 done after": round(report["timeline"]["build int8"][1], 1) if "build int8" in stages else "",
        "verdict": report["verdict"],
    }
