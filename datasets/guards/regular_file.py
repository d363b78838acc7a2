"""Opening a file that somebody else put there, and reading no more of it than was promised.

A name may lead to a FIFO, whose opening waits for a writer, or to a device that gives bytes without end. Both are told
from a file before they are opened, and what is opened never waits.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
_PIECE_BYTES = 2**20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularError(OSError):
    """What has the name is no regular file."""


def open_regular(path: str | Path) -> io.FileIO:
    """A regular file, opened for reading without a buffer.

    Raises:
        NotRegularError: It is a pipe, a socket or a device; `strerror` says so.
        OSError: It cannot be opened.
    """
    descriptor, _ = _opened(path)
    try:
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def whole_file(path: str | Path, most: int) -> bytes | None:
    """The contents of a regular file, up to the size that it had at first; None if that is more than `most` bytes.

    It asks the system as little as possible, since with a tiny file that takes longer than reading it.

    Raises:
        NotRegularError: It is a pipe, a socket or a device; `strerror` says so.
        OSError: It cannot be opened or read.
    """
    descriptor, size = _opened(path)
    try:
        if size > most:
            return None
        first = os.read(descriptor, size)
        if len(first) == size:
            return first
        return first + b"".join(_rest_of(descriptor, size - len(first)))
    finally:
        os.close(descriptor)


def _opened(path: str | Path) -> tuple[int, int]:
    """Descriptor and size of a regular file."""
    _check(os.stat(path), path)  # noqa: PTH116 - before it is opened: opening alone makes some devices act
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        _check(status, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _rest_of(descriptor: int, left: int) -> Iterator[bytes]:
    while left > 0 and (piece := os.read(descriptor, left)):
        left -= len(piece)
        yield piece


def pieces_of(file: io.FileIO) -> Iterator[bytes]:
    """The contents of an open file in pieces, up to the size that it had at first.

    The size is the bound: files of a system's own, such as those in /proc, say 0 and may give bytes without end.
    """
    left = size_of(file)
    while left > 0:
        piece = file.read(min(left, _PIECE_BYTES))
        if not piece:  # cut off since, or it would have to wait
            return
        left -= len(piece)
        yield piece


def size_of(file: io.FileIO) -> int:
    """Size of an open file, bytes."""
    return os.fstat(file.fileno()).st_size


def kind_of(path: str | Path) -> str:
    """What has this name, in words: `a file`, `a folder`, `a device`, `nothing`."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return "nothing"
    return next((words for matches, words in _KINDS if matches(mode)), "a file")


def _check(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    found = next((words for matches, words in _KINDS if matches(status.st_mode)), "something else")
    raise NotRegularError(errno.EINVAL, f"expected a file, found {found}", os.fspath(path))
