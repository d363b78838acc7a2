"""What the parts about files share: a small finished project, spoiled texts, commands in processes of their own."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from campaign.cases import Fault, Told, calib, check_told

IMAGES_OF_A_CLASS = 4
RUN = ("run", "--num-images", "24", "--batch-size", "8", "--max-drop", "100")
FINISHED, PLAIN = "CAMPAIGN_FINISHED", "CAMPAIGN_PLAIN"
_QUICK = "import quant.evaluation.latency as l; l._LATENCY_SECONDS = 0.02; "
if PLAIN in os.environ:
    _QUICK += "import quant.report.views.render as r; r.charts_from_document = lambda document: {}; "
_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN = f"{_QUICK}{_TERMINAL}from calib.cli import main; main()"


def write_project(folder: Path) -> Path:
    """A few images of the embedded sample, with the files of a finished run in calib-out.

    Two variables of the environment serve those who try a few cases of many parts: `CAMPAIGN_FINISHED` names a project
    that this function wrote before, to be copied, and with `CAMPAIGN_PLAIN` the reports of commands have no charts.
    """
    if FINISHED in os.environ:
        return shutil.copytree(os.environ[FINISHED], folder / "finished", symlinks=True)
    from calib.sample_project import write_sample_project
    from quant.evaluation import latency

    latency._LATENCY_SECONDS = 0.02
    project = folder / "finished"
    write_sample_project(project)
    for each in (project / "imgs").iterdir():
        for image in sorted(each.iterdir())[IMAGES_OF_A_CLASS:]:
            image.unlink()
    told = calib(*RUN, "--quiet", cwd=project)
    if told.code not in (0, 4):
        raise Fault(f"the sound project does not run: {told.err}")
    told = calib("cache", "convert", "calib-out/calibration.cache", "scales.json", cwd=project)
    if told.code != 0:
        raise Fault(f"the sound cache is not converted: {told.err}")
    return project


def fresh(project: Path) -> Path:
    """A copy of the project beside it, for one case; the one of the case before is removed."""
    copy = project.parent / "case"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(project, copy, symlinks=True)
    return copy


def started(*arguments: object, cwd: Path, script: str = MAIN, **options: Any) -> subprocess.Popen[str]:
    """A command line in a process of its own."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=cwd,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        **{**streams, **options},
    )


def ended(process: subprocess.Popen[str], *, killed: bool = False, seconds: float = 120) -> Told:
    """What a process ended with.

    Raises:
        Fault: It does not end, or in a way in which no command may end.
    """
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Fault(f"no end within {seconds:.0f} s") from None
    told = Told(process.returncode, out or "", err or "")
    if not (killed and told.code == -signal.SIGKILL):
        check_told(told)
    return told


def scratch_in(folder: Path) -> list[str]:
    """What writers have left below a folder."""
    return sorted(path.name for path in folder.rglob(".calib-*"))


def check_whole(out: Path) -> None:
    """Check that what lies in a run's folder belongs together, after whatever happened to its writer.

    Raises:
        Fault: A calibration is torn, or a build is not the one of its report.
    """
    import hashlib

    from calib.caches.provenance import read_calibration
    from calib.errors import CacheError
    from calib.scratch import recover

    recover(out)
    parts = [out / f"calibration.{end}" for end in ("cache", "json", "h5")]
    there = [path.name for path in parts if path.exists()]
    if there:
        try:
            read_calibration(parts[0])
        except CacheError as error:
            raise Fault(f"a torn calibration ({', '.join(there)}): {error}") from error
    report = out / "report.json"
    if report.exists():
        for row in json.loads(report.read_text())["builds"]:
            built = out / (row["file"] or "")
            if built.is_file() and hashlib.sha256(built.read_bytes()).hexdigest() != row["sha256"]:
                raise Fault(f"{built.name} is not the one of its report")
    left = sorted(path.name for path in out.glob(".calib-*"))  # folders in it have writers of their own
    if left:
        raise Fault(f"scratch is left: {left}")


TOKENS = (
    "NaN", "Infinity", "-1", "0", "1e999", "9" * 5000, "null", "true", '"x"', '"\\ud800"', '"\\u0000"', "[]", "{}",
    "[" * 200_000, '{"a":' * 200_000, '"' + "x" * 100_000 + '"', "\x1b]0;owned\x07", "\u202e", "\udcff", "\ufeff", "\0",
    "../" * 9 + "etc/passwd", "/dev/zero", "TRT-" + "9" * 5000 + "-EntropyCalibration2", "7f800000", "00000000",
    "0 3ff0000000000000 7ff8000000000000", "\r\n", "=", "'''", "[[a]]",
)  # fmt: skip


def spoiled(chance: random.Random, contents: bytes) -> bytes:
    """A text or file with one to three things changed in it."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        contents = _SPOILERS[chance.randrange(len(_SPOILERS))](chance, contents)
    return contents


def _span(chance: random.Random, contents: bytes) -> tuple[int, int]:
    start = chance.randrange(len(contents) + 1)
    return start, min(len(contents), start + chance.choice((1, 2, 8, 64, 1024)))


def _flipped(chance: random.Random, contents: bytes) -> bytes:
    if not contents:
        return contents
    place = chance.randrange(len(contents))
    return contents[:place] + bytes([contents[place] ^ 1 << chance.randrange(8)]) + contents[place + 1 :]


def _cut(chance: random.Random, contents: bytes) -> bytes:
    return contents[: chance.randrange(len(contents) + 1)]


def _without(chance: random.Random, contents: bytes) -> bytes:
    start, end = _span(chance, contents)
    return contents[:start] + contents[end:]


def _twice(chance: random.Random, contents: bytes) -> bytes:
    start, end = _span(chance, contents)
    return contents[:end] + contents[start:end] + contents[end:]


def _zeroed(chance: random.Random, contents: bytes) -> bytes:
    start, end = _span(chance, contents)
    return contents[:start] + bytes(end - start) + contents[end:]


def _with_token(chance: random.Random, contents: bytes) -> bytes:
    start, end = _span(chance, contents)
    token = chance.choice(TOKENS).encode("utf-8", "surrogatepass")
    return contents[:start] + token + contents[chance.choice((start, end)) :]


def _line_again(chance: random.Random, contents: bytes) -> bytes:
    lines = contents.splitlines(keepends=True)
    if not lines:
        return contents
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    return b"".join(lines)


def _value_replaced(chance: random.Random, contents: bytes) -> bytes:
    """Another value in the place of one of a JSON document; of other texts, a token."""
    try:
        document = json.loads(contents)
    except (ValueError, RecursionError):
        return _with_token(chance, contents)
    places: list[tuple[Any, Any]] = []
    left = [document]
    while left:
        inner = left.pop()
        items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, value in items:
            places.append((inner, key))
            left.append(value)
    if not places:
        return contents
    inner, key = chance.choice(places)
    inner[key] = chance.choice(_VALUES)
    return json.dumps(document).encode()


_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    1 << 70,
    "x",
    "",
    "\ud800",
    "a\0b",
    [],
    [[]],
    {},
    {"a": [1]},
    "/etc/passwd",
)
_SPOILERS = (_flipped, _cut, _without, _twice, _zeroed, _with_token, _line_again, _value_replaced, _value_replaced)
