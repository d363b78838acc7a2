"""Ctrl-C at any moment: exit code 130, one line, older files untouched but for sets that the line names."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from campaign.cases import Fault, states
from campaign.projects import MAIN, RUN, check_whole, ended, fresh, scratch_in, started, write_project

SIZE = 100
SECONDS = 200

_project: list[Path] = []
_SAYS_WHEN = "import sys; sys.stderr.write('begun\\n'); sys.stderr.flush(); "
_JOBS = (
    (*RUN, "--algo", "minmax"),
    (*RUN, "--seed", "5"),
    (*RUN, "--seed", "6", "--out", "new"),
    ("sweep", "--num-images", "24", "--batch-size", "8"),
    ("compare", "model.onnx", "calib-out", "--out", "compared"),
    ("cache", "merge", "calib-out/calibration.h5", "--out", "mine/all.cache"),
)


def prepare(folder: Path) -> None:
    """Write a finished project."""
    _project.append(write_project(folder))


def attempt(chance: random.Random, folder: Path) -> str:
    """Interrupt a command once."""
    here = fresh(_project[0])
    before = states(here)
    process = started(*chance.choice(_JOBS), cwd=here, script=MAIN.replace("main()", f"{_SAYS_WHEN}main()"))
    assert process.stderr is not None
    while process.stderr.readline() not in ("begun\n", ""):
        pass
    time.sleep(chance.choice((0.0, 0.05, 0.3)) + chance.uniform(0, 3.0) ** 1.2)
    process.send_signal(signal.SIGINT)
    told = ended(process)
    if "ignored" in told.err or "Traceback" in told.err:
        raise Fault(f"said: {told.err[-400:]}")
    if scratch_in(here):
        raise Fault(f"scratch is left: {scratch_in(here)}")
    if (here / "calib-out").is_dir():
        check_whole(here / "calib-out")
    if told.code != 130:
        if told.code not in (0, 3, 4):
            raise Fault(f"exit code {told.code}: {told.err[-300:]}")
        return told.word
    last = told.err.splitlines()[-1]
    if not last.startswith("calib: interrupted; "):
        raise Fault(f"said last: {last[:300]}")
    after = states(here)
    changed = [name for name in before if after.get(name) != before[name] and name not in last]
    if changed:
        raise Fault(f"changed and not named: {changed[:3]}; {last[:300]}")
    return "interrupted, all as before" if last.endswith("interrupted; older files are untouched") else "some kept"
