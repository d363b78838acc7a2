"""Runs jobs on a model of any size, and prints how much memory they took beside the size of the model.

    python scripts/bench_large_model.py --gigabytes 2.5
    python scripts/bench_large_model.py --gigabytes 1.4 --one-file

Makes a model with `make_large_model.py`, and noise for images. Each job runs in a process of its own. Its peak memory
is what the system says that it held, weights that are mapped from files included, and beside it what it held without
these: the system can drop those at any time. Then ONNX Runtime alone loads and runs every model that was written.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from make_large_model import write_model
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LOADED = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
found = session.run(None, {"x": numpy.random.default_rng(0).random((2, 3, 32, 32), numpy.float32)})[0]
print(found.shape, "finite" if numpy.isfinite(found).all() else "NOT FINITE")
"""


def measured(command, folder):
    """Exit code, seconds, and peak bytes that a process held: in all, and without what was mapped from files."""
    start, anonymous = time.perf_counter(), 0
    with (folder / "log.txt").open("w") as log:
        child = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        while (found := os.wait4(child.pid, os.WNOHANG))[0] == 0:
            status = Path(f"/proc/{child.pid}/status")
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
            anonymous = max(anonymous, int(lines.get("RssAnon", "0 kB").split()[0]) << 10)
            time.sleep(0.02)
    child.returncode = os.waitstatus_to_exitcode(found[1])
    return child.returncode, time.perf_counter() - start, found[2].ru_maxrss << 10, anonymous


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.5, help="size of the model, 1e9 bytes")
    parser.add_argument("--one-file", action="store_true", help="weights in the model's own file")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--jobs", nargs="+", default=["run", "compare"], choices=["run", "compare", "sweep"])
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes; it takes twice the model's size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="calib-", dir=options.folder) as name:
        folder = Path(name)
        write_model(folder / "model.onnx", options.gigabytes * 1e9, one_file=options.one_file)
        (folder / "imgs").mkdir()
        for i in range(options.images):
            noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(noise).save(folder / "imgs" / f"{i:04}.png")
        size = sum(path.stat().st_size for path in folder.glob("model.onnx*"))
        print(f"{'one file' if options.one_file else 'weights beside the graph'}, {size / 1e9:.2f} GB\n")
        arguments = ["--data", "imgs", "--quiet", "--num-images", str(options.images // 2)]
        models = {
            "run": ["model.onnx"],
            "sweep": ["model.onnx"],
            "compare": ["model.onnx", "calib-out/model.int8.onnx"],
        }
        for job in options.jobs:
            given = models[job] if job == "compare" else ["--model", *models[job], *arguments[3:]]
            command = [sys.executable, "-c", "from calib.cli import main; main()", job, *given, *arguments[:3]]
            code, seconds, peak, anonymous = measured(command, folder)
            print(f"calib {job}: exit code {code}, {seconds:.0f} s")
            print(f"    peak {peak / 1e9:.2f} GB, {peak / size:.2f} times the model")
            print(f"    without mapped files {anonymous / 1e9:.2f} GB, {anonymous / size:.2f} times")
            if code not in (0, 3):
                print((folder / "log.txt").read_text())
        for path in sorted((folder / "calib-out").glob("*.onnx")):
            beside = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
            done = subprocess.run([sys.executable, "-c", LOADED, path], capture_output=True, text=True, check=False)
            said = done.stdout.strip() or done.stderr.strip().splitlines()[-1]
            print(f"{path.name}: {beside / 1e9:.2f} GB, loaded by ONNX Runtime: {said}")


if __name__ == "__main__":
    main()
