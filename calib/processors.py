"""How many processors work can be spread over."""

from __future__ import annotations

import os


def usable_processors() -> int:
    """Those that this process may use: taskset and containers' cpusets leave it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
