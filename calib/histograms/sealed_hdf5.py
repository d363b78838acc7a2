"""HDF5 files that begin with the SHA-256 of the rest, and arrays in them that are just what is expected.

HDF5 itself may loop for ever, or end the process, over a damaged file. So it is opened only when its contents are those
that were written. What is read is checked too, because a file can be made up: links that lead to other files, data
that was never written and fills all memory, other shapes and types.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.errors import CalibrationError
from calib.regular_files import open_regular

BLOCK = 512  # bytes before HDF5's own: the smallest user block that HDF5 allows


def sealed(contents: bytes, form: str) -> bytes:
    """The contents of an HDF5 file with an empty user block of `BLOCK` bytes, with its format and hash filled in."""
    return _head(form, hashlib.sha256(memoryview(contents)[BLOCK:]).hexdigest()) + contents[BLOCK:]


def _head(form: str, digest: str) -> bytes:
    return f"{form} sha256 {digest}\n".encode().ljust(BLOCK, b"\0")


@contextlib.contextmanager
def open_sealed(path: Path, form: str) -> Iterator[Any]:
    """Open a sealed file for reading.

    Raises:
        CalibrationError: It has another format, or its contents are not those that were written.
        OSError: It cannot be read.
    """
    import h5py

    with open_regular(path) as stream:
        head, digest = stream.read(BLOCK), hashlib.sha256()
        if not head.startswith(f"{form} ".encode()):
            raise CalibrationError(f"expected '{form}', found {head[:20]!r}")
        while block := stream.read(1 << 20):
            digest.update(block)
        if head != _head(form, digest.hexdigest()):
            raise CalibrationError("its contents are not those that were written; it is damaged or was edited")
        stream.seek(0)
        with h5py.File(stream, "r") as file:
            yield file


def array_from(file: Any, name: str, shape: tuple[int | None, ...], kind: str) -> NDArray[Any]:  # noqa: ANN401
    """An array that is stored in the file itself, whole, with this shape and type.

    Args:
        file: The open file.
        name: Of the data set.
        shape: Expected sizes; None for any.
        kind: Expected type, such as "int64"; "S" for byte strings of one length.

    Raises:
        CalibrationError: It is missing or something else.
    """
    return np.asarray(dataset_from(file, name, shape, kind)[()])


def dataset_from(file: Any, name: str, shape: tuple[int | None, ...], kind: str) -> Any:  # noqa: ANN401 - h5py's
    """The same without reading it."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise CalibrationError(f"expected '{name}' in the file itself, found nothing or a link")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.shape is None:
        raise CalibrationError(f"'{name}': expected an array, found something else")
    fits = len(data.shape) == len(shape) and all(b in (None, a) for a, b in zip(data.shape, shape, strict=True))
    right = data.dtype.kind == "S" if kind == "S" else data.dtype == np.dtype(kind)
    if not (fits and right):
        raise CalibrationError(f"'{name}': expected {kind} of shape {shape}, found {data.dtype} of shape {data.shape}")
    if data.is_virtual or data.external or not _is_written(data):
        raise CalibrationError(f"'{name}': expected all values in the file itself, found other storage")
    return data


def _is_written(data: Any) -> bool:  # noqa: ANN401 - h5py's
    """Whether every value is stored: what was never written costs nothing on disk, and all of it in memory."""
    if not data.size:
        return True
    if data.chunks is None:
        return bool(data.id.get_storage_size() >= data.size * data.dtype.itemsize)
    chunks = np.prod([-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True)], dtype=np.int64)
    return bool(data.id.get_num_chunks() == chunks)
