"""Sessions that share the memory of one machine: large ones are closed while others need the room.

A session holds its model's weights a second time, in the form that its kernels read, and one of reduced precision may
hold them as floats besides. Builds whose sessions fit into `ROOM` together are all open, so that they can be run and
timed in turn. Of others, those of one build are open at a time, and opened again when it is run.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from quant.backend import Build, Runnable

ROOM = 1 << 30  # bytes of weights, as floats, of all sessions that are open at a time
_FLOAT = 4  # bytes

_lock = threading.RLock()
_open: weakref.WeakSet[Resident] = weakref.WeakSet()


class Resident:
    """A session of a build, open while there is room for it.

    Attributes:
        bytes: What its session may hold.
    """

    def __init__(self, opened: Callable[[], Runnable], size: int, *, beside: Sequence[Resident] = ()) -> None:
        """Open the session once, so that what is wrong with it is known.

        Args:
            opened: Opens it.
            size: What it may hold, bytes; see `bytes_of_session`.
            beside: Sessions of the same build, which stay open with it.
        """
        self._opened = opened
        self.bytes = size
        self._session: Runnable | None = None
        self._beside: weakref.WeakSet[Resident] = weakref.WeakSet(beside)
        self._used = 0.0
        for other in beside:
            other._beside.add(self)
        self._ready()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """See `OnnxRuntimeSession.run`.

        Raises:
            BuildError: It could not be opened again.
        """
        return self._ready().run(inputs)

    def _ready(self) -> Runnable:
        with _lock:
            self._used = time.monotonic()
            if self._session is None:
                make_room(self.bytes, {self, *self._beside})
                self._session = self._opened()
                _open.add(self)
            return self._session

    def close(self) -> None:
        """Free the session; the next run opens it again."""
        with _lock:
            self._session = None
            _open.discard(self)


def make_room(size: int, kept: set[Resident] | frozenset[Resident] = frozenset()) -> None:
    """Close open sessions of other builds, those first that were used longest ago, until `size` bytes fit."""
    with _lock:
        for resident in sorted(_open, key=lambda resident: resident._used):
            if size + sum(other.bytes for other in _open) <= ROOM:
                return
            if resident not in kept:
                resident.close()


def bytes_of_session(values: int) -> int:
    """What a session may hold of a model with so many values in its weights: all of them, as floats."""
    return _FLOAT * values


def fits(size: int) -> bool:
    """Is there room for sessions of so many bytes?"""
    return size <= ROOM


def fit_together(builds: Iterable[Build]) -> bool:
    """Can the sessions of all these builds be open at a time?"""
    return fits(sum(build.session_bytes * (1 if build.deployed is None else 2) for build in builds))
