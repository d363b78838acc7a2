"""The images of a folder and its sub-folders, and what else is there."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets.errors import DatasetError

VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
_MOST_DEEP = 200  # folders in folders
_MOST_VISITS = 100  # to a folder, where links lead to it
_FRAMES = "mkdir -p frames && ffmpeg -i {} -vf fps=2 frames/%06d.png"


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        names: The files that were looked for, as sorted POSIX paths relative to the folder.
        others: Number of the other files, by extension in small letters; None if the folder was not looked through.
    """

    names: tuple[str, ...]
    others: Mapping[str, int] | None


class FileNames(dict[Path, frozenset[str]]):
    """The names of the files in each folder that is asked for, read once; none where it cannot be listed."""

    def __missing__(self, folder: Path) -> frozenset[str]:
        names: frozenset[str] = frozenset()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            names = frozenset(entry.name for entry in entries if _is_file(entry))
        self[folder] = names
        return names


def suffix_of(name: str) -> str:
    """The extension of a file's name in small letters, as `Path.suffix`, which takes ten times as long."""
    base = name.rfind("/") + 1
    start = name.rfind(".", base)
    return name[start:].lower() if base < start < len(name) - 1 else ""


def listing_from_folder(folder: Path, extensions: frozenset[str]) -> Listing:
    """List the files of a folder and its sub-folders that have one of these extensions, without hidden ones.

    Args:
        folder: The folder.
        extensions: With their dots, in small letters.

    Raises:
        DatasetError: It does not exist, cannot be listed, is nested too deeply, or has links without end.
    """
    if not folder.exists():
        raise DatasetError(f"{folder}: no such folder; expected a folder of images")
    if not folder.is_dir():
        refuse_video(folder)
        raise DatasetError(f"{folder}: not a folder; expected a folder of images")
    found = _Collected()
    _collect(folder, "", (_folder_id(os.stat(folder)),), extensions, found)  # noqa: PTH116
    return Listing(tuple(sorted(found.names)), found.others)


def in_words(others: Mapping[str, int], most: int = 5) -> str:
    """Numbers of files by extension, the most frequent first."""
    common = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}" for suffix, count in common[:most])


def frames_advice(video: str) -> str:
    """How images are made of a video."""
    return f"make images of a video first, such as with: {_FRAMES.format(shlex.quote(video))}"


def refuse_video(path: Path) -> None:
    """Say what to do with a file that is a video by its name, in place of images.

    Raises:
        DatasetError: It is one.
    """
    if path.suffix.lower() in VIDEOS:
        raise DatasetError(f"{path}: a video is not read; {frames_advice(str(path))}; then give the folder")


@dataclass(frozen=True)
class _Collected:
    """What was found so far, and how often each folder was looked through."""

    names: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    visits: Counter[tuple[int, int]] = field(default_factory=Counter)


def _collect(
    folder: str | Path,
    prefix: str,
    ancestors: tuple[tuple[int, int], ...],
    extensions: frozenset[str],
    found: _Collected,
) -> None:
    """Add the files below `folder` to the names, and count the extensions of the others.

    Raises:
        DatasetError: A folder cannot be listed, lies too deep, or is reached in too many ways: links between n folders
            make up to n! paths.
    """
    found.visits[ancestors[-1]] += 1
    if len(ancestors) > _MOST_DEEP:
        raise DatasetError(
            f"{folder}: lies over {_MOST_DEEP} folders deep; give a folder that holds the images themselves"
        )
    if found.visits[ancestors[-1]] > _MOST_VISITS:
        raise DatasetError(
            f"{folder}: links lead to this folder in over {_MOST_VISITS} ways; give a folder without links between its "
            "own folders"
        )
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DatasetError(f"{folder}: the folder cannot be listed: {(error.strerror or str(error)).lower()}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            here = _folder_id(entry.stat())
            if here not in ancestors:  # a symbolic link back to a folder above would never end
                _collect(entry.path, f"{prefix}{entry.name}/", (*ancestors, here), extensions, found)
            continue
        suffix = suffix_of(entry.name)
        # A dangling link named like an image is kept, so that it is reported as unreadable instead of being ignored.
        if suffix in extensions and (entry.is_symlink() or _is_file(entry)):
            found.names.append(prefix + entry.name)
        else:
            found.others[suffix or "without an extension"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _folder_id(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
