"""Ctrl-C while a library that calls back into Python is at work."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class _Pending:
    """Whether Ctrl-C came while it was deferred."""

    def __init__(self) -> None:
        self.came = False

    def note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


_PENDING = _Pending()


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Keep Ctrl-C for the end of a piece of work, or for `heed_interrupt`.

    Python runs the handler of Ctrl-C in the main thread's next lines of Python, and where a C++ library is at work
    these are lines of a callback of it, a logger's for instance: the exception would be lost there, or end the process.

    In another thread than the main one, which Python never interrupts, or beside a handler of the program's own, this
    does nothing.

    Raises:
        KeyboardInterrupt: At the end, when Ctrl-C came and was not heeded before.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _PENDING.came = False
    signal.signal(signal.SIGINT, _PENDING.note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        heed_interrupt()


def heed_interrupt() -> None:
    """Raise the Ctrl-C that was deferred, if one was.

    Raises:
        KeyboardInterrupt: One was.
    """
    if _PENDING.came and threading.current_thread() is threading.main_thread():
        _PENDING.came = False
        raise KeyboardInterrupt
