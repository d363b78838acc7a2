"""Writing an HDF5 file in such a way that a full disk is an error like any other.

HDF5 cannot close a file that it cannot write: it fails, keeps the file half closed, and ends the process when the
objects are freed. Here it writes to a file object that accepts everything and remembers the first error. It does so in
a thread of its own, where Ctrl-C cannot interrupt HDF5 while it uses that object.
"""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import h5py

Result = TypeVar("Result")


class PatientFile:
    """A new file whose writes never fail; data that did not reach the disk is kept in memory, so it can be read back.

    The writer must check `error` after each step and stop, so that little data is kept.

    Attributes:
        error: The first error from the disk; None if there was none.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=0)  # a buffer would keep what it cannot write, and fail again
        self._position = self._end = 0
        self._lost: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; `whence` is SEEK_SET or SEEK_END, since HDF5 needs no other."""
        self._position = offset + (self._end if whence == io.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        """The position of the next write."""
        return self._position

    def write(self, data: bytes) -> int:
        """Write all of the data at the current position."""
        start, self._position = self._position, self._position + len(data)
        self._end = max(self._end, self._position)
        if self.error is None:
            try:
                self._file.seek(start)
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
        if self.error is not None:
            self._lost.append((start, bytes(data)))
        return len(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, zeros where nothing was written, as HDF5 expects from a file that it extends."""
        start, self._position = self._position, self._position + size
        self._file.seek(start)
        contents = bytearray(self._file.read(size) or b"")
        contents.extend(bytes(size - len(contents)))
        for offset, data in self._lost:
            first, last = max(start, offset), min(start + size, offset + len(data))
            if first < last:
                contents[first - start : last - start] = data[first - offset : last - offset]
        return bytes(contents)

    def truncate(self, size: int) -> int:
        """Set the file's length."""
        self._end = size
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Do nothing, since nothing is buffered."""

    def close(self) -> None:
        """Flush to the disk and close.

        Raises:
            OSError: The first error from the disk.
        """
        with self._file:
            if self.error is not None:
                raise self.error
            os.fsync(self._file.fileno())


class Hdf5Writer:
    """A context manager for a new HDF5 file, which is written in a thread of its own."""

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            OSError: The file exists, or cannot be created.
        """
        self._disk = PatientFile(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="datasets-hdf5")
        # In the form of HDF5 1.10, whose own records have checksums: damage to them is an error, not another pack.
        self._file = self._thread.submit(h5py.File, self._disk, "w", libver="v110").result()

    def do(self, step: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401 - whatever the step takes
        """Call `step(file, *arguments)` in the thread.

        Raises:
            OSError: The disk is full or fails otherwise; there is then no point in continuing.
        """
        result = self._thread.submit(step, self._file, *arguments).result()
        if self._disk.error is not None:
            raise self._disk.error
        return result

    def __enter__(self) -> "Hdf5Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        closed = self._thread.submit(self._file.close)
        self._thread.shutdown()
        closed.result()
        try:
            self._disk.close()
        except OSError:
            if kind is None:
                raise
