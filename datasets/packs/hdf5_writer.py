"""Writing an HDF5 file so that a disk that fills up is an error like any other.

HDF5 cannot close a file that it cannot write: it fails, keeps the file half closed, and ends the process when the
objects are freed. So it writes through a file that takes everything and remembers the first error, and it does so in a
thread of its own, where no Ctrl-C can come between HDF5 and that file.
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
    """A new file whose writes never fail; what did not reach the disk is kept in memory, so that it can be read back.

    That is little: whoever writes must look at `error` after each step, and stop.

    Attributes:
        error: The first error of the disk; None while all is well.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b", buffering=0)  # a buffer would keep what it cannot write, and fail again
        self._position = self._end = 0
        self._lost: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; `whence` is SEEK_SET or SEEK_END, HDF5 needs no other."""
        self._position = offset + (self._end if whence == io.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        """The place that the next write goes to."""
        return self._position

    def write(self, data: bytes) -> int:
        """Write all of the data at the current place."""
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
        """Exactly `size` bytes, zeros where nothing was written, as HDF5 expects it of a file that it makes longer."""
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
        """Nothing is buffered."""

    def close(self) -> None:
        """Flush to the disk and close.

        Raises:
            OSError: The disk's first error.
        """
        with self._file:
            if self.error is not None:
                raise self.error
            os.fsync(self._file.fileno())


class Hdf5Writer:
    """A new HDF5 file, written in a thread of its own; a context manager."""

    def __init__(self, path: Path) -> None:
        """Create the file.

        Raises:
            OSError: It exists, or cannot be created.
        """
        self._disk = PatientFile(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="datasets-hdf5")
        self._file = self._thread.submit(h5py.File, self._disk, "w").result()

    def do(self, step: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401 - whatever the step takes
        """Call `step(file, *arguments)` in the thread.

        Raises:
            OSError: The disk is full, or fails otherwise; then there is no use in going on.
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
