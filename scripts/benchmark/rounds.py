"""Calibration by this toolkit and its peers, in turn, each in its own process: rounds, their medians, a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from calib.processors import usable_processors

PACKAGES = ("calib-int8", "numpy", "numba", "onnx", "onnxruntime")
Figures = dict[str, Any] | str  # figures of one process, or the last line of its error


def _run(python: str, tool: str, settings: Mapping[str, Any], quantized: Path) -> Figures:
    """Figures of one process, or the last line of its error if it fails."""
    command = [python, str(Path(__file__).with_name("one_tool.py")), tool, json.dumps(settings), str(quantized)]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1]
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "process_seconds": seconds}


def _machine() -> dict[str, Any]:
    """What the figures depend on."""
    from quant.onnxruntime.backend import processor_name

    return {
        "cpu": processor_name(),
        "processors": usable_processors(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def measure_rounds(
    settings: Mapping[str, Any], tools: Sequence[str], repeat: int, modelopt_python: str = sys.executable
) -> dict[str, Any]:
    """Run rounds of all tools in turn, then measure the accuracy of each tool's model from the last round.

    Args:
        settings: Fields of RunSettings as JSON values; with `eval`, accuracy is measured.
        tools: Names from `benchmark.one_tool.TOOLS`; the plain forward pass is always measured.
        repeat: Number of rounds.
        modelopt_python: Interpreter that has nvidia-modelopt.

    Returns:
        A document for JSON: `rounds` holds, by tool, the figures of each round or the last line of its error.
    """
    tools = ["forward", *tools]
    rounds: dict[str, list[Figures]] = {tool: [] for tool in tools}
    accuracy: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeat):
            for tool in tools:
                python = modelopt_python if tool == "nvidia-modelopt" else sys.executable
                rounds[tool].append(_run(python, tool, settings, Path(folder) / f"{tool}.onnx"))
        for tool in tools[1:]:
            if settings.get("eval") and isinstance(rounds[tool][-1], dict):
                found = _run(sys.executable, "top1", settings, Path(folder) / f"{tool}.onnx")
                accuracy[tool] = found.get("top1") if isinstance(found, dict) else None
    return {
        "model": Path(settings["model"]).name,
        "images": Path(settings["data"]).name,
        **{key: settings.get(key) for key in ("num_images", "batch_size", "algo", "preprocess")},
        "machine": _machine(),
        "rounds": rounds,
        "top1": accuracy,
    }


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Medians over the rounds, by tool; the error of a tool that failed."""
    rounds, base = result["rounds"], result["rounds"]["forward"]
    found: dict[str, Any] = {}
    for tool, figures in rounds.items():
        failed = [figure for figure in figures if not isinstance(figure, dict)]
        if failed or not all(isinstance(figure, dict) for figure in base):
            found[tool] = (failed or base)[0]
            continue
        ratios = {"ratio": "seconds", "collect_ratio": "collect_seconds"}
        found[tool] = {
            **{key: statistics.median(figure[key] for figure in figures) for key in figures[0]},
            **{
                name: statistics.median(f[key] / b["seconds"] for f, b in zip(figures, base, strict=True))
                for name, key in ratios.items()
                if key in figures[0]
            },
            "top1": result["top1"].get(tool),
        }
    return found


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table of the medians."""
    lines = [
        "| tool | seconds | times the forward pass | whole process, s | peak MB | INT8 top-1 |",
        "|---|---|---|---|---|---|",
    ]
    for tool, figures in summary(result).items():
        if not isinstance(figures, dict):
            lines.append(f"| {tool} | {figures[:100]} | | | | |")
            continue
        top1 = "" if figures["top1"] is None else f"{figures['top1']:.2f}"
        lines.append(
            f"| {tool} | {figures['seconds']:.2f} | {figures['ratio']:.1f} | {figures['process_seconds']:.1f} | "
            f"{figures['peak_mb']:.0f} | {top1} |"
        )
        if "collect_seconds" in figures:
            lines.append(f"| - collection | {figures['collect_seconds']:.2f} | {figures['collect_ratio']:.1f} | | | |")
        for part, name in (("search", "search"), ("cache", "cache"), ("write", "Q/DQ model")):
            if f"{part}_seconds" in figures:
                lines.append(f"| - {name} | {figures[f'{part}_seconds']:.2f} | | | | |")
    return lines
