"""Folders from someone else: nothing in them runs code, writes outside or removes anything unless the user says so."""

from __future__ import annotations

import json
import random
from pathlib import Path

from campaign.cases import Fault, calib, states
from campaign.projects import RUN, fresh, write_project

SIZE = 200
SECONDS = 120

_project: list[Path] = []
_CODE = """
from pathlib import Path
(Path(__file__).parent / "EXECUTED").touch()
def score(outputs, labels):
    return [1.0] * len(next(iter(outputs.values())))
"""
_COMMANDS = (RUN, ("run",), ("compare", "model.onnx", "calib-out"), ("sweep", "--num-images", "24"))


def prepare(folder: Path) -> None:
    """Write a finished project, and something precious beside it."""
    _project.append(write_project(folder))


def attempt(chance: random.Random, folder: Path) -> str:
    """Let a folder ask for something, and do not agree."""
    here = fresh(_project[0])
    outside = here.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "precious").write_text("x")
    before = states(outside)
    (here / "theirs.py").write_text(_CODE)
    chance.choice((_metric, _out, _cache, _linked_out, _forged_scratch, _report))(chance, here, outside)
    told = calib(*chance.choice(_COMMANDS), cwd=here)
    if (here / "EXECUTED").exists():
        raise Fault("code was executed unasked")
    if states(outside) != before:
        raise Fault(f"files outside were changed: {sorted(states(outside))[:4]}")
    return told.word


def _say(here: Path, line: str) -> None:
    config = here / "calib.toml"
    config.write_text(f"{line}\n{config.read_text()}")


def _metric(chance: random.Random, here: Path, outside: Path) -> None:
    name = chance.choice(("theirs.py:score", str(here / "theirs.py") + ":score", "./theirs.py:score"))
    _say(here, f'metric = "{name}"')


def _out(chance: random.Random, here: Path, outside: Path) -> None:
    (here / "link").symlink_to(outside)
    _say(here, f'out = "{chance.choice(("../outside", str(outside), "link", "link/new", "imgs/../../outside/new"))}"')


def _cache(chance: random.Random, here: Path, outside: Path) -> None:
    (here / "link").symlink_to(outside)
    _say(here, f'cache = "{chance.choice(("../outside/x.cache", "link/x.cache", str(outside / "x.cache")))}"')


def _linked_out(chance: random.Random, here: Path, outside: Path) -> None:
    (here / "calib-out").rename(here / "theirs")
    (here / "calib-out").symlink_to(outside)


def _forged_scratch(chance: random.Random, here: Path, outside: Path) -> None:
    """A scratch folder whose record leads out of the folder."""
    scratch = here / "calib-out" / ".calib-scratch-a1b2c3d4"
    (scratch / "new").mkdir(parents=True)
    (scratch / "old").mkdir()
    (scratch / ".calib-owner").touch()
    name = chance.choice(("../../outside/precious", str(outside / "precious"), "..", "precious"))
    (scratch / "commit.json").write_text(json.dumps({"written": [name], "removed": [name], "saved": [name]}))
    if chance.random() < 0.3:
        (scratch / ".calib-owner").unlink()
        (scratch / ".calib-owner").symlink_to(outside / "precious")


def _report(chance: random.Random, here: Path, outside: Path) -> None:
    path = here / "calib-out" / "report.json"
    document = json.loads(path.read_text())
    document["settings"]["metric"] = "theirs.py:score"
    document["settings"]["out"] = str(outside)
    document["command"] = "touch EXECUTED"
    path.write_text(json.dumps(document))
