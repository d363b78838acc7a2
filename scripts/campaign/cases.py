"""What cases share: the fault, a command tried in this process, files before and after."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_MB = 2048  # of memory, at the worst moment of any case
MOST_CHARACTERS = 500  # of an error line
EXIT_CODES = (0, 1, 2, 3, 4, 130)


class Fault(Exception):  # noqa: N818 - no error of this program, but a fault found in another
    """What must never happen."""


@dataclass(frozen=True)
class Told:
    """What a command ended with.

    Attributes:
        code: Its exit code.
        out: What it printed.
        err: What it said beside that.
    """

    code: int
    out: str
    err: str

    @property
    def word(self) -> str:
        """How it ended, in a word or two."""
        return {0: "done", 2: "refused", 3: "done, drop", 4: "done, invalid", 130: "interrupted"}.get(
            self.code, "refused"
        )


def calib(*arguments: object, cwd: Path) -> Told:
    """Run a command line in this process, and check how it ends.

    Raises:
        Fault: It ends with a traceback or an unforeseen error, an unknown code, or an error that is not one short line.
    """
    from calib.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with _inside(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        except Exception as error:
            raise Fault(f"{' '.join(map(str, arguments))}: traceback: {last_line(error)}") from error
    told = Told(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())
    check_told(told)
    return told


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def check_told(told: Told) -> None:
    """Check how a command ended.

    Raises:
        Fault: As for `calib`.
    """
    if told.code not in EXIT_CODES:
        raise Fault(f"exit code {told.code}: {told.err[-300:]}")
    for mark in ("Traceback (most recent call last)", "unforeseen "):
        if mark in told.err:
            raise Fault(f"{mark}: {told.err[-400:]}")
    errors = [line for line in told.err.splitlines() if line.startswith("calib: error: ")]
    if told.code == 1 and len(errors) != 1:
        raise Fault(f"{len(errors)} error lines for exit code 1: {told.err[-300:]}")
    if errors and len(errors[0]) > MOST_CHARACTERS:
        raise Fault(f"an error of {len(errors[0])} characters: {errors[0][:200]}")


def last_line(error: BaseException) -> str:
    """The end of an error's traceback: where, and what."""
    lines = traceback.format_exception(error)
    return " ".join(" ".join(lines[-2:]).split())[-400:]


def states(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@contextlib.contextmanager
def untouched_if_refused(folder: Path) -> Iterator[list[Told]]:
    """Check that a command leaves a folder as it was if it fails, and no scratch whatever it does.

    Yields:
        A list; append what the command ended with.

    Raises:
        Fault: It does not.
    """
    before = states(folder)
    ended: list[Told] = []
    yield ended
    after = states(folder)
    scratch = sorted(path.name for path in folder.glob(".calib-*"))
    if scratch:
        raise Fault(f"scratch is left: {scratch[:3]}")
    if ended and ended[-1].code in (1, 2):
        changed = sorted(name for name in before if after.get(name) != before[name])
        if changed:
            raise Fault(f"files changed in a run that failed: {changed[:3]}; {ended[-1].err[-200:]}")
