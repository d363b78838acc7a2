"""Runs parts of the campaign: numbers cases, watches the child that tries them, and counts how they end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.parts import part_module

SCRIPTS = Path(__file__).resolve().parents[1]
_SECONDS_TO_START = 120
_CASES_OF_A_CHILD = 400  # then a fresh one: what a child leaks is no case's fault


@dataclass
class PartResult:
    """How the cases of a part ended.

    Attributes:
        name: Its name.
        size: How many cases were wanted.
        tried: How many were tried.
        words: How they ended, counted.
        faults: What must not happen, by case.
        slowest: Seconds of the slowest case.
        peak_mb: Memory of the largest case, MB.
        seconds: Of all of it.
    """

    name: str
    size: int
    tried: int = 0
    words: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0
    peak_mb: float = 0.0
    seconds: float = 0.0

    def join(self, piece: PartResult) -> None:
        """Add what a piece of the part found."""
        self.tried += piece.tried
        self.words.update(piece.words)
        self.faults.update(piece.faults)
        self.slowest, self.peak_mb = max(self.slowest, piece.slowest), max(self.peak_mb, piece.peak_mb)
        self.seconds += piece.seconds

    def add(self, case: str, told: dict[str, Any]) -> None:
        """Count a case."""
        self.tried += 1
        self.words[told["word"]] += 1
        self.slowest, self.peak_mb = max(self.slowest, told["seconds"]), max(self.peak_mb, told["mb"])
        if told["fault"] is not None:
            self.faults[case] = told["fault"]


def run_parts(
    sizes: Mapping[str, int], seed: int, seconds: float, jobs: int, say: Callable[[str], None]
) -> list[PartResult]:
    """Try cases of several parts at a time, each on a processor of its own.

    Args:
        sizes: How many cases of each part.
        seed: Of the campaign.
        seconds: For all of them.
        jobs: How many at a time.
        say: Called with a line about each fault.
    """
    end = time.monotonic() + seconds
    processors: queue.SimpleQueue[int] = queue.SimpleQueue()
    usable = sorted(os.sched_getaffinity(0))
    for job in range(jobs):
        processors.put(usable[job % len(usable)])

    def run(name: str, first: int, size: int) -> PartResult:
        processor = processors.get()
        try:
            return run_part(name, seed, size, end - time.monotonic(), say, first=first, processor=processor)
        except RuntimeError as error:  # what the other pieces found is kept
            say(str(error))
            return PartResult(name, size, faults={f"{name}-{seed}-{first}": str(error)})
        finally:
            processors.put(processor)

    with ThreadPoolExecutor(jobs) as threads:
        parts = [(name, first, least) for name, size in sizes.items() for first, least in _pieces(name, size, jobs)]
        pieces = [(name, threads.submit(run, name, first, size)) for name, first, size in sorted(parts, key=_last)]
        found: dict[str, PartResult] = {name: PartResult(name, size) for name, size in sizes.items()}
        for name, piece in pieces:
            found[name].join(piece.result())
    return list(found.values())


def _pieces(name: str, size: int, jobs: int) -> Iterator[tuple[int, int]]:
    """First number and size of the pieces of a part; a part whose cases follow each other stays whole."""
    length = size if getattr(part_module(name), "WHOLE", False) else max(-(-size // jobs), 1)
    for first in range(0, size, length):
        yield first, min(length, size - first)


def _last(piece: tuple[str, int, int]) -> bool:
    """Pieces that cannot be divided come first: they take longest."""
    return not getattr(part_module(piece[0]), "WHOLE", False)


def run_part(
    name: str,
    seed: int,
    size: int,
    seconds: float,
    say: Callable[[str], None],
    *,
    first: int = 0,
    processor: int | None = None,
) -> PartResult:
    """Try cases of a part until there are enough, or the time is over.

    Args:
        name: The part.
        seed: Of the campaign.
        size: How many cases.
        seconds: For all of them.
        say: Called with a line about each fault.
        first: Number of the first case.
        processor: The only one to use; None for all.
    """
    part = part_module(name)
    of_a_child = size if getattr(part, "WHOLE", False) else _CASES_OF_A_CHILD
    result = PartResult(name, size)
    start = time.monotonic()
    end = start + seconds
    child: _Child | None = None
    try:
        for number in range(first, first + size):
            if time.monotonic() >= end:
                break
            if child is None or child.tried >= of_a_child:
                if child is not None:
                    child.stop()
                child = _Child(name, seed, processor)
            case = f"{name}-{seed}-{number}"
            left = end - time.monotonic()
            told = child.tried_case(number, min(part.SECONDS, left))
            if told is None and left < part.SECONDS and child.alive:
                break  # the part's own time was over
            if told is None:
                what = f"no end within {part.SECONDS} s" if child.alive else f"the process ended ({child.code})"
                told = {"word": "fault", "fault": what, "seconds": float(part.SECONDS), "mb": 0.0}
                child.stop(patience=0)
                child = None
            result.add(case, told)
            if told["fault"] is not None:
                say(f"{case}: {told['fault']}")
    finally:
        if child is not None:
            child.stop()
    result.seconds = time.monotonic() - start
    return result


class _Child:
    """A process that tries cases, with all that it started in turn in a session of their own."""

    def __init__(self, name: str, seed: int, processor: int | None = None) -> None:
        path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaign.worker", name, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        if processor is not None:
            os.sched_setaffinity(self._process.pid, {processor})  # what it starts later inherits it
        self._text = b""
        self.tried = 0
        if self._line(_SECONDS_TO_START) is None:
            self.stop()
            raise RuntimeError(
                f"campaign part {name}: its process does not start; try: python -m campaign.worker {name} 0"
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def code(self) -> int | None:
        return self._process.returncode

    def tried_case(self, number: int, seconds: float) -> dict[str, Any] | None:
        """What is told of a case; None if nothing is, in time or because the process ended."""
        assert self._process.stdin is not None
        self.tried += 1
        try:
            self._process.stdin.write(f"{number}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()
            return None
        return self._line(seconds)

    def _line(self, seconds: float) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._text:
                if not selector.select(max(0.0, end - time.monotonic())):
                    return None
                read = os.read(self._process.stdout.fileno(), 65536)
                if not read:
                    self._process.wait()
                    return None
                self._text += read
        line, _, self._text = self._text.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def stop(self, patience: float = 5) -> None:
        """End the process and what it started; a child that waits for a case ends by itself and clears its folder.

        Args:
            patience: Seconds that it gets for that; 0 for a child that is lost in a case.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
