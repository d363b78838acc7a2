"""The number of processors that work can be spread over."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def usable_processors() -> int:
    """The processors that this process may use.

    With taskset or a container's cpuset they may be fewer than all; so they may be with a quota, such as `docker run
    --cpus 2`, which lets all processors be used and stops them together once the quota is used up.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def _quota() -> float:
    """Processors' worth of time that control groups leave to this process; infinite without a quota.

    Each group bounds those below it, so the least counts. Within a container, its own group may be mounted as the root.
    """
    try:
        lines = _GROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # not Linux
        return math.inf
    least = math.inf
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":  # version 2
            least = min(least, *(_share(folder / "cpu.max") for folder in _folders(_MOUNT, path)))
        elif "cpu" in controllers.split(","):  # version 1
            for folder in _folders(_MOUNT / "cpu", path):
                least = min(least, _share(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"))
    return least


def _folders(mount: Path, path: str) -> list[Path]:
    """A group's folder and those of the groups that it is in, as far as they are there."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:size]) for size in range(len(parts), -1, -1)]


def _share(*files: Path) -> float:
    """Quota over period, out of one file or two; infinite where there is none."""
    try:
        quota, period = " ".join(file.read_text(encoding="ascii") for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or "max"
        return math.inf
