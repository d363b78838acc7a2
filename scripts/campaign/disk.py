"""Disks that fill up, folders that cannot be written to or vanish, odd things in the place of outputs."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from campaign.cases import Fault, states
from campaign.projects import RUN, check_whole, ended, fresh, scratch_in, started, write_project

SIZE = 120
SECONDS = 200

_project: list[Path] = []


def prepare(folder: Path) -> None:
    """Write a finished project."""
    _project.append(write_project(folder))


def attempt(chance: random.Random, folder: Path) -> str:
    """Run while something is wrong with the disk."""
    return chance.choice((_limited, _in_the_way, _vanishing, _few_files))(chance, fresh(_project[0]))


def _limited(chance: random.Random, here: Path) -> str:
    """No file may become larger than a few blocks."""
    most = chance.choice((0, 512, 4096, 20_000, 60_000, 200_000))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return _refused_or_done(chance, here, limit)


def _few_files(chance: random.Random, here: Path) -> str:
    """Only a few files may be open."""
    most = chance.choice((12, 24, 40, 64))
    return _refused_or_done(chance, here, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))


def _refused_or_done(chance: random.Random, here: Path, limit: Callable[[], None]) -> str:
    before = states(here)
    out = chance.choice(("calib-out", "new"))
    told = ended(started(*RUN, "--seed", "9", "--out", out, cwd=here, preexec_fn=limit))
    if scratch_in(here):
        raise Fault(f"scratch is left: {scratch_in(here)}")
    if (here / out).is_dir():
        check_whole(here / out)
    if told.code == 1:
        after = states(here)
        calibration = {f"calib-out/calibration.{end}" for end in ("cache", "json", "h5")}
        torn = [name for name in before if after.get(name) != before[name] and name not in calibration]
        if torn:
            raise Fault(f"changed by a run that failed: {torn[:3]}")
    return told.word


def _in_the_way(chance: random.Random, here: Path) -> str:
    """Something else has the name of an output."""
    path = here / "calib-out" / chance.choice(("", "report.json", "calibration.cache", ".lock", "model.int8.onnx"))
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (here / "precious").write_text("x")
    chance.choice((Path.mkdir, _full_folder, _file, os.mkfifo, _link, _dead_link, _loop))(path)
    told = ended(started(*RUN, "--seed", "9", cwd=here))
    if (here / "precious").read_text() != "x":
        raise Fault("a file behind a link was written to")
    if path.name == "calib-out" and (path / "mine").exists() and (path / "mine").read_text() != "x":
        raise Fault("a file of the user's was changed")
    return told.word


def _full_folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("x")


def _file(path: Path) -> None:
    path.write_text("x")


def _link(path: Path) -> None:
    path.symlink_to(next(p for p in path.parents if (p / "precious").exists()) / "precious")


def _dead_link(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _vanishing(chance: random.Random, here: Path) -> str:
    """The output folder is removed during a run."""
    shutil.rmtree(here / "calib-out")
    process = started(*RUN, cwd=here)
    end = time.monotonic() + 60
    while not (here / "calib-out" / ".lock").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 2.0))
    shutil.rmtree(here / "calib-out", ignore_errors=True)
    told = ended(process)
    if told.code == 0 and not (here / "calib-out" / "calibration.cache").exists() and (here / "calib-out").exists():
        raise Fault("done, without the calibration")
    return told.word
