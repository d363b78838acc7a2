"""Several processes at once on one folder, one cache or folders of their own, and writers beside runs."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

from campaign.cases import Fault, Told
from campaign.projects import RUN, check_whole, ended, fresh, scratch_in, started, write_project

SIZE = 60
SECONDS = 400

_project: list[Path] = []
_WRITER = """
import sys
from pathlib import Path
from calib.files import Transaction
for i in range(int(sys.argv[2])):
    with Transaction(Path(sys.argv[1])) as files:
        files.stage("a").write_text(str(i) * 100_000)
        files.stage("b").write_text(str(i) * 100_000)
    a, b = ((Path(sys.argv[1]) / name).read_text() for name in "ab")
"""


def prepare(folder: Path) -> None:
    """Write a finished project."""
    _project.append(write_project(folder))


def attempt(chance: random.Random, folder: Path) -> str:
    """Start several processes together."""
    return chance.choice((_one_folder, _one_cache, _own_folders, _writers))(chance, fresh(_project[0]))


def _one_folder(chance: random.Random, here: Path) -> str:
    return _together(chance, here, [(*RUN, "--seed", str(i), "--out", "one") for i in range(4)], [here / "one"], 1)


def _one_cache(chance: random.Random, here: Path) -> str:
    jobs = [(*RUN, "--seed", str(i), "--cache", "one/my.cache", "--out", f"out{i}") for i in range(4)]
    return _together(chance, here, jobs, [here / f"out{i}" for i in range(4)], 1)


def _own_folders(chance: random.Random, here: Path) -> str:
    jobs = [(*RUN, "--out", f"out{i}") for i in range(3)]
    return _together(chance, here, jobs, [here / f"out{i}" for i in range(3)], 3)


def _together(chance: random.Random, here: Path, jobs: Sequence[tuple[str, ...]], outs: list[Path], least: int) -> str:
    processes = []
    for job in jobs:
        processes.append(started(*job, cwd=here))
        time.sleep(chance.choice((0, 0, 0.5)))
    ends = [ended(process, seconds=300) for process in processes]
    done = sum(told.code in (0, 3, 4) for told in ends)
    if done < least:
        raise Fault(f"{done} of {len(jobs)} were done: {ends[0].err[-200:]}")
    for told in ends:
        if told.code == 1 and "another calib run is writing here" not in told.err:
            raise Fault(told.err[-300:])
    for out in outs:
        if out.is_dir():
            check_whole(out)
    return f"{done} of {len(jobs)} done"


def _writers(chance: random.Random, here: Path) -> str:
    """Writers of single sets stage in a folder while runs start there; nothing is lost, and no set is torn."""
    out = here / "calib-out"
    writers = [started(out, 40, cwd=here, script=_WRITER) for _ in range(2)]
    runs: list[Told] = []
    while any(writer.poll() is None for writer in writers) and len(runs) < 8:
        runs.append(ended(started("run", "--cache-only", "--seed", chance.randint(0, 99), cwd=here), seconds=200))
    for writer in writers:
        _, err = writer.communicate(timeout=200)
        if writer.returncode != 0:
            raise Fault(f"a writer lost its files: {err[-300:]}")
    if (out / "a").read_bytes() != (out / "b").read_bytes():
        raise Fault("a torn set")
    if scratch_in(out):
        raise Fault(f"scratch is left: {scratch_in(out)}")
    return "written"
