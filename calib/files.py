"""Files that appear whole or not at all, and one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from calib.commits import note_commit
from calib.errors import OutputError
from calib.interrupts import interrupts_deferred, stop_if_interrupted
from calib.regular_files import open_regular, resolved
from calib.scratch import Scratch, move_into_place, owned_scratch, recover


class Transaction:
    """Several files that are replaced together.

    Write to the paths that `stage` returns. When the `with` block ends normally, every file is flushed to disk, and all
    are moved to their final names as one set, while the files passed to `discard` are removed. If the process dies in
    the middle of that, the next one that reads or writes there completes it (see `calib.scratch`). When the block ends
    with an exception, or Ctrl-C came before the first file was moved, nothing that was staged remains and the older
    files are untouched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        self._discarded: list[str] = []
        self._scratch: Scratch | None = None

    def __enter__(self) -> Transaction:
        try:
            with interrupts_deferred():
                _check_held(self.folder)
                self.folder.mkdir(parents=True, exist_ok=True)
                recover(self.folder)
                self._scratch = owned_scratch(self.folder)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written to: {error.strerror}") from error
        except BaseException:
            self._close()
            raise
        return self

    def stage(self, name: str) -> Path:
        """The path to write to for the file that will be called `name` in the folder."""
        self._names.append(name)
        return self._staged(name)

    def discard(self, name: str) -> None:
        """Remove an older file from the folder, if there is one, when the others are replaced."""
        self._discarded.append(name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            with interrupts_deferred():
                try:
                    if kind is None:
                        self._commit()
                finally:
                    self._close()
        except OSError as failure:
            raise _write_error(self.folder, failure) from failure
        finally:
            self._close()
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, OutputError):
            raise _write_error(self.folder, error) from error

    def _staged(self, name: str) -> Path:
        assert self._scratch is not None, "only within the block"
        return self._scratch.staged(name)

    def _flush(self) -> None:
        for name in self._names:
            with self._staged(name).open("rb") as file:
                os.fsync(file.fileno())

    def _commit(self) -> None:
        assert self._scratch is not None
        stop_if_interrupted()
        _check_held(self.folder)
        # A folder in the way is the one thing that makes a rename on the same disk fail: check before the first rename.
        # A pipe or a device would be replaced, and would be gone for those who use it.
        for name in (*self._names, *self._discarded):
            target = self.folder / name
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, f"'{name}' is a folder there")
            if target.exists() and not target.is_file():
                raise OSError(errno.EEXIST, f"'{name}' is no regular file there")
        move_into_place(self._scratch, self.folder, self._names, self._discarded)
        note_commit(self.folder / name for name in self._names)

    def _close(self) -> None:
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None


def _write_error(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: could not be written: {error.strerror or error}; the older files in it are untouched"
    )


@dataclass(frozen=True)
class _Held:
    """A folder that this process holds.

    Attributes:
        folder: The folder's path, resolved.
        descriptor: Keeps the folder's number from being given to another folder; None where folders cannot be opened.
        lock: The lock file's device and number.
    """

    folder: Path
    descriptor: int | None
    lock: tuple[int, int]

    def is_there(self) -> bool:
        """Whether the folder and the lock file in it are still those that were taken."""
        try:
            same = self.descriptor is None or os.path.samestat(os.fstat(self.descriptor), self.folder.stat())
            return same and _identity(self.folder / _LOCK) == self.lock
        except OSError:
            return False


_LOCK = ".lock"
_HELD: dict[Path, _Held] = {}


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat(follow_symlinks=False)
    return status.st_dev, status.st_ino


def _check_held(folder: Path) -> None:
    """Stop if a folder that this process holds was removed or replaced: what it wrote there is gone."""
    held = _HELD.get(resolved(folder))
    if held is not None and not held.is_there():
        raise OutputError(
            f"{folder}: was removed or replaced while this run was writing to it, and what it had written is gone; "
            "nothing more is written: run again"
        )


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; the lock ends with the process, however it ends.

    Raises:
        OutputError: Another run holds it, the folder cannot be written to, or it was removed during the block.
    """
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder to write to, found a file; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _LOCK).is_symlink():
            raise OutputError(f"{folder / _LOCK}: expected a lock file, found a link; remove it")
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{folder}: another calib run is writing here; wait for it to end, or choose another folder with --out"
        ) from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error.strerror}") from error
    try:
        with _registered(folder):
            recover(folder)
            yield
            _check_held(folder)
    finally:
        lock.release()


@contextlib.contextmanager
def _registered(folder: Path) -> Iterator[None]:
    path = resolved(folder)
    descriptor = os.open(path, os.O_RDONLY) if os.name == "posix" else None
    try:
        _HELD[path] = _Held(path, descriptor, _identity(path / _LOCK))
        yield
    finally:
        _HELD.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)


def sha256_of_files(*paths: Path) -> str:
    """SHA-256 (hex) over the contents of regular files, one after the other, read in pieces.

    Raises:
        OSError: One cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
