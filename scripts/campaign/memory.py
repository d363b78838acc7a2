"""Build, compare and run, again and again in one process: memory, descriptors and threads stay flat."""

from __future__ import annotations

import os
import random
import threading
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from campaign.cases import Fault, calib

SIZE = 2000
SECONDS = 300
WHOLE = True  # all cycles in one process

_WARM = 5  # cycles until all that is loaded once is loaded
_CHARTS = 4  # every so many cycles the report has charts: drawing takes longer than all the rest
_MOST_GROWTH_MB = 64  # over the whole life of a process; what allocators keep comes and goes
_seen: list[tuple[float, int, int]] = []


def prepare(folder: Path) -> None:
    """Write the demo, with few images."""
    demo = folder / "demo"
    calib("demo", demo, cwd=folder)
    for i, path in enumerate(sorted((demo / "imgs").rglob("*.png"))):
        if i % 10:
            path.unlink()


def attempt(chance: random.Random, folder: Path) -> str:
    """One cycle, and a look at what this process holds after it."""
    from calib import EntropyCalibrator, MinMaxCalibrator
    from quant import build, compare

    demo = folder / "demo"
    spec = str(demo / "preprocess.toml")
    calibrator = chance.choice((EntropyCalibrator, MinMaxCalibrator))()
    int8 = build(demo / "model.onnx", demo / "imgs", calibrator, preprocess=spec, num_images=8, batch_size=8)
    compare(demo / "model.onnx", int8, demo / "imgs", preprocess=spec)
    plain = mock.patch("quant.report.views.render.charts_from_document", return_value={})
    with nullcontext() if len(_seen) % _CHARTS == 0 else plain:
        told = calib("run", "--quiet", "--num-images", 8, "--batch-size", 8, "--backend", "onnxruntime", cwd=demo)
    if told.code not in (0, 3, 4):
        raise Fault(told.err[-300:])
    _seen.append((_resident_mb(), len(os.listdir("/proc/self/fd")), threading.active_count()))  # noqa: PTH208
    if len(_seen) <= _WARM:
        return "warming"
    (mb, descriptors, threads), now = _seen[_WARM - 1], _seen[-1]
    if now[1] > descriptors or now[2] > threads:
        raise Fault(f"{descriptors} descriptors and {threads} threads became {now[1]} and {now[2]}")
    if now[0] > mb + _MOST_GROWTH_MB:
        raise Fault(f"{mb:.0f} MB became {now[0]:.0f} MB in {len(_seen)} cycles")
    return "flat"


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
