"""Files that are read whole: only regular ones, and only up to a size. A pipe would block, a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_TEXT = 128 << 20  # bytes of a cache or a document; those of a million tensors or images are smaller


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading if it is a regular one; links to such files are followed.

    Raises:
        OSError: There is no such file, or it is a folder, a pipe, a device or a socket.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def bytes_of_file(path: Path, most: int = MOST_TEXT) -> bytes:
    """The contents of a regular file of at most `most` bytes.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger.
    """
    with open_regular(path) as file:
        contents = file.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB", str(path))
    return contents


def text_of_file(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a regular file of at most `most` bytes: UTF-8, without the byte order mark that some editors write.

    Raises:
        OSError: See `bytes_of_file`.
        UnicodeDecodeError: It is no UTF-8.
    """
    return text_from_bytes(bytes_of_file(path, most))


def text_from_bytes(contents: bytes) -> str:
    """UTF-8 as text, without a byte order mark.

    Raises:
        UnicodeDecodeError: It is no UTF-8.
    """
    return contents.decode("utf-8-sig")


def resolved(path: Path) -> Path:
    """The path without links, also where they lead in a circle, which `Path.resolve` takes for an error."""
    return Path(os.path.realpath(path))
