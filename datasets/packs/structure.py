"""What an HDF5 file must be to be read as a pack: its values in the file itself, all of them written, of bounded size.

HDF5 can name other files for its values (external links, virtual datasets, external storage), and a file of a few
kilobytes can declare any number of rows, because chunks that were never written take no space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from datasets.errors import DatasetError
from datasets.guards.regular_file import kind_of

MOST_ROWS = 2**22
MOST_ROW_BYTES = 2**29  # and of a chunk
_MOST_TEXTS = 2**22
_MOST_TEXT_BYTES = 2**28  # of all texts of one dataset together
_MOST_BYTES_OF_A_TEXT = 2**16
_TEXTS_AT_A_TIME = 2**16
_MOST_LINKS = 32  # that are followed to one dataset

# HDF5's cache of chunks, for rows drawn in random order.
_CACHE_BYTES = 16 * 2**20


def open_hdf5(path: Path) -> h5py.File:
    """The opened file.

    Raises:
        DatasetError: The file does not exist, is not HDF5, is damaged, or is being written by another process.
    """
    found = kind_of(path)
    if found != "a file":
        raise DatasetError(f"{path}: no such file; expected an HDF5 pack{f', found {found}' * (found != 'nothing')}")
    with damage_told(path):
        if not h5py.is_hdf5(path):
            raise DatasetError(f"{path}: not an HDF5 file; `calib pack` writes one from a folder of images")
        return h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what h5py raises within the block into an error that says what is wrong with the file.

    Raises:
        DatasetError: Something was raised.
    """
    try:
        yield
    except BlockingIOError as error:
        raise DatasetError(f"{path}: locked: another process has it open for writing; wait until it is done") from error
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        # Which of them h5py raises depends on where HDF5 meets the damage.
        raise DatasetError(f"{path}: damaged HDF5 file: {one_line(error)}") from error


def dataset_at(file: h5py.File, name: str, path: Path) -> h5py.Dataset | None:
    """The dataset of that name; None where there is none.

    Args:
        file: The opened file.
        name: Its name; slashes lead into groups.
        path: The file, for messages.

    Raises:
        DatasetError: It is a link to another file, takes its values from another file, or the links to it never end.
    """
    found = _object_at(file, name, f"{path}: {name!r}", [_MOST_LINKS])
    if not isinstance(found, h5py.Dataset):
        return None
    if found.is_virtual:
        raise DatasetError(f"{path}: {name!r} is a virtual dataset, whose values are in other files; copy them here")
    if found.external:
        other = found.external[0][0]
        raise DatasetError(f"{path}: {name!r} takes its values from another file, {other!r}; copy them into the pack")
    return found


