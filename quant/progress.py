"""What a run tells its user while it works; the command line shows it, and library users may listen to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from calib.texts import plain_text


class Console(Protocol):
    """Where progress, notes and warnings go."""

    def note(self, line: str) -> None:
        """Show one line about what is being done."""

    def warn(self, line: str) -> None:
        """Show one line that the user should read; it is also in the report."""

    def task(self, description: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Start a piece of work on `total` images; gives a function to call with how many more are done."""


class Timings:
    """Seconds by stage, in the order in which stages were first mentioned; several threads may add to them.

    A stage within another has the other's name, a colon and its own. Stages that run in several threads are counted in
    seconds of a thread.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._spans: dict[str, tuple[float, float]] = {}
        self._begin = time.perf_counter()
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextlib.contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Time a piece of work, also if it fails."""
        self.add(stage, 0.0)  # stages within it come after it
        start = time.perf_counter()
        try:
            yield
        finally:
            self.between(stage, start, time.perf_counter())

    def between(self, stage: str, start: float, end: float) -> None:
        """Count a piece of work that was timed elsewhere, by `time.perf_counter`."""
        self.add(stage, end - start)
        with self._lock:
            first, last = self._spans.get(stage, (start, end))
            self._spans[stage] = min(first, start), max(last, end)

    def spans(self) -> dict[str, tuple[float, float]]:
        """When each stage that was timed as a whole began first and ended last, in seconds after the beginning."""
        with self._lock:
            return {
                stage: (self._spans[stage][0] - self._begin, self._spans[stage][1] - self._begin)
                for stage in self._seconds
                if stage in self._spans
            }

    def seconds(self) -> dict[str, float]:
        """All of them."""
        with self._lock:
            return dict(self._seconds)


class RecordingConsole:
    """Shows nothing and keeps the warnings; passes everything on to another console if one is given.

    Attributes:
        timings: Where the time goes.
    """

    def __init__(self, inner: Console | None = None) -> None:
        self.inner = inner
        self._said: list[str | RecordingConsole] = []
        self.timings = Timings()

    @property
    def warnings(self) -> list[str]:
        """All warnings so far, in order."""
        lines: list[str] = []
        for said in self._said:
            lines += [said] if isinstance(said, str) else said.warnings
        return lines

    def later(self) -> RecordingConsole:
        """For work that is done at another time: what it warns of stands here in the order, whenever it says it."""
        place = RecordingConsole(self.inner)
        self._said.append(place)
        return place

    def note(self, line: str) -> None:
        """Pass a line on."""
        if self.inner is not None:
            self.inner.note(line)

    def warn(self, line: str) -> None:
        """Keep a warning and pass it on."""
        self._said.append(line)
        if self.inner is not None:
            self.inner.warn(line)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Pass progress on."""
        if self.inner is None:
            yield lambda images: None
        else:
            with self.inner.task(description, total) as advance:
                yield advance


class PrintingConsole:
    """Prints notes, warnings and progress, for notebooks and scripts; a piece of work is one line, which is redrawn."""

    def note(self, line: str) -> None:
        """Print a line."""
        print(plain_text(line), flush=True)

    def warn(self, line: str) -> None:
        """Print a line that the user should read."""
        print(f"warning: {plain_text(line)}", flush=True)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how many images of all are done, at most a hundred times."""
        done, shown = 0, -1

        def advance(images: int) -> None:
            nonlocal done, shown
            done += images
            share = 100 * done // max(total, 1)
            if share > shown:
                shown = share
                print(f"\r{description}: {done:,} of {total:,} images", end="", flush=True)

        try:
            yield advance
        finally:
            if shown >= 0:
                print(flush=True)
