"""Makes docs/reliability.md out of what the campaign counted, kept in reliability.json beside it."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from campaign.parts import PARTS
from campaign.runner import SCRIPTS, PartResult

_HEAD = """# Reliability

Made by `scripts/campaign.py`, which tries hostile inputs, kills and concurrent runs. Each case runs in a child process
with a limit of time. A case is a fault if it ends with a traceback, a crash or not at all, changes a file in a run that
fails, leaves scratch, says more than a line of 500 characters, or takes more than 2 GB of memory. "survived" counts the
others: refused in one line, set aside with a reason, or run to the end.

**Not run by the tests**: it takes hours; a small share of each part is one of the tests.

```bash
python scripts/campaign.py --minutes 60 --seed 1 --page docs
```

| part | what | tried | survived | faults | slowest case | most memory | commit, seed |
|---|---|---|---|---|---|---|---|
"""
_WHAT = {
    "caches": "calibration caches, mutated",
    "sidecars": "files beside a cache, mutated",
    "images": "image files and what has their names",
    "models": "ONNX models, mutated, through `calib run`",
    "packs": "HDF5 packs, mutated or made to harm",
    "kills": "runs killed at each step of writing, and at random",
    "interrupts": "Ctrl-C at random",
    "disk": "full and read-only disks",
    "concurrency": "runs at the same time",
    "trust": "folders that want code to be run, or files to be written elsewhere",
    "memory": "build, compare and run, again and again in one process",
}


def write_page(results: Sequence[PartResult], seed: int, folder: Path) -> Path:
    """Write the page and the figures it is made of; parts that were not run keep theirs."""
    kept = folder / "reliability.json"
    rows: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for result in results:
        rows[result.name] = {
            "tried": result.tried,
            "faults": len(result.faults),
            "seconds": round(result.slowest, 1),
            "mb": round(result.peak_mb),
            "commit": _commit(),
            "seed": seed,
            "day": datetime.now(tz=timezone.utc).date().isoformat(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("onnx", "onnxruntime", "pillow", "h5py")},
        }
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    page = folder / "reliability.md"
    lines = [_line(name, rows[name]) for name in PARTS if name in rows]
    page.write_text(_HEAD + "\n".join(lines) + "\n" + _versions(rows), encoding="utf-8")
    return page


def _line(name: str, row: dict[str, Any]) -> str:
    figures = (f"{row['tried']:,}", f"{row['tried'] - row['faults']:,}", f"{row['faults']:,}")
    cells = (name, _WHAT[name], *figures, f"{row['seconds']} s", f"{row['mb']:,} MB", f"{row['commit']}, {row['seed']}")
    return f"| {' | '.join(cells)} |"


def _versions(rows: dict[str, Any]) -> str:
    found = {
        f"Python {row['python']}, {', '.join(f'{k} {v}' for k, v in row['versions'].items())}" for row in rows.values()
    }
    return f"\nSeconds are those of a busy machine. {'; '.join(sorted(found))}.\n"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=SCRIPTS, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
