"""Ctrl-C while a library that calls back into Python is running."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class _Pending:
    """Whether Ctrl-C was pressed while it was deferred."""

    def __init__(self) -> None:
        self.came = False

    def note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


_PENDING = _Pending()


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
        KeyboardInterrupt: One was deferred.
    """
    if _PENDING.came and threading.current_thread() is threading.main_thread():
        _PENDING.came = False
        raise KeyboardInterrupt
