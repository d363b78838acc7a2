"""Makes docs/benchmarks.md and its plot from the figures that `scripts/bench_calibration.py --results` kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.rounds import summary, table

Result = Mapping[str, Any]

_HEAD = """# Benchmarks

Made by `python scripts/benchmark_page.py docs/benchmarks.jsonl` from the figures of `scripts/bench_calibration.py`:

**Not run by the tests**: it takes minutes and needs the peers.

```bash
python scripts/bench_calibration.py model.onnx imgs/ --eval labelled-imgs/ --results benchmarks.jsonl
```

Each tool calibrates the same images with its own algorithm of that name, in turn, each in its own process
(onnxruntime.quantization's entropy does not search for a range: [migrating.md](migrating.md)). "seconds" are counted
from the first image read to the INT8 model, without imports; "times the forward pass" divides that by the time that
ONNX Runtime takes for the plain FP32 model on the same images, already decoded, in the same round. "whole process" is
what a user waits for, interpreter and imports included. All figures are medians of the rounds. Seconds are those of one
machine on one day; compare the ratios.

The peers: `onnxruntime.quantization.quantize_static` (Q/DQ, per channel, symmetric) and `modelopt.onnx.quantization`
(INT8, on the CPU). "search" is the time to find all scales in the histograms, "cache" the time to write the calibration
cache, and "Q/DQ model" the time to write the INT8 model.
"""


def _description(result: Result) -> str:
    host = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    return f"{host['cpu']}, {host['processors']} processors; Python {host['python']}, {versions}"


def _title(result: Result) -> str:
    return f"{result['model']}: {result['num_images']:,} images, {result['algo']}"


def _how(result: Result) -> str:
    preprocess = f", preprocessing `{result['preprocess']}`" if result.get("preprocess") else ""
    return f"Batch {result['batch_size']}{preprocess}, rounds: {len(result['rounds']['forward'])}."


def _advantage(result: Result) -> str:
    """How many times as fast as each peer this toolkit is."""
    found = summary(result)
    own = found.get("calib")
    peers = {tool: f for tool, f in found.items() if tool not in ("forward", "calib") and isinstance(f, dict)}
    if not isinstance(own, dict) or not peers:
        return ""
    told = [f"{f['process_seconds'] / own['process_seconds']:.1f} times as fast as {tool}" for tool, f in peers.items()]
    return f"Whole process: {', '.join(told)}.\n"


def _memory_table(results: Sequence[Result]) -> list[str]:
    """One line per model and number of images."""
    lines = ["| model | images | times the forward pass | peak MB |", "|---|---|---|---|"]
    for result in sorted(results, key=lambda r: (r["model"], r["num_images"])):
        own = summary(result).get("calib")
        if isinstance(own, dict):
            lines.append(
                f"| {result['model']} | {result['num_images']:,} | {own['ratio']:.1f} | {own['peak_mb']:.0f} |"
            )
    return lines


def _plot(results: Sequence[Result], path: Path) -> None:
    """Plot the times of all tools in forward passes, one group per run with peers."""
    from matplotlib import pyplot as plt

    shown = [r for r in results if len(r["rounds"]) > 2]
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.9 * len(shown)))
    names: list[str] = []
    places: list[float] = []
    colours = {"calib": "#1565c0", "onnxruntime.quantization": "#9e9e9e", "nvidia-modelopt": "#616161"}
    place = 0.0
    for result in shown:
        for tool, figures in summary(result).items():
            if tool == "forward" or not isinstance(figures, dict):
                continue
            axes.barh(place, figures["ratio"], color=colours[tool])
            axes.text(figures["ratio"], place, f" {figures['ratio']:.1f}x, {figures['peak_mb']:.0f} MB", va="center")
            names.append(f"{result['model'].removesuffix('.onnx')}, {result['num_images']} images: {tool}")
            places.append(place)
            place += 1
        place += 0.6
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.axvline(1, color="k", linewidth=0.8, linestyle=":")
    axes.set_xlabel("time, in forward passes of the same images (dotted line: 1); and peak memory")
    axes.margins(x=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def write_page(source: Path, folder: Path) -> Path:
    """Write benchmarks.md and benchmarks.svg into a folder; returns the page's path.

    Args:
        source: Documents of `measure_rounds`, one per line.
        folder: Where the page goes.
    """
    from matplotlib import pyplot as plt

    results = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    compared = [r for r in results if len(r["rounds"]) > 2]
    lines = [
        _HEAD,
        *sorted({f"Machine: {_description(r)}." for r in results}),
        "",
        "![Time and memory](benchmarks.svg)",
        "",
    ]
    for result in compared:
        lines += [f"## {_title(result)}", "", _how(result), "", _advantage(result), *table(result), ""]
    alone = [r for r in results if len(r["rounds"]) == 2]
    for result in alone:
        lines += [f"## {_title(result)}, this toolkit alone", "", _how(result), "", *table(result), ""]
    lines += ["## Memory by number of images", "", *_memory_table(results), ""]
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "calib", "font.size": 9}):
        _plot(results, folder / "benchmarks.svg")
    (folder / "benchmarks.md").write_text("\n".join(lines), encoding="utf-8")
    return folder / "benchmarks.md"
