"""Files beside caches and models: spoiled, replaced value by value, or no regular files at all."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from campaign.cases import calib, untouched_if_refused
from campaign.projects import RUN, fresh, spoiled, write_project

SIZE = 2000
SECONDS = 120

_project: list[Path] = []
_MERGE = ("cache", "merge", "calib-out/calibration.h5", "other/calibration.h5", "--out", "all.cache")
_READERS = {
    "calib-out/calibration.json": (
        ("cache", "check", "calib-out/calibration.cache"),
        ("run", "--cache-only"),
        RUN,
        (*_MERGE, "--algo", "minmax"),
        ("compare", "model.onnx", "calib-out"),
        ("cache", "convert", "scales.json", "calib-out/calibration.json"),
    ),
    "calib-out/calibration.h5": (("cache", "check", "calib-out/calibration.cache"), RUN, _MERGE),
    "other/calibration.h5": (_MERGE, (*_MERGE, "--algo", "percentile")),
    "calib-out/report.json": (
        ("compare", "model.onnx", "calib-out"),
        ("compare", "calib-out", "calib-out/report.json"),
    ),
    "calib-out/model.int8.onnx": (("compare", "model.onnx", "calib-out"),),
    "calib.toml": (RUN, ("compare", "model.onnx", "model.onnx"), ("run", "--cache-only")),
    "preprocess.toml": (RUN, ("run", "--cache-only")),
    "scales.json": (
        ("cache", "convert", "scales.json", "new.cache"),
        ("cache", "diff", "scales.json", "calib-out/calibration.cache"),
    ),
}


def prepare(folder: Path) -> None:
    """Write a finished project, and bare statistics beside it."""
    project = write_project(folder)
    (project / "other").mkdir()
    shutil.copy(project / "calib-out" / "calibration.h5", project / "other")
    _project.append(project)


def attempt(chance: random.Random, folder: Path) -> str:
    """Spoil one file and run a command that reads it."""
    here = fresh(_project[0])
    name = chance.choice(list(_READERS))
    path = here / name
    kind = chance.random()
    if kind < 0.9:
        path.write_bytes(spoiled(chance, path.read_bytes()))
    else:
        path.unlink()
        chance.choice((os.mkfifo, _endless, os.mkdir, _dead, _nothing))(path)
    with untouched_if_refused(here) as ends:
        told = calib(*chance.choice(_READERS[name]), cwd=here)
        ends.append(told)
    return told.word


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _dead(path: Path) -> None:
    path.symlink_to(path)


def _nothing(path: Path) -> None:
    path.write_bytes(b"")
