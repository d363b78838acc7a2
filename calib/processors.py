"""The number of processors that work can be spread over."""

from __future__ import annotations

import os


def usable_processors() -> int:
    """The processors that this process may use; with taskset or a container's cpuset they may be fewer than all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
