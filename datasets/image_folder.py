"""Images in a folder, either flat or with one sub-folder per class; labels come from the sub-folders or a CSV."""

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.decoding import FORMATS, decode_image
from datasets.errors import DatasetError, UnreadableImageError
from datasets.guards.regular_file import open_regular, pieces_of, size_of, whole_of
from datasets.labels import labels_from_csv, labels_from_folders, read_class_names

# Small files are decoded from memory, which is faster. Larger ones are not, so that a large TIFF is not read whole.
_READ_WHOLE_BYTES = 64 * 2**20
_MOST_BYTES = 2 * 2**30  # hashing reads all of a file, so no file may be larger than this


class ImageFolder:
    """The JPEG, PNG, BMP, WebP and TIFF images of a folder and its sub-folders, in name order.

    Hidden files and folders are skipped. Nothing is decoded before `read`, so damaged images are only found then.

    Attributes:
        path: The folder.
        names: POSIX paths relative to the folder, sorted as plain strings.
        labels: Class index of every image, int64 [N], or numbers that are no classes, float64 [N]; None for a flat
            folder without a CSV.
        class_names: Class names by index: the given `classes`, otherwise the names of the folders or in the CSV in
            alphabetical order; None if labels are bare indices or absent.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        labels: str | Path | None = None,
        classes: str | Path | Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        unlabelled: bool = False,
    ) -> None:
        """List the folder and determine the labels.

        Args:
            path: The folder.
            labels: A CSV with the columns `file` (relative to the folder) and `label` (class name, index or number); it
                replaces labels from sub-folders.
            classes: Class names in the order of the model's outputs, or a file with one name per line.
            names: The images to take, relative to the folder; None for all.
            unlabelled: Do sub-folders say nothing about what is in the images?

        Raises:
            DatasetError: The folder does not exist or holds no images, or the labels do not fit.
        """
        self.path = Path(path)
        self.names = image_names(self.path) if names is None else _known_formats(self.path, names)
        self.class_names = None if classes is None else read_class_names(classes)
        if unlabelled:
            found = None
        elif labels is None:
            found = labels_from_folders(self.path, self.names, self.class_names)
        else:
            found = labels_from_csv(Path(labels), self.path, self.names, self.class_names)
        self.labels: NDArray[Any] | None = None
        if found is not None:
            self.labels, self.class_names = found.indices, found.class_names
        self._prefix = os.path.join(self.path, "")  # noqa: PTH118 - a Path per image costs as much as a small decode
        self._formats = tuple(FORMATS[PurePath(name).suffix.lower()] for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        labelled = "unlabelled"
        if self.labels is not None:
            whole = self.labels.dtype.kind == "i"
            labelled = f"{len(set(self.labels.tolist()))} classes" if whole else "labelled with numbers"
        return f"{type(self).__name__}({str(self.path)!r}: {len(self)} images, {labelled})"

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3] RGB, turned upright by its EXIF orientation, without alpha.

        Raises:
            UnreadableImageError: The image cannot be read. The error holds its name and a plain reason.
        """
        name = self.names[index]
        with self._opened(index) as file:
            if size_of(file) <= _READ_WHOLE_BYTES:
                return decode_image(io.BytesIO(whole_of(file)), name, self._formats[index])
            return decode_image(io.BufferedReader(file), name, self._formats[index])

    def content(self, index: int) -> bytes:
        """The bytes of the image's file.

        Raises:
            UnreadableImageError: The file cannot be read.
        """
        return b"".join(self.pieces(index))

    def pieces(self, index: int) -> Iterator[bytes]:
        """The bytes of the image's file, in pieces.

        Raises:
            UnreadableImageError: The file cannot be read.
        """
        with self._opened(index) as file:
            yield from pieces_of(file)

    @contextmanager
    def _opened(self, index: int) -> Iterator[io.FileIO]:
        """An image's file.

        Raises:
            UnreadableImageError: It cannot be opened or read, or is no file, or too large.
        """
        name = self.names[index]
        try:
            with open_regular(self._prefix + name) as file:
                if size_of(file) > _MOST_BYTES:
                    reason = f"a file of {size_of(file) / 2**30:.1f} GiB; at most {_MOST_BYTES / 2**30:g} are read"
                    raise UnreadableImageError(name, reason)
                yield file
        except OSError as error:
            raise UnreadableImageError(name, _os_reason(error)) from error

    def fingerprint(self, index: int) -> str:
        """Size, times and inode of the image's file; they stay the same until the file is written to.

        Raises:
            UnreadableImageError: The file is gone.
        """
        try:
            status = os.stat(self._prefix + self.names[index])  # noqa: PTH116
        except OSError as error:
            raise UnreadableImageError(self.names[index], _os_reason(error)) from error
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


def _known_formats(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    wrong = [name for name in names if PurePath(name).suffix.lower() not in FORMATS]
    if wrong or not names:
        found = f"'{wrong[0]}'" if wrong else "no names"
        raise DatasetError(f"{folder}: expected names of images ending in {' '.join(FORMATS)}, found {found}")
    return tuple(names)


def _os_reason(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def image_names(folder: Path) -> tuple[str, ...]:
    """The images of a folder and its sub-folders, in name order, as POSIX paths relative to it.

    Raises:
        DatasetError: It does not exist or holds no images.
    """
    if not folder.exists():
        raise DatasetError(f"{folder}: no such folder; expected a folder of images")
    if not folder.is_dir():
        raise DatasetError(f"{folder}: not a folder; expected a folder of images")
    names: list[str] = []
    others: Counter[str] = Counter()
    _collect(folder, "", (_folder_id(os.stat(folder)),), names, others)  # noqa: PTH116
    if not names:
        common = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:5]
        found = ", ".join(f"{count} {suffix}" for suffix, count in common) or "no files at all"
        raise DatasetError(f"{folder}: no images in it; expected files ending in {' '.join(FORMATS)}; found {found}")
    return tuple(sorted(names))


def _collect(
    folder: str | Path, prefix: str, ancestors: tuple[tuple[int, int], ...], names: list[str], others: Counter[str]
) -> None:
    """Add the images below `folder` to `names`, and count the extensions of the other files."""
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
                _collect(entry.path, f"{prefix}{entry.name}/", (*ancestors, here), names, others)
            continue
        suffix = PurePath(entry.name).suffix.lower()
        # A dangling link named like an image is kept, so that it is reported as unreadable instead of being ignored.
        if suffix in FORMATS and (entry.is_symlink() or entry.is_file()):
            names.append(prefix + entry.name)
        else:
            others[suffix or "without an extension"] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _folder_id(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
