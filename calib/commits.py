"""Which sets of files were written, for whoever has to tell what an interrupted command left."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from pathlib import Path

_LOG: contextvars.ContextVar[list[tuple[Path, ...]] | None] = contextvars.ContextVar("commits", default=None)


@contextlib.contextmanager
def commits_noted(log: list[tuple[Path, ...]]) -> Iterator[None]:
    """Add the sets of files that are written in the block to a list, each as a tuple of paths."""
    token = _LOG.set(log)
    try:
        yield
    finally:
        _LOG.reset(token)


def note_commit(paths: Iterable[Path]) -> None:
    """Note a set of files that has been written."""
    log = _LOG.get()
    if log is not None:
        log.append(tuple(paths))
