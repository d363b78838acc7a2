"""Work in a process of its own, beside what this process does.

The child is another Python, never a fork: what a C++ library has begun here would be half there. It gets a function for
its preparations, which it does at once, and later others for its pieces of work, which it does one after another. All
are pickled, so they are of modules that can be imported. No child outlives its parent, however that ends: the kernel
kills it with the thread that started it, and one that waits for work finds its input closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from calib.documents import DocumentError, document_from_json
from calib.errors import CalibrationError
from calib.interrupts import heed_interrupt
from calib.regular_files import bytes_of_file
from calib.texts import whole_characters
from datasets.guards.python_child import has_python, started_python

Note = Callable[[str], None]
Work = Callable[[Path, Note], None]

_PROGRAM = "from quant.child_process import main\nmain()\n"
_PREPARATION, _WORK, _ENDED, _SAID = "prepare.pickle", "work.pickle", "ended.json", "said.txt"
_LOOK_SECONDS = 0.1  # between two looks at a child that is waited for
_STALL_SECONDS = 180.0  # a child that takes less of the processor in this time than the next says waits for something
_STALL_CPU_SECONDS = 1.0
_KILL_SECONDS = 20.0  # a driver may take long to give back what a killed process had
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Ended:
    """How a piece of a child's work ended.

    Attributes:
        error: Why it was not done; empty if it was.
        notes: What it had to say.
        begun: When it began, by `time.perf_counter` of any process of this machine.
        moment: When it ended.
    """

    error: str
    notes: tuple[str, ...] = ()
    begun: float = 0.0
    moment: float = 0.0


def can_have_children() -> bool:
    """Whether children can be started, end with this process, and are seen to get on.

    That is on Linux, by a Python that is there, where /proc says how much time of the processor a process has taken.
    """
    return sys.platform == "linux" and has_python() and _cpu_seconds(os.getpid()) > 0


class ChildProcess:
    """A child with its folder.

    Attributes:
        pid: The number of its process.
        work: What it was given, in order.
    """

    def __init__(self, folder: Path, prepare: Callable[[], object]) -> None:
        """Start it.

        Args:
            folder: A new folder for it.
            prepare: What it does before its work; what that gives is held until the end.

        Raises:
            OSError: The folder cannot be written to, or no process can be started.
        """
        self.work: list[GivenWork] = []
        self._folder, self._takes_more, self._stalled = folder, True, False
        folder.mkdir()
        (folder / _PREPARATION).write_bytes(pickle.dumps(prepare))
        with (folder / _SAID).open("wb") as said:
            self._process = started_python(_PROGRAM, said=said)
        self.pid = self._process.pid
        self._send(json.dumps([os.fspath(folder.resolve()), os.getpid()]))

    @property
    def is_over(self) -> bool:
        """Whether its process has ended."""
        return self._process.poll() is not None

    @property
    def takes_more(self) -> bool:
        """Whether it can be given work."""
        return self._takes_more and not self.is_over

    def give(self, work: Work) -> GivenWork:
        """Give it work, which it does after what it has: a function of a folder and of what takes a line to be told.

        Raises:
            OSError: The folder cannot be written to.
        """
        folder = self._folder / f"work-{len(self.work) + 1}"
        folder.mkdir(exist_ok=True)
        (folder / _WORK).write_bytes(pickle.dumps(work))
        self.work.append(GivenWork(self, folder))
        self._send(folder.name)
        return self.work[-1]

    def finish(self) -> None:
        """Give it no more work, and wait until it has done what it has; one that no longer gets on is killed.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        self._end_of_work()
        self.wait(lambda: self.is_over)

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until something is so, at the latest until this is over; one that no longer gets on is killed.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        progress = _Progress(self.pid)
        while not done():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LOOK_SECONDS)
            heed_interrupt()
            if progress.has_stalled():
                self._stalled = True
                self._stop()
                return

    def kill(self) -> None:
        """End its process, if it has not ended; does not wait for that."""
        if not self.is_over:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End its process, wait for that, and remove its folder; a second call does nothing."""
        self._stop()
        self._end_of_work()
        shutil.rmtree(self._folder, ignore_errors=True)

    def reason_of_end(self) -> str:
        """Why its process ended before its work was done."""
        if self._stalled:
            return f"its process did nothing for {_STALL_SECONDS:g} s"
        try:
            return document_from_json(Ended, bytes_of_file(self._folder / _ENDED)).error
        except (OSError, DocumentError):
            return self._last_words()

    def _stop(self) -> None:
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_SECONDS)

    def _end_of_work(self) -> None:
        self._takes_more = False
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: `reason_of_end` says how
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _last_words(self) -> str:
        """Why a process ended that does not say how its work did."""
        code = self._process.returncode
        how = f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
        try:
            lines = (self._folder / _SAID).read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return how
        said = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
        return f"{how}: {said:.300}" if said else how


class GivenWork:
    """A piece of work that a child has.

    Attributes:
        folder: Where it is done; its own.
    """

    def __init__(self, child: ChildProcess, folder: Path) -> None:
        self.folder = folder
        self._child, self._is_settled = child, False

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or its child has."""
        return (self.folder / _ENDED).exists() or self._child.is_over

    def ended(self) -> Ended:
        """How it ended; waits for that.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        self._child.wait(lambda: self.is_over)
        try:
            return document_from_json(Ended, bytes_of_file(self.folder / _ENDED))
        except (OSError, DocumentError):
            return Ended(self._child.reason_of_end())

    def settle(self) -> None:
        """It is not waited for any more, nor is what it left: a child with no other work is closed."""
        self._is_settled = True
        if all(each._is_settled for each in self._child.work):
            self._child.close()


class _Progress:
    """Whether a process gets on, by the time that it takes of the processor: one that waits takes next to none."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._since, self._seconds = time.monotonic(), _cpu_seconds(pid)

    def has_stalled(self) -> bool:
        """Whether it has done next to nothing for too long."""
        now, seconds = time.monotonic(), _cpu_seconds(self._pid)
        if seconds - self._seconds >= _STALL_CPU_SECONDS:
            self._since, self._seconds = now, seconds
        return now - self._since > _STALL_SECONDS


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process, all threads together; 0 if it has ended, or nothing tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)


