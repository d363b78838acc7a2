"""Files that appear whole or not at all, and one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from calib.errors import OutputError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_SCRATCH = ".calib-"
_OWNER = ".owner"  # a lock in the scratch folder


class Transaction:
    """Several files that are replaced together.

    Write to the paths that `stage` returns. When the `with` block ends normally, every file is flushed to disk and
    renamed to its final name, and the files passed to `discard` are removed. When the block ends with an exception,
    nothing that was staged remains and the older files are untouched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        self._discarded: list[str] = []

    def __enter__(self) -> Transaction:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._scratch, self._owner = _owned_scratch(self.folder)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written to: {error.strerror}") from error
        return self

    def stage(self, name: str) -> Path:
        """The path to write to for the file that will be called `name` in the folder."""
        self._names.append(name)
        return self._scratch / name

    def discard(self, name: str) -> None:
        """Remove an older file from the folder, if there is one, when the others are replaced."""
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
            self._owner.release()
            shutil.rmtree(self._scratch, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, OutputError):
            raise _write_error(self.folder, error) from error

    def _commit(self) -> None:
        for name in self._names:
            with (self._scratch / name).open("rb") as file:
                os.fsync(file.fileno())
        # A folder in the way is the one thing that makes a rename on the same disk fail: check before the first rename.
        for name in (*self._names, *self._discarded):
            if (self.folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"'{name}' is a folder there")
        for name in self._discarded:  # first, so that a discarded file never lies beside the new ones
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


def _owned_scratch(folder: Path) -> tuple[Path, BaseFileLock]:
    """A new folder for unfinished files, and the lock in it that its writer holds as long as the process lives."""
    from filelock import FileLock, Timeout

    while True:
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder))
        lock = FileLock(scratch / _OWNER, timeout=0)
        try:
            lock.acquire()
        except (Timeout, FileNotFoundError):  # another process took the still unlocked folder for an abandoned one
            continue
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        if (scratch / _OWNER).exists():
            return scratch, lock
        lock.release()


def _remove_abandoned_scratch(folder: Path) -> None:
    """Remove the scratch folders of writers that were killed; a living writer holds the lock in its own.

    A folder that has files but no lock only happens to have such a name, and is not ours.
    """
    from filelock import FileLock, Timeout

    for scratch in folder.glob(f"{_SCRATCH}*"):
        if not scratch.is_dir() or (any(scratch.iterdir()) and not (scratch / _OWNER).exists()):
            continue
        lock = FileLock(scratch / _OWNER, timeout=0)
        with contextlib.suppress(Timeout, OSError):
            lock.acquire()
            shutil.rmtree(scratch, ignore_errors=True)
            lock.release()


def _write_error(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: could not be written: {error.strerror or error}; the older files in it are untouched"
    )


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; the lock ends with the process, however it ends.

    Raises:
        OutputError: Another run holds it, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder to write to, found a file; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{folder}: another calib run is writing here; wait for it to end, or choose another folder with --out"
        ) from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error.strerror}") from error
    try:
        _remove_abandoned_scratch(folder)
        yield
    finally:
        lock.release()


def sha256_of_files(*paths: Path) -> str:
    """SHA-256 (hex) over the contents of files, one after the other, read in pieces."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
