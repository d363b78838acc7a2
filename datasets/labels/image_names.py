"""Which image a cell of a table means: by its name, the end of its path, or its name without the extension."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_SEVERAL = -1


@dataclass(frozen=True)
class Found:
    """The image that a cell means.

    Attributes:
        index: Its place among the names.
        how: `name`, `path` (the cell has more or fewer folders) or `id` (without the extension, or with another).
        sure: Does all of the cell agree with where the image is? Otherwise the cell's folders are others.
    """

    index: int
    how: str
    sure: bool


class ImageNames:
    """Finds images by what tables call them."""

    def __init__(self, folder: Path, names: Sequence[str], extensions: frozenset[str]) -> None:
        """Prepare the search.

        Args:
            folder: The images' folder.
            names: The images, POSIX paths relative to it.
            extensions: Extensions of images, which an ID may carry although its image has another.
        """
        self.names = names
        self._extensions = extensions
        # A path may be that of a link, or of what it leads to.
        self._above = [
            PurePosixPath(Path(path).as_posix()).parts for path in (folder.absolute(), os.path.realpath(folder))
        ]
        self._whole = {name: i for i, name in enumerate(names)}
        self._ends = _ends(names)
        ids = [str(PurePosixPath(name).with_suffix("")) for name in names]
        self._whole_ids: dict[str, int] = {}
        for i, each in enumerate(ids):
            self._whole_ids[each] = _SEVERAL if each in self._whole_ids else i
        self._end_ids = _ends(ids)

    def find(self, cell: str) -> Found | None:
        """The image that a cell means; None where it means none, or could mean several."""
        if cell in self._whole:
            return Found(self._whole[cell], "name", True)
        path = cell.strip().replace("\\", "/").removeprefix("./")
        if not path:
            return None
        found = self._at(path, self._whole, self._ends, "name", "path") or self._at(
            path, self._whole_ids, self._end_ids, "id", "id"
        )
        if found is None and PurePosixPath(path).suffix.lower() in self._extensions:
            found = self._at(str(PurePosixPath(path).with_suffix("")), self._whole_ids, self._end_ids, "id", "id")
        return found

    def _at(self, path: str, whole: dict[str, int], ends: dict[str, int], exact: str, part: str) -> Found | None:
        index = whole.get(path)
        if index is not None:
            return None if index == _SEVERAL else Found(index, exact, True)
        index = ends.get(path)
        if index is not None:
            return None if index == _SEVERAL else Found(index, part, True)
        rest = path
        while "/" in rest:
            rest = rest.partition("/")[2]
            index = whole.get(rest)
            if index is not None:
                return None if index == _SEVERAL else Found(index, part, self._is_above(path[: -len(rest) - 1]))
        return None

    def _is_above(self, folders: str) -> bool:
        """Are these the folders, or the last of the folders, that the images' folder is in, and that folder itself?"""
        parts = PurePosixPath(folders).parts
        return not parts or any(above[-len(parts) :] == parts for above in self._above)


def _ends(names: Sequence[str]) -> dict[str, int]:
    """The image of each end of a path that is not the whole path; -1 where several images share it."""
    ends: dict[str, int] = {}
    for i, name in enumerate(names):
        rest = name
        while "/" in rest:
            rest = rest.partition("/")[2]
            ends[rest] = _SEVERAL if rest in ends else i
    return ends