def main() -> NoReturn:
    """What the child does."""
    folder_name, parent = json.loads(sys.stdin.buffer.readline() or b'["", 0]')
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was asked for
        os._exit(1)
    folder, began = Path(folder_name), time.perf_counter()
    try:
        _prepared = _unpickled(folder / _PREPARATION)()  # held until the end
    except BaseException as error:  # noqa: BLE001 - the parent says it
        os._exit(_told(folder, Ended(_reason(error), (), began, time.perf_counter())))
    for line in sys.stdin.buffer:  # until the parent ends, or has no more
        code = _done(folder / line.decode().strip())
        if code:
            os._exit(code)
    os._exit(0)  # at once: libraries that clean up at the end of a process may crash or hang there


def _done(folder: Path) -> int:
    """Do a piece of work, and leave how it ended; gives the exit code, where that could not be left."""
    notes, error, began = list[str](), "", time.perf_counter()
    try:
        _unpickled(folder / _WORK)(folder, notes.append)
    except BaseException as raised:  # noqa: BLE001 - the parent says it
        error = _reason(raised)
    return _told(folder, Ended(error, tuple(notes), began, time.perf_counter()))


def _unpickled(file: Path) -> Any:  # noqa: ANN401 - a function, of which the parent knows the type
    return pickle.loads(file.read_bytes())


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, CalibrationError) else f"{type(error).__name__}: {error}"


def _told(folder: Path, ended: Ended) -> int:
    """Leave how work ended; gives the exit code, where that could not be left."""
    try:
        unfinished = folder / f"{_ENDED}.part"
        unfinished.write_text(json.dumps(whole_characters(asdict(ended))), encoding="utf-8")
        unfinished.replace(folder / _ENDED)
    except OSError as unwritten:  # the disk is full, or the folder was removed: these are its last words
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), (ended.error or str(unwritten)).encode(errors="backslashreplace"))
        return 1
    return 0
