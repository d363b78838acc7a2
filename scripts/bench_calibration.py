"""Calibration by this toolkit and by its peers on the same images, in turn, each in a process of its own.

    python scripts/bench_calibration.py model.onnx imgs/ --eval labelled-imgs/

Prints seconds, ratio to the plain FP32 forward pass of the same images, peak memory and INT8 top-1. A peer that is not
installed is left out.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def run(python, tool, settings, quantized):
    command = [python, "-m", "quant.benchmark", tool, json.dumps(settings), str(quantized)]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--eval", help="labelled images for INT8 top-1; left out, none is measured")
    parser.add_argument("--algo", default="entropy", choices=["entropy", "minmax", "percentile"])
    parser.add_argument("--num-images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--preprocess", default="imagenet")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the median is printed")
    parser.add_argument("--tools", default="calib,onnxruntime.quantization,nvidia-modelopt")
    parser.add_argument("--modelopt-python", default=sys.executable, help="interpreter that has nvidia-modelopt")
    options = parser.parse_args()
    settings = {
        "model": options.model,
        "data": options.images,
        "preprocess": options.preprocess,
        "algo": options.algo,
        "num_images": options.num_images,
        "batch_size": options.batch_size,
        "sampling": "first",
    }
    if options.eval:
        settings["eval"] = options.eval
    tools = ["forward", *options.tools.split(",")]
    figures = {tool: [] for tool in tools}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeat):
            for tool in tools:
                python = options.modelopt_python if tool == "nvidia-modelopt" else sys.executable
                figures[tool].append(run(python, tool, settings, Path(folder) / f"{tool}.onnx"))
        accuracy = {}
        for tool in tools[1:]:
            if options.eval and isinstance(figures[tool][-1], dict):
                accuracy[tool] = run(sys.executable, "top1", settings, Path(folder) / f"{tool}.onnx")
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}; {options.model},")
    print(
        f"{options.num_images} images, batch {options.batch_size}, {options.algo}; median of {options.repeat} rounds\n"
    )
    print("| tool | seconds | times the forward pass | peak MB | INT8 top-1 |\n|---|---|---|---|---|")
    for tool in tools:
        failed = [figure for figure in figures[tool] if not isinstance(figure, dict)]
        if failed:
            print(f"| {tool} | {failed[0][:100]} | | | |")
            continue
        ratios = [f["seconds"] / base["seconds"] for f, base in zip(figures[tool], figures["forward"], strict=True)]
        middle = {key: statistics.median(figure[key] for figure in figures[tool]) for key in figures[tool][0]}
        found = accuracy.get(tool)
        top1 = f"{found['top1']:.2f}" if isinstance(found, dict) and found["top1"] is not None else ""
        ratio = statistics.median(ratios)
        print(f"| {tool} | {middle['seconds']:.2f} | {ratio:.1f} | {middle['peak_mb']:.0f} | {top1} |")
        for key in ("collect_seconds", "search_seconds", "write_seconds"):
            if key in middle:
                print(f"|   {key.split('_')[0]} | {middle[key]:.2f} | | | |")


if __name__ == "__main__":
    main()
