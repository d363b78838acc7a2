"""INT8 that loses too much, made good: drops and latencies before and after, and products left in float."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_sections.bench import CALIBRATION_IMAGES, Bench, Row, layers_text
from quant import RunSettings, run

PLANTED = {"mobilenetv2-planted": "mobilenetv2"}  # made from these by scripts/make_loud_channels.py
MODELS = ("resnet20-outlier", *PLANTED)
WAYS: dict[str, dict[str, Any]] = {  # what is asked for: name of the row, settings
    "as calibrated": {"recover": "off"},
    "recovered": {},
    "recovered, FP16 forbidden": {"strict_int8": True},
    "only products left in float": {"recover": "float"},
    "only products left in float, explicit": {"recover": "float", "explicit": True},
}


def recovery(bench: Bench) -> None:
    """Measure top-1 and latency of INT8 as calibrated, recovered, and with products in float, at --max-drop 0.5."""
    for name in MODELS:
        for way, changes in WAYS.items():
            if not bench.results.has("recovery", f"{name} {way}"):
                bench.results.add("recovery", f"{name} {way}", _row(bench, name, way, changes))


def _row(bench: Bench, name: str, way: str, changes: dict[str, Any]) -> Row:
    settings = RunSettings(
        model=_model(bench, name),
        data=bench.folder("cifar10-calib"),
        eval=bench.folder("cifar10-test"),
        preprocess="imagenet",
        algo="entropy",
        num_images=CALIBRATION_IMAGES,
        sampling="first",
        batch_size=250,
        backend="tensorrt",
        builder_level=bench.level,
        max_drop=0.5,
        out=bench.work / f"recovery-{name}-{way.replace(' ', '-').replace(',', '')}",
        **changes,
    )
    document = run(settings)
    builds = {row["precision"]: row for row in document["builds"]}
    found, int8 = document["recovery"], builds["int8"]
    row: Row = {
        "model": name,
        "INT8": way,
        "drop, points": round(int8["drop_top1"], 2),
        "FP32, top-1 %": round(builds["fp32"]["top1"], 2),
        "INT8, ms": round(int8["latency_ms"], 3),
        "FP16, ms": round(builds["fp16"]["latency_ms"], 3),
        "FP32, ms": round(builds["fp32"]["latency_ms"], 3),
        "layers": layers_text(int8["tensorrt"]),
        "explicit": int8["tensorrt"]["explicit"],
        "verdict": document["chosen"] or document["verdict"],
        "level": bench.level,
    }
    if found:
        row |= {
            "steps kept": ", ".join(step["step"] for step in found["steps"] if step["kept"]),
            "last look": found["looks"][-1] if found["looks"] else "",
            "work in INT8, %": found["int8_share"],
            "left in float": ", ".join(found["float_nodes"]),
            "search, s": round(found["seconds"]),
            "evaluations": found["evaluations"],
        }
    return row


def _model(bench: Bench, name: str) -> Path:
    """The model's file; a planted one is made first."""
    if name not in PLANTED:
        return bench.shared / "models" / f"{name}.onnx"
    path = bench.work / f"{name}.onnx"
    if not path.exists():
        script = Path(__file__).resolve().parents[1] / "make_loud_channels.py"
        source = bench.shared / "models" / f"{PLANTED[name]}.onnx"
        subprocess.run([sys.executable, script, source, path, "--size", "32x32"], check=True)
    return path
