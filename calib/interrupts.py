"""Ctrl-C: held back while a set of files is replaced or a C++ library calls back, and never lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback of a C library the exception may
be printed and dropped, or come out as another error. The command line therefore notes each Ctrl-C, and work that is
about to have a lasting effect asks whether there was one.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """What is known of Ctrl-C in this process.

    Attributes:
        pending: One came while it was deferred, and has not been raised yet.
        noted: The command line notes them.
        pressed: One came since the command line began to note them, whatever became of its exception.
    """

    def __init__(self) -> None:
        self.pending = self.noted = self.pressed = False

    def defer(self, number: int, frame: FrameType | None) -> None:
        """Handler for work that must not be interrupted."""
        self.pending = True
        self.pressed = self.pressed or self.noted

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handler of the command line: like Python's own, but it leaves a trace."""
        self.pressed = True
        raise KeyboardInterrupt


_INTERRUPTS = Interrupts()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def interrupts_noted() -> Iterator[Interrupts]:
    """Keep trace of Ctrl-C for the command line, so that one whose exception is dropped somewhere still counts.

    This does nothing outside the main thread, or if the program has its own handler or ignores Ctrl-C.
    """
    _INTERRUPTS.pressed = False
    if not _in_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield _INTERRUPTS
        return
    unraisable = sys.unraisablehook

    def without_interrupts(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):  # it was noted, and will be heeded
            unraisable(dropped)

    sys.unraisablehook = without_interrupts
    _INTERRUPTS.noted = True
    signal.signal(signal.SIGINT, _INTERRUPTS.note)
    try:
        yield _INTERRUPTS
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = unraisable
        _INTERRUPTS.noted = _INTERRUPTS.pressed = False


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C to the end of a piece of work, or to `heed_interrupt`.

    Python runs the Ctrl-C handler when the main thread next executes Python code. While a C++ library is running, that
    is one of its callbacks, such as a logger: the exception would be lost there, or would end the process.

    This does nothing outside the main thread, because Python interrupts no other thread, or if the program has its own
    handler.

    Raises:
        KeyboardInterrupt: At the end, if Ctrl-C was pressed and has not been raised before.
    """
    before = signal.getsignal(signal.SIGINT)
    if not _in_main_thread() or before not in (signal.default_int_handler, _INTERRUPTS.note):
        yield
        return
    _INTERRUPTS.pending = False
    signal.signal(signal.SIGINT, _INTERRUPTS.defer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        heed_interrupt()


def heed_interrupt() -> None:
    """Raise the Ctrl-C that was deferred, if one was; each is raised once.

    Raises:
        KeyboardInterrupt: One was deferred.
    """
    if _INTERRUPTS.pending and _in_main_thread():
        _INTERRUPTS.pending = False
        raise KeyboardInterrupt


def stop_if_interrupted() -> None:
    """Raise if Ctrl-C came at any time before, even if its exception was raised and then dropped somewhere.

    Raises:
        KeyboardInterrupt: It came.
    """
    heed_interrupt()
    if _INTERRUPTS.pressed and _in_main_thread():
        raise KeyboardInterrupt
