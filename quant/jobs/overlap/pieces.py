"""Pieces of work beside each other: each in a thread of its own, or one after the other where that is safer.

Where pieces run in turn, a piece is done when it is started, so their order is that of the calls.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from calib.interrupts import heed_interrupt, stopped_by

_Result = TypeVar("_Result")
_SWITCH_SECONDS = 2e-4  # TensorRT logs through Python: a line waits that long at most for another thread's Python
_LOOK_SECONDS = 0.2  # a thread that waits wakes up so often, because a signal may not interrupt its waiting


class Piece(Generic[_Result]):
    """A piece of work that was started."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._found: list[_Result] = []
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._over.is_set()

    def result(self) -> _Result:
        """What came of it; waits for its end.

        Raises:
            BaseException: What ended it, each time that it is asked.
        """
        self.wait()
        if self._error is not None:
            raise self._error
        return self._found[0]

    def raise_error(self) -> None:
        """Raise what ended it, if it has ended and something did."""
        if self.done and self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, or the thread that waits is to stop.
        """
        while not self._over.wait(_LOOK_SECONDS):
            heed_interrupt()

    def run(self, work: Callable[[], _Result], kept: type[BaseException] = BaseException) -> None:
        """Do it, and keep what comes of it, errors of the kind `kept` too."""
        try:
            self._found.append(work())
        except kept as error:
            self._error = error
        finally:
            self._over.set()


class Pieces:
    """The pieces of a job; a context manager at whose end none is left running.

    If the block ends in an error, the pieces are asked to stop where they heed that (`calib.interrupts.stopped_by`),
    and waited for: what they work on may be freed only then. Ctrl-C ends the waiting.

    Attributes:
        beside: Whether they run beside each other.
    """

    def __init__(self, *, beside: bool) -> None:
        """Keep the choice; nothing is started."""
        self.beside = beside
        self._stop = threading.Event()
        self._started: list[Piece[object]] = []
        self._switch_seconds = sys.getswitchinterval()

    def start(self, work: Callable[[], _Result]) -> Piece[_Result]:
        """Start a piece, which may wait for the results of others.

        Args:
            work: It; what it raises is raised where its result is asked for.
        """
        piece: Piece[_Result] = Piece()
        if not self.beside:
            piece.run(work, kept=Exception)
            return piece

        def stoppable() -> None:
            with stopped_by(self._stop):
                piece.run(work)

        threading.Thread(target=stoppable, name="calib-piece", daemon=True).start()
        self._started.append(piece)  # type: ignore[arg-type] # which is only waited for
        return piece

    def wait(self) -> None:
        """Wait for the end of all, so that nothing runs beside what follows."""
        for piece in self._started:
            piece.wait()

    def __enter__(self) -> Pieces:
        if self.beside:
            sys.setswitchinterval(min(_SWITCH_SECONDS, self._switch_seconds))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop.set()
        try:
            self.wait()
        finally:
            if self.beside:
                sys.setswitchinterval(self._switch_seconds)
