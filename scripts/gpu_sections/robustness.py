"""What remains after errors, Ctrl-C and a full disk, and the memory used over 200 batches."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from calib.calibrator import CalibrationBatch, MinMaxCalibrator
from calib.sample_project import write_sample_project
from datasets import BatchStream
from gpu_sections.bench import Bench, Row
from quant.cuda.batch_feed import CalibrationFeed, FeedInput
from quant.cuda.device import memory_info, use_device
from quant.tensorrt.building.native_calibration import native_cache_from_onnx

_CALIB = [sys.executable, "-c", "from calib.cli import main; main()"]
_RUN = ["run", "--backend", "tensorrt", "--calibrator", "tensorrt", "--builder-level", "0", "--num-images", "512"]
_KEPT = ("calibration.cache", "model.int8.engine")
_FILE_LIMIT = 65536  # bytes that a process may write to one file, like a disk that is full for larger files


@dataclass(frozen=True)
class Repeated:
    """A stream, repeated.

    Attributes:
        stream: The stream to repeat.
        batches: Number of batches in total.
    """

    stream: BatchStream
    batches: int

    def __iter__(self) -> Iterator[CalibrationBatch]:
        left = self.batches
        while left:
            for batch in self.stream:
                yield batch
                left -= 1
                if not left:
                    return


def failures(bench: Bench) -> None:
    """Stop `calib run` in three ways, on the sample project with an older cache and engine in place."""
    project = bench.work / "digits"
    if not project.exists():
        write_sample_project(project)
    first = _calib(project, [])
    if first.returncode:
        raise RuntimeError(f"the undisturbed run failed: {first.stderr[-500:]}")
    for name, stop in (
        ("an unreadable image", _broken_image),
        ("Ctrl-C in a build", _interrupted),
        ("no file over 64 KiB can be written", _full),
    ):
        if not bench.results.has("failures", name):
            bench.results.add("failures", name, {"what": name, **_aftermath(project, stop)})


def _calib(project: Path, more: list[str], prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    command = [*(prefix or []), *_CALIB, *_RUN, *more]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, check=False, env=_environment(root), timeout=300
    )


def _environment(root: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}


def _aftermath(project: Path, stop: object) -> Row:
    assert callable(stop)
    use_device()
    before, digests = memory_info()[0], _digests(project)
    start = time.perf_counter()
    code, said = stop(project)
    seconds = time.perf_counter() - start
    left = [path.name for path in (project / "calib-out").iterdir() if path.name.startswith(".calib-")]
    return {
        "exit code": code,
        "said": said,
        "cache and engine": "untouched" if _digests(project) == digests else "CHANGED",
        "scratch files left": ", ".join(left) or "none",
        "GPU memory not given back, MiB": (before - memory_info()[0]) >> 20,
        "seconds": round(seconds, 1),
    }


def _digests(project: Path) -> dict[str, str]:
    return {name: hashlib.sha256((project / "calib-out" / name).read_bytes()).hexdigest() for name in _KEPT}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]


def _broken_image(project: Path) -> tuple[int, str]:
    """Run on the same project with one truncated image."""
    copy = project.with_name("digits-broken")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project / "imgs", copy)
    victim = sorted(path for path in copy.rglob("*") if path.is_file())[100]
    victim.write_bytes(victim.read_bytes()[:40])
    done = _calib(project, ["--data", str(copy), "--max-bad", "0", "--sampling", "first"])
    shutil.rmtree(copy)
    return done.returncode, _last_line(done.stderr)


def _interrupted(project: Path) -> tuple[int, str]:
    """Run with another seed, so that it calibrates, and interrupt it once TensorRT is working."""
    # As in a terminal: a background job inherits an ignored Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*_CALIB, *_RUN, "--seed", "1"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_environment(root)
    ) as process:
        assert process.stderr is not None
        next((line for line in process.stderr if "back end" in line), None)
        time.sleep(1)  # the first build has begun
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    return process.returncode, _last_line(said)


def _full(project: Path) -> tuple[int, str]:
    """Run with a limit on the size of files, and with another seed, so that all files would be written."""
    blocks = _FILE_LIMIT // 1024
    done = _calib(project, ["--seed", "2"], ["bash", "-c", f'trap "" XFSZ; ulimit -f {blocks}; exec "$@"', "bash"])
    return done.returncode, _last_line(done.stderr)


def feeding(bench: Bench) -> None:
    """Feed TensorRT's calibration 200 batches, then feed 200 batches of photographs without TensorRT."""
    if not bench.results.has("feeding", "calibration"):
        bench.results.add("feeding", "calibration", _calibration_row(bench))
    if not bench.results.has("feeding", "photographs"):
        bench.results.add("feeding", "photographs", _photograph_row(bench))


def _calibration_row(bench: Bench) -> Row:
    free: list[int] = []
    stream = Repeated(bench.stream("cifar10-calib", 32, 512, 8), 200)
    start = time.perf_counter()
    _, feed = native_cache_from_onnx(
        bench.model("resnet20").proto,
        MinMaxCalibrator(stream),
        8,
        bench.options,
        advance=lambda images: free.append(memory_info()[0]),
    )
    # TensorRT allocates memory during the first batches; only growth in the later ones would be ours.
    return _feeding_row("resnet20's calibration, 8 images a batch", feed, time.perf_counter() - start, free[10:])


def _photograph_row(bench: Bench) -> Row:
    free: list[int] = []
    stream = Repeated(bench.stream("imagenet-photos", 224, 60, 20), 200)
    start = time.perf_counter()
    with CalibrationFeed(MinMaxCalibrator(stream), [FeedInput("input", (20, 3, 224, 224), "float32")]) as feed:
        while feed.next(["input"]) is not None:
            free.append(memory_info()[0])
        seconds = time.perf_counter() - start
        if feed.error is not None:
            raise feed.error
    return _feeding_row("photographs at 224 x 224, 20 a batch, taken at once", feed.figures, seconds, free)


def _feeding_row(what: str, feed: object, seconds: float, free: list[int]) -> Row:
    figures = vars(feed)
    return {
        "what": what,
        "batches": figures["batches"],
        "images": figures["images"],
        "seconds": round(seconds, 2),
        "decoding, s": round(figures["decode_seconds"], 2),
        "copies, s": round(figures["copy_seconds"], 3),
        "waited for a batch, s": round(figures["waited_seconds"], 2),
        "free memory, largest minus smallest, bytes": max(free) - min(free),
    }
