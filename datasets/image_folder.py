"""Images in a folder, either flat or with one sub-folder per class; labels come from the sub-folders or a table."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datasets.decoding import FORMATS, Wanted, decode_image, decode_pixels, lacks_range
from datasets.errors import DatasetError, UnreadableImageError
from datasets.folder_contents import folder_contents
from datasets.guards.regular_file import open_regular, pieces_of, size_of, whole_file
from datasets.images.listing import (
    VIDEOS,
    Listing,
    frames_advice,
    in_words,
    listing_from_folder,
    refuse_video,
    suffix_of,
)

# Small files are decoded from memory, which is faster. Larger ones are not, so that a large TIFF is not read whole.
_READ_WHOLE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20  # of a file that is hashed; a smaller one is one piece
_MOST_BYTES = 2 * 2**30  # hashing reads all of a file, so no file may be larger than this
IMAGE_EXTENSIONS = frozenset(FORMATS)
_OF_MANY_BITS = ("PNG", "TIFF")


class ImageFolder:
    """The JPEG, PNG, BMP, WebP, TIFF and AVIF images of a folder and its sub-folders, in name order.

    Hidden files and folders are skipped. Nothing is decoded before `read`, so damaged images are only found then.

    Attributes:
        path: The folder.
        names: POSIX paths relative to the folder, sorted as plain strings.
        labels: Class index of every image, int64 [N], -1 for none; or numbers that are no classes, float64 [N], NaN for
            none; None for a flat folder without a table of labels.
        class_names: Class names by index: the given `classes`, otherwise the names of the folders or in the table in
            alphabetical order; None if labels are bare indices or absent.
        notes: What is read and what is not, and how the labels were read, in lines for people.
        warnings: What a user should know of them, in lines.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        labels: str | Path | None = None,
        classes: str | Path | Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        unlabelled: bool = False,
        split: str | None = None,
    ) -> None:
        """List the folder and determine the labels.

        Args:
            path: The folder.
            labels: A table of images and labels (class name, index or number), see `datasets.labels.label_file`; it
                replaces labels from sub-folders.
            classes: Class names in the order of the model's outputs, or a file with one name per line.
            names: The images to take, relative to the folder; None for all.
            unlabelled: Do sub-folders say nothing about what is in the images?
            split: Of a folder with train/ and val/ above all else, the images of which: train, val or test. None for
                all of them.

        Raises:
            DatasetError: The folder does not exist or holds no images, or the labels do not fit.
        """
        self.path = Path(path)
        listing = listed(self.path) if names is None else Listing(_known_formats(self.path, names), None)
        found = folder_contents(
            self.path,
            listing.names,
            IMAGE_EXTENSIONS,
            others=listing.others,
            labels=labels,
            classes=classes,
            unlabelled=unlabelled,
            split=split,
        )
        self.names, self.labels, self.class_names = found.names, found.labels, found.class_names
        self.notes, self.warnings = found.notes, found.warnings
        self._prefix = os.path.join(self.path, "")  # noqa: PTH118 - a Path per image costs as much as a small decode
        self._formats = tuple(FORMATS[suffix_of(name)] for name in self.names)

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
        with self._stream(index) as stream:
            return decode_image(stream, name, self._formats[index])

    def read_pixels(self, index: int, wanted: Wanted) -> NDArray[Any]:
        """The image with all its bits, and alpha if that is wanted, see `datasets.decoding.decode_pixels`.

        Raises:
            UnreadableImageError: The image cannot be read. The error holds its name and a plain reason.
        """
        with self._stream(index) as stream:
            return decode_pixels(stream, self.names[index], self._formats[index], wanted)

    def lacks_range(self, index: int) -> bool:
        """Does the image have more than 8 bits, and does its header not say which numbers they may hold?"""
        if self._formats[index] not in _OF_MANY_BITS:
            return False
        try:
            with self._stream(index) as stream:
                return lacks_range(stream, self._formats[index])
        except UnreadableImageError:
            return False

    def _stream(self, index: int) -> AbstractContextManager[BinaryIO]:
        """An image's file at its start; small ones in memory.

        Raises:
            UnreadableImageError: It cannot be opened or read, or is no file, or too large.
        """
        contents = self._whole(index, _READ_WHOLE_BYTES)
        return io.BytesIO(contents) if contents is not None else self._large(index)

    def _whole(self, index: int, most: int) -> bytes | None:
        """The bytes of an image's file; None if they are more than `most`.

        Raises:
            UnreadableImageError: It cannot be opened or read, or is no file.
        """
        try:
            return whole_file(self._prefix + self.names[index], most)
        except OSError as error:
            raise UnreadableImageError(self.names[index], _os_reason(error)) from error

    @contextmanager
    def _large(self, index: int) -> Iterator[BinaryIO]:
        with self._opened(index) as file:
            yield io.BufferedReader(file)

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
        contents = self._whole(index, _PIECE_BYTES)
        if contents is not None:
            yield contents
            return
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
    wrong = [name for name in names if suffix_of(name) not in FORMATS]
    for name in wrong:
        refuse_video(folder / name)
    if wrong or not names:
        found = f"'{wrong[0]}'" if wrong else "no names"
        raise DatasetError(f"{folder}: expected names of images ending in {' '.join(FORMATS)}, found {found}")
    return tuple(names)


def _os_reason(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def listed(folder: Path) -> Listing:
    """The images of a folder and its sub-folders, in name order, and what else is there.

    Raises:
        DatasetError: It does not exist or holds no images.
    """
    listing = listing_from_folder(folder, IMAGE_EXTENSIONS)
    if not listing.names:
        found = in_words(listing.others or {}) or "no files at all"
        videos = [extension for extension in listing.others or {} if extension in VIDEOS]
        advice = f"; {frames_advice(f'clip{videos[0]}')}" if videos else ""
        raise DatasetError(
            f"{folder}: no images in it; expected files ending in {' '.join(FORMATS)}; found {found}{advice}"
        )
    return listing


def image_names(folder: Path) -> tuple[str, ...]:
    """The images of a folder and its sub-folders, in name order, as POSIX paths relative to it.

    Raises:
        DatasetError: It does not exist or holds no images.
    """
    return listed(folder).names