def _object_at(group: object, name: str, what: str, links: list[int]) -> object:
    """What a name leads to, link by link; `links` counts down those that may still be followed."""
    for part in filter(None, name.split("/")):
        if part == ".":
            continue
        if not isinstance(group, h5py.Group):
            return None
        link = group.get(part, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise DatasetError(f"{what} is a link to another file, {link.filename!r}; copy the data into the pack")
        if isinstance(link, h5py.SoftLink):
            if not links[0]:
                raise DatasetError(f"{what} is a link that leads to no dataset, but to links without end")
            links[0] -= 1
            group = _object_at(group.file if link.path.startswith("/") else group, link.path, what, links)
        else:
            group = group[part]
    return group


def check_rows(dataset: h5py.Dataset, what: str, most_bytes: int = MOST_ROW_BYTES) -> None:
    """Check that all rows of a dataset of samples are there, and that none is too large.

    Args:
        dataset: Numbers, [N, ...].
        what: The file and the dataset, for the error.
        most_bytes: Of a row, and of a chunk.

    Raises:
        DatasetError: There are too many rows, they or the chunks they are stored in are too large, or some were never
            written.
    """
    rows, size = dataset.shape[0], dataset.dtype.itemsize
    if rows > MOST_ROWS:
        raise DatasetError(f"{what} declares {rows} rows, at most {MOST_ROWS} are read; split the pack")
    for part, shape in (("rows", dataset.shape[1:]), ("chunks", dataset.chunks or ())):
        found = math.prod(shape) * size
        if found > most_bytes:
            sizes = f"{found / 2**20:,.0f} MiB each, at most {most_bytes / 2**20:,.0f} are read"
            raise DatasetError(f"{what} has {part} of {sizes}")
    if dataset.chunks is None:
        missing = dataset.id.get_storage_size() < math.prod(dataset.shape) * size
    else:
        wanted = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        missing = dataset.id.get_num_chunks() < wanted
    if missing:
        raise DatasetError(f"{what} declares {rows} rows, but not all of them were ever written; write the pack again")


def texts_at(file: h5py.File, name: str, path: Path) -> tuple[str, ...] | None:
    """Texts from a dataset or, failing that, an attribute of the file; None where there is neither.

    Raises:
        DatasetError: It holds something else, or too much.
    """
    dataset = dataset_at(file, name, path)
    if dataset is not None:
        stored, shape = dataset, dataset.shape
        longest = dataset.dtype.itemsize
        if longest > _MOST_BYTES_OF_A_TEXT or math.prod(dataset.chunks or ()) * longest > MOST_ROW_BYTES:
            raise DatasetError(f"{path}: {name!r} must hold text; found {longest:,} bytes for each")
    elif name in file:
        raise DatasetError(f"{path}: {name!r} must hold text; found no dataset, but something else")
    elif name in file.attrs:
        stored, shape = None, file.attrs.get_id(name).shape
    else:
        return None
    if shape is None or math.prod(shape) > _MOST_TEXTS:
        found = "nothing" if shape is None else f"{math.prod(shape)} values"
        raise DatasetError(f"{path}: {name!r} must hold text, at most {_MOST_TEXTS} of them; found {found}")
    texts: list[str] = []
    left = _MOST_TEXT_BYTES
    for values in [file.attrs[name]] if stored is None else _slices(stored):
        for item in np.asarray(values).ravel().tolist():
            text = item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else item
            if not isinstance(text, str):
                raise DatasetError(f"{path}: {name!r} must hold text; found {text!r:.80}")
            left -= len(text)
            if left < 0:
                raise DatasetError(f"{path}: {name!r} holds more than {_MOST_TEXT_BYTES / 2**20:.0f} MiB of text")
            texts.append(text)
    return tuple(texts)


def _slices(dataset: h5py.Dataset) -> Iterator[object]:
    """A dataset's values, some rows at a time: those of fixed length take their length however short they are."""
    if not dataset.shape:
        yield dataset[()]
        return
    row = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
    rows = max(1, min(_TEXTS_AT_A_TIME, 2**24 // row))
    for first in range(0, dataset.shape[0], rows):
        yield dataset[first : first + rows]


def holds_images(dataset: object) -> bool:
    """Whether a dataset is uint8 [N, H, W, 3]."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        return False
    return bool(dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3)


def listing_of(file: h5py.File) -> str:
    """Names, types and shapes of the datasets of a file, for messages; links are not followed."""
    shown: list[str] = []
    for name in file:
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            item = file[name]
            if isinstance(item, h5py.Dataset):
                shown.append(shape_in_words(item, f"{name!r} "))
        if len(shown) > 8:
            return ", ".join([*shown[:8], "..."])
    return ", ".join(shown) or "no datasets"


def shape_in_words(dataset: h5py.Dataset, name: str = "") -> str:
    """Type and shape of a dataset, for messages."""
    return f"{name}{dataset.dtype} {'empty' if dataset.shape is None else list(dataset.shape)}"


def one_line(error: BaseException) -> str:
    """An error's message without the line breaks that HDF5 puts into its own."""
    return " ".join(str(error).split()) or type(error).__name__
