"""Files that appear whole or not at all, and one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from calib.errors import CalibrationError

_SCRATCH = ".calib-"


class Transaction:
    """Several files that are replaced together.

    Write to the paths that `stage` gives; when the `with` block ends well, every file is flushed to disk and renamed
    to its place, and those named to `discard` are gone; when it ends with an exception, nothing of it remains and the
    older files are untouched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        self._discarded: list[str] = []

    def __enter__(self) -> Transaction:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.folder))
        except OSError as error:
            raise CalibrationError(f"{self.folder}: cannot be written to: {error.strerror}") from error
        return self

    def stage(self, name: str) -> Path:
        """Where to write the file that will be called `name` in the folder."""
        self._names.append(name)
        return self._scratch / name

    def discard(self, name: str) -> None:
        """Remove an older file of the folder, if there is one, together with the replacements."""
        self._discarded.append(name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        except OSError as failure:
            raise _write_error(self.folder, failure) from failure
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, CalibrationError):
            raise _write_error(self.folder, error) from error

    def _commit(self) -> None:
        for name in self._names:
            with (self._scratch / name).open("rb") as file:
                os.fsync(file.fileno())
        for name in (
            *self._names,
            *self._discarded,
        ):  # the one way a rename on the same disk fails; seen before the first of them
            if (self.folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"'{name}' is a folder there")
        for name in self._discarded:  # first: what is to go never lies beside the new files
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).replace(self._scratch / f"discarded-{name}")
        for name in self._names:
            (self._scratch / name).replace(self.folder / name)
        if os.name == "posix":
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _write_error(folder: Path, error: OSError) -> CalibrationError:
    return CalibrationError(
        f"{folder}: could not be written: {error.strerror or error}; the older files in it are untouched"
    )


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; the lock ends with the process, however it ends.

    Raises:
        CalibrationError: Another run holds it, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise CalibrationError(f"{folder}: expected a folder to write to, found a file; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise CalibrationError(
            f"{folder}: another calib run is writing here; wait for it to end, or choose another folder with --out"
        ) from None
    except OSError as error:
        raise CalibrationError(f"{folder}: cannot be written to: {error.strerror}") from error
    try:
        for left in folder.glob(f"{_SCRATCH}*"):  # of a run that was killed: nobody else writes here now
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()
