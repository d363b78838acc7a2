"""Kills at a step of what a command writes, or at any moment: what is left is whole, and the command works again."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

from campaign.cases import Fault
from campaign.projects import MAIN, RUN, check_whole, ended, fresh, started, write_project

SIZE = 300
SECONDS = 300

_project: list[Path] = []
_AT_STEP = """
import functools, os, signal, sys
left = int(sys.argv.pop(1))
def counted(call, *arguments, **options):
    global left
    if sys.modules.get("calib.scratch") is not None:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **options)
for name in ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "fsync"):
    setattr(os, name, functools.partial(counted, getattr(os, name)))  # no function: a class may hold it
"""
_JOBS = (
    (*RUN, "--algo", "minmax"),
    (*RUN, "--seed", "5"),
    (*RUN, "--cache", "mine/my.cache"),
    ("sweep", "--num-images", "24", "--batch-size", "8"),
    ("compare", "model.onnx", "calib-out", "--out", "calib-out/compared"),
    ("cache", "merge", "calib-out/calibration.h5", "--out", "mine/all.cache"),
    ("cache", "convert", "calib-out/calibration.cache", "mine/new.onnx", "--model", "model.onnx"),
)
_STEPS = 60


def prepare(folder: Path) -> None:
    """Write a finished project."""
    _project.append(write_project(folder))


def attempt(chance: random.Random, folder: Path) -> str:
    """Kill a command, look at what it left, and run it again."""
    here = fresh(_project[0])
    job = chance.choice(_JOBS)
    if chance.random() < 0.3:
        shutil.rmtree(here / "calib-out") if job[0] in ("run", "sweep") else None
    if chance.random() < 0.6:
        process = started(chance.randint(1, _STEPS), *job, cwd=here, script=_AT_STEP + MAIN)
        told = ended(process, killed=True)
    else:
        process = started(*job, cwd=here)
        time.sleep(chance.uniform(0.3, 4.0))
        process.kill()
        told = ended(process, killed=True)
    for out in (here / "calib-out", here / "mine", here / "calib-out" / "compared"):
        if out.is_dir():
            check_whole(out)
    again = ended(started(*job, cwd=here))
    if again.code == 1:
        raise Fault(f"{' '.join(job)} does not work after a kill: {again.err[-300:]}")
    for out in (here / "calib-out", here / "mine"):
        if out.is_dir():
            check_whole(out)
    return "killed" if told.code == -signal.SIGKILL else "was done before"
