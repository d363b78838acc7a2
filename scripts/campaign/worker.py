"""The child process that tries cases: reads their numbers on standard input, and tells a line of JSON about each."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from campaign.cases import MOST_MB, Fault, last_line
from campaign.parts import part_module
from campaign.projects import PLAIN

_MOST_ADDRESSES = 16 << 30  # bytes; a child that asks for more gets an error instead of the machine


def main() -> None:
    """Try the cases of a part: `worker PART SEED`."""
    name, seed = sys.argv[1], sys.argv[2]
    _limit_memory()
    if PLAIN in os.environ:
        mock.patch("quant.report.views.render.charts_from_document", return_value={}).start()
    told = os.fdopen(os.dup(1), "w", buffering=1)  # the cases may print
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    part = part_module(name)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        part.prepare(Path(folder))
        told.write(json.dumps({"ready": True}) + "\n")
        for line in sys.stdin:
            told.write(json.dumps(_tried(part, f"{name}-{seed}-{line.strip()}", Path(folder))) + "\n")


def _tried(part: Any, case: str, folder: Path) -> dict[str, Any]:
    _forget_peak()
    start = time.monotonic()
    fault = None
    try:
        word = part.attempt(random.Random(case), folder)
    except Fault as error:
        word, fault = "fault", str(error)
    except BaseException as error:  # noqa: BLE001 - whatever escapes is what the campaign looks for
        word, fault = "fault", f"escaped: {last_line(error)}"
    peak = _peak_mb()
    if fault is None and peak > getattr(part, "MOST_MB", MOST_MB):
        word, fault = "fault", f"{peak:.0f} MB of memory"
    return {"word": word, "fault": fault, "seconds": time.monotonic() - start, "mb": peak}


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forget_peak() -> None:
    """Let Linux count this process's highest memory anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
