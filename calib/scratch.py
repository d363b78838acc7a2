"""Folders for unfinished files: who owns them, and how a set of files is moved out of one as a whole.

A writer works in a scratch folder beside the files that it will replace, and holds a lock in it as long as its process
lives. When all files are complete, it writes a record of what is to be done. From then on the set counts as written:
if the process dies between two renames, whoever next reads or writes files in that folder does the rest. Without a
record nothing has been replaced, and the scratch folder of a dead writer is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PREFIX = ".calib-scratch-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")  # as `tempfile.mkdtemp` fills it in
_OWNER = ".calib-owner"  # the lock
_RECORD = "commit.json"
_NEW, _OLD = "new", "old"
_PATIENCE = 20.0  # seconds; moving files takes milliseconds, and a lock on the folder may be someone else's


@dataclass(frozen=True)
class Scratch:
    """A scratch folder that this process owns.

    Attributes:
        path: The folder.
        lock: Held as long as the folder is in use.
    """

    path: Path
    lock: BaseFileLock

    def staged(self, name: str) -> Path:
        """Where the new file of this name is written."""
        return self.path / _NEW / name

    def remove(self) -> None:
        """Remove the folder with all that is in it, unless it holds a set that could be moved neither in nor back."""
        self.lock.release()
        if not (self.path / _RECORD).exists():
            _remove(self.path)


@dataclass(frozen=True)
class _Record:
    """What is to be done in the folder.

    Attributes:
        written: Files that replace older ones or are new.
        removed: Older files that go.
        saved: Those of both that were there before; links to them are kept until all is done.
    """

    written: tuple[str, ...]
    removed: tuple[str, ...]
    saved: tuple[str, ...]


def owned_scratch(folder: Path) -> Scratch:
    """A new scratch folder.

    Raises:
        OSError: The folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        lock = FileLock(path / _OWNER, timeout=0)
        try:
            lock.acquire()
            if (path / _OWNER).exists():
                (path / _NEW).mkdir()
                return Scratch(path, lock)
            lock.release()
        except (Timeout, FileNotFoundError, FileExistsError):
            lock.release()  # another process took the still unlocked folder for an abandoned one, and removed it
        except BaseException:
            _remove(path)
            lock.release()
            raise


def move_into_place(scratch: Scratch, folder: Path, written: Sequence[str], removed: Sequence[str]) -> None:
    """Replace and remove files of a folder as one set; the new ones are complete in the scratch folder.

    Raises:
        OSError: A file cannot be moved; all are as they were before.
    """
    with _one_at_a_time(folder):
        _recover(folder)
        (scratch.path / _OLD).mkdir()
        names = dict.fromkeys((*written, *removed))
        record = _Record(tuple(written), tuple(removed), tuple(n for n in names if _saved(scratch.path, folder, n)))
        _write_record(scratch.path, record)
        _finish_or_undo(scratch.path, folder, record)


def recover(folder: Path) -> None:
    """Complete what writers that have died left half moved, and remove their scratch folders.

    Nothing is done where nothing can be: a folder that cannot be written to stays as it is.
    """
    with contextlib.suppress(OSError):
        if _abandonable(folder):
            with _one_at_a_time(folder):
                _recover(folder)


def _recover(folder: Path) -> None:
    for path in _abandonable(folder):
        with contextlib.suppress(OSError):  # its writer lives and removes it, or nothing can be moved here
            _recover_one(path, folder)


def _recover_one(path: Path, folder: Path) -> None:
    from filelock import FileLock, Timeout

    if not any(path.iterdir()):  # its writer had no time to lock it; a living one tries again
        path.rmdir()
        return
    owner = path / _OWNER
    if owner.is_symlink() or not owner.is_file():
        return  # not ours, whatever its name
    lock = FileLock(owner, timeout=0)
    try:
        lock.acquire()
    except Timeout:  # its writer lives
        return
    try:
        record = _read_record(path)
        if record is not None:
            _finish_or_undo(path, folder, record)
        _remove(path)
    finally:
        lock.release()


def _abandonable(folder: Path) -> list[Path]:
    """The scratch folders in a folder, by name."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if _NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False))


def _remove(path: Path) -> None:
    """Remove a scratch folder, its lock last: without the lock, nobody would know that it is one.

    Another process may do the same at the same time.
    """
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            if entry.name != _OWNER:
                _remove_tree(entry)
    with contextlib.suppress(OSError):
        _remove_tree(path)


def _remove_tree(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, with one file descriptor at a time: there may be no more."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for name in os.listdir(path):  # noqa: PTH208 - it has closed the folder when it returns
        _remove_tree(path / name)
    path.rmdir()


def _saved(scratch: Path, folder: Path, name: str) -> bool:
    """Keep the older file of this name until all is done; whether there is one."""
    older, kept = folder / name, scratch / _OLD / name
    try:
        os.link(older, kept, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:  # a file system without links
        shutil.copy2(older, kept, follow_symlinks=False)
    return True


def _write_record(scratch: Path, record: _Record) -> None:
    unfinished = scratch / f"{_RECORD}.part"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(asdict(record), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(scratch / _RECORD)
    _flush(scratch)


def _read_record(scratch: Path) -> _Record | None:
    """The record, if it is one: it may come from elsewhere, and must not lead out of the folder."""
    try:
        found: Any = json.loads((scratch / _RECORD).read_text(encoding="utf-8"))
        lists = [found[key] for key in ("written", "removed", "saved")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(isinstance(names, list) and all(_is_file_name(name) for name in names) for names in lists):
        return None
    written, removed, saved = (tuple(names) for names in lists)
    return _Record(written, removed, saved)


def _is_file_name(name: object) -> bool:
    if not isinstance(name, str) or name in ("", ".", "..") or {"/", "\\", "\0"} & set(name):
        return False
    try:
        os.fsencode(name)
    except UnicodeError:
        return False
    return True


def _finish_or_undo(scratch: Path, folder: Path, record: _Record) -> None:
    """Do what a record says, or take it back if that fails; then drop the record."""
    try:
        for name in record.removed:
            (folder / name).unlink(missing_ok=True)
        for name in record.written:
            with contextlib.suppress(FileNotFoundError):  # moved before its writer died
                (scratch / _NEW / name).replace(folder / name)
        _flush(folder)
    except OSError:
        _undo(scratch, folder, record)
        _drop(scratch)
        raise
    _drop(scratch)


def _undo(scratch: Path, folder: Path, record: _Record) -> None:
    for name in (*record.written, *record.removed):
        if name in record.saved:
            with contextlib.suppress(FileNotFoundError):  # taken back before
                (scratch / _OLD / name).replace(folder / name)
        elif not (scratch / _NEW / name).exists():
            (folder / name).unlink(missing_ok=True)
    _flush(folder)


def _drop(scratch: Path) -> None:
    (scratch / _RECORD).unlink()
    _flush(scratch)


def _flush(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let only one process at a time move files into a folder, by a lock on the folder itself, which leaves no file."""
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    break
                time.sleep(0.01)
            except OSError:  # a file system without such locks
                break
        yield
    finally:
        os.close(descriptor)
