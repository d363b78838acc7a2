"""Arrays in NumPy's files, .npy and .npz: their forms out of the headers, and rows of them. Nothing is unpickled."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.guards.regular_file import open_regular, size_of

NPY_SUFFIXES = frozenset({".npy", ".npz"})
_MOST_BYTES = 2**29  # of an array that must be read whole, and of a row
_MOST_ARRAYS = 64  # in an .npz file
_MOST_UNPACKED = 2**31  # bytes of all of them
_DAMAGE = (  # what NumPy and zipfile raise, depending on where they meet it
    ValueError, EOFError, KeyError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """The form of an array in a file.

    Attributes:
        shape: Its shape.
        dtype: Its type.
        fortran: Is its first axis the fastest?
        start: Bytes before the first value.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def stored_arrays(path: Path) -> dict[str, Stored]:
    """The arrays of a file by name; that of an .npy file has the name ''.

    Raises:
        DatasetError: It cannot be opened, or is not such a file, or holds objects.
    """
    with _damage_told(path), open_regular(path) as file:
        if path.suffix.lower() == ".npy":
            found = _header(file)
            if found.start + found.bytes > size_of(file):
                raise ValueError("it is shorter than its header says")
            return {"": found}
        with zipfile.ZipFile(io.BufferedReader(file)) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")][:_MOST_ARRAYS]
            arrays = {}
            for name in members:
                with archive.open(name) as member:
                    arrays[name.removesuffix(".npy")] = _header(member)
        if not arrays:
            raise ValueError("it holds no array")
        together = sum(each.bytes for each in arrays.values())
        if together > _MOST_UNPACKED:
            raise ValueError(
                f"its arrays take {together / 2**30:,.1f} GiB, at most {_MOST_UNPACKED >> 30} are unpacked"
            )
        return arrays


def read_array(path: Path, name: str = "", row: int | None = None) -> NDArray[Any]:
    """An array of a file, or one row of it.

    Args:
        path: The file.
        name: The array's name; '' for that of an .npy file.
        row: Which row of the first axis; None for all of it.

    Raises:
        DatasetError: It cannot be read, or is too large.
    """
    with _damage_told(path), open_regular(path) as file:
        if path.suffix.lower() == ".npy":
            return _read(file, _header(file), row)
        with zipfile.ZipFile(io.BufferedReader(file)) as archive, archive.open(f"{name}.npy") as member:
            whole = _read(member, _header(member), None)
            return whole if row is None else np.array(whole[row])


def _header(file: IO[bytes] | io.FileIO) -> Stored:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, not numbers")
    return Stored(tuple(int(side) for side in shape), dtype, bool(fortran), file.tell())


def _read(file: IO[bytes] | io.FileIO, stored: Stored, row: int | None) -> NDArray[Any]:
    by_row = row is not None and not stored.fortran and bool(stored.shape)
    wanted = stored.bytes // max(stored.shape[0], 1) if by_row else stored.bytes
    if wanted > _MOST_BYTES:
        raise ValueError(f"{wanted / 2**20:,.0f} MiB must be read at a time, at most {_MOST_BYTES >> 20} are")
    if by_row and row:
        file.seek(stored.start + row * wanted)
    data = _bytes(file, wanted)
    values = np.frombuffer(data, stored.dtype)
    if by_row:
        one: NDArray[Any] = values.reshape(stored.shape[1:]).copy()
        return one
    whole = values.reshape(stored.shape[::-1]).T if stored.fortran else values.reshape(stored.shape)
    chosen: NDArray[Any] = np.ascontiguousarray(whole if row is None else whole[row])
    return chosen


def _bytes(file: IO[bytes] | io.FileIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = file.read(size - len(data))
        if not piece:
            raise ValueError("it is shorter than its header says")
        data += piece
    return bytes(data)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except _DAMAGE as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{path}: cannot be read as an array of NumPy's: {message:.200}") from error
