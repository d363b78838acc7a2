"""Folders of NumPy's files: images, or samples of a model's inputs, one or several in a file."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.arrays.forms import ModelInput, as_image, fit_of, in_words, is_image
from datasets.arrays.npy_files import NPY_SUFFIXES, Stored, read_array, stored_arrays
from datasets.decoding import Wanted
from datasets.errors import DatasetError, UnreadableImageError
from datasets.folder_contents import FolderContents, folder_contents
from datasets.images.listing import listing_from_folder
from datasets.preprocessing.values import brought_to_8_bits, with_channels

_STATE_RANGE = "state their range as pixel_range = [lowest, highest] in the TOML file of --preprocess"


@dataclass(frozen=True)
class _Place:
    """Where a sample is: its file, and the row there if the file holds several."""

    file: str
    row: int | None


class _ArrayFolder:
    """The files, the samples in them, and labels."""

    def __init__(self, path: Path, contents: FolderContents, rows: Sequence[int]) -> None:
        self.path = path
        self._places = [
            _Place(file, row if count > 1 else None)
            for file, count in zip(contents.names, rows, strict=True)
            for row in range(count)
        ]
        self.names = tuple(place.file if place.row is None else f"{place.file}#{place.row}" for place in self._places)
        self.labels: NDArray[Any] | None = None if contents.labels is None else np.repeat(contents.labels, rows)
        self.class_names = contents.class_names
        self.notes, self.warnings = contents.notes, contents.warnings
        self._folder = path if path.is_dir() else path.parent
        self._lock = threading.Lock()
        self._latest: tuple[str, dict[str, NDArray[Any]]] = ("", {})  # an .npz file is unpacked whole

    def __len__(self) -> int:
        return len(self.names)

    def content(self, index: int) -> bytes:
        """The bytes of a sample's arrays, one after another."""
        return b"".join(np.ascontiguousarray(array).tobytes() for array in self._arrays(index).values())

    def fingerprint(self, index: int) -> str:
        """Size, times and inode of the sample's file, and its row.

        Raises:
            UnreadableImageError: The file is gone.
        """
        place = self._places[index]
        try:
            status = os.stat(self._folder / place.file)  # noqa: PTH116
        except OSError as error:
            raise UnreadableImageError(self.names[index], f"cannot be read: {error.strerror}") from error
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}:{place.row}"

    def _arrays(self, index: int) -> dict[str, NDArray[Any]]:
        """A sample's arrays by their names in the file.

        Raises:
            UnreadableImageError: They cannot be read.
        """
        place = self._places[index]
        path = self._folder / place.file
        try:
            if path.suffix.lower() == ".npy":
                return {"": read_array(path, row=place.row)}
            with self._lock:
                if self._latest[0] != place.file:
                    self._latest = place.file, {name: read_array(path, name) for name in stored_arrays(path)}
                arrays = self._latest[1]
            return arrays if place.row is None else {name: array[place.row] for name, array in arrays.items()}
        except DatasetError as error:
            raise UnreadableImageError(self.names[index], str(error)) from error


class ArrayInputs(_ArrayFolder):
    """Samples of a model's inputs in NumPy's files.

    Attributes:
        inputs: Names of the inputs.
    """

    def __init__(
        self,
        path: Path,
        contents: FolderContents,
        stored: Sequence[Mapping[str, Stored]],
        names: Mapping[str, str],
        inputs: Sequence[ModelInput],
    ) -> None:
        """Find the samples.

        Args:
            path: The file or folder.
            contents: The files and their labels.
            stored: The arrays of each file.
            names: The array's name of each input.
            inputs: The inputs.

        Raises:
            DatasetError: A file does not hold them.
        """
        rows = []
        for file, arrays in zip(contents.names, stored, strict=True):
            counts = {_rows_of(path, file, arrays, names[each.name], each) for each in inputs}
            if len(counts) > 1:
                raise DatasetError(f"{path}: {file}: all inputs need the same number of rows, found {sorted(counts)}")
            rows.append(counts.pop())
        super().__init__(path, contents, rows)
        self.inputs = tuple(each.name for each in inputs)
        self._names, self._forms = names, {each.name: each for each in inputs}
        self.notes += (f"{path}: the arrays are the model's inputs, {in_words(inputs)}",)

    def load(self, index: int) -> dict[str, NDArray[np.generic]]:
        """One sample: arrays without a batch axis, by input name.

        Raises:
            UnreadableImageError: It cannot be read.
        """
        arrays = self._arrays(index)
        samples = {}
        for name, info in self._forms.items():
            array = arrays[self._names[name]]
            one = array[0] if fit_of(array.shape, array.dtype, info) == "batch" else array
            samples[name] = one.astype(info.dtype, copy=False)
        return samples


class ArrayImages(_ArrayFolder):
    """Images in NumPy's files, [H, W] or [H, W, C] of bytes or other numbers, one or several in a file."""

    def __init__(self, path: Path, contents: FolderContents, stored: Sequence[Mapping[str, Stored]]) -> None:
        """Find the images; a file with a stack of them, [N, H, W, C], holds several."""
        forms = [next(iter(arrays.values())) for arrays in stored]
        super().__init__(path, contents, [form.shape[0] if _is_stack(form) else 1 for form in forms])

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3] RGB; 16 bits are scaled to 8, and other numbers from their lowest to highest.

        Raises:
            UnreadableImageError: It cannot be read.
        """
        pixels = self.read_pixels(index, Wanted(any_range=True))
        limits = None if pixels.dtype in (np.uint8, np.uint16) else (float(pixels.min()), float(pixels.max()))
        if limits is not None and limits[0] == limits[1]:
            limits = limits[0], limits[0] + 1
        shown: NDArray[np.uint8] = np.rint(with_channels(brought_to_8_bits(pixels, limits), "rgb")).astype(np.uint8)
        return shown

    def read_pixels(self, index: int, wanted: Wanted) -> NDArray[Any]:
        """The image as it is stored, [H, W, C].

        Raises:
            UnreadableImageError: It cannot be read, or has numbers whose range is not stated.
        """
        array = next(iter(self._arrays(index).values()))
        array = array[0] if array.ndim == 4 else array
        if array.dtype not in (np.uint8, np.uint16) and not wanted.any_range:
            reason = f"numbers of {array.dtype} have no defined range; {_STATE_RANGE}"
            raise UnreadableImageError(self.names[index], reason)
        return as_image(array)

    def lacks_range(self, index: int) -> bool:
        """Does the file hold other numbers than bytes?"""
        try:
            arrays = stored_arrays(self._folder / self._places[index].file)
            return any(array.dtype != np.uint8 for array in arrays.values())
        except DatasetError:
            return False


def open_arrays(
    path: Path,
    inputs: Sequence[ModelInput],
    *,
    labels: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    unlabelled: bool = False,
    split: str | None = None,
) -> ArrayInputs | ArrayImages:
    """Open an .npy or .npz file, or a folder of them, as a model's inputs or as images.

    Arrays whose shape and kind of number are those of the inputs are taken as they are. Whole numbers for an input of
    floats are pixels of images, and so are floats of another shape; both still need preprocessing.

    Args:
        path: The file or folder.
        inputs: The model's inputs that data must provide; none if there is no model, and then arrays are images.
        labels: A table of files and labels.
        classes: Class names in the desired order, or a file with one a line.
        unlabelled: Do sub-folders say nothing about what is in the files?
        split: Of a folder with train/ and val/, the files of which.

    Raises:
        DatasetError: There are no such files, or they hold neither.
    """
    folder = path if path.is_dir() else path.parent
    listing = listing_from_folder(path, NPY_SUFFIXES) if path.is_dir() else None
    contents = folder_contents(
        folder,
        listing.names if listing is not None else (path.name,),
        NPY_SUFFIXES,
        others=listing.others if listing is not None else None,
        labels=labels,
        classes=classes,
        unlabelled=unlabelled,
        split=split,
    )
    stored = [stored_arrays(folder / name) for name in contents.names]
    names = _names_of(stored[0], inputs)
    if names is not None:
        return ArrayInputs(path, contents, stored, names, inputs)
    first = next(iter(stored[0].values()))
    if len(stored[0]) == 1 and len(inputs) <= 1 and (is_image(first.shape, first.dtype) or _is_stack(first)):
        return ArrayImages(path, contents, stored)
    found = ", ".join(f"{name or 'an array'} {list(each.shape)} {each.dtype}" for name, each in stored[0].items())
    expected = in_words(inputs) if inputs else "images [H, W, C]"
    raise DatasetError(f"{folder / contents.names[0]}: expected {expected}, or images [H, W, C], found {found:.200}")


def _names_of(stored: Mapping[str, Stored], inputs: Sequence[ModelInput]) -> dict[str, str] | None:
    """Which array of a file is which input; None where they are not the model's inputs."""
    if not inputs:
        return None
    if all(each.name in stored for each in inputs):
        names = {each.name: each.name for each in inputs}
    elif len(stored) == 1 == len(inputs):
        names = {inputs[0].name: next(iter(stored))}
    else:
        return None
    fits = (fit_of(stored[names[each.name]].shape, stored[names[each.name]].dtype, each) for each in inputs)
    return names if all(fits) else None


def _rows_of(path: Path, file: str, arrays: Mapping[str, Stored], name: str, info: ModelInput) -> int:
    found = arrays.get(name)
    fit = None if found is None else fit_of(found.shape, found.dtype, info)
    if found is None or fit is None:
        shown = "none" if found is None else f"{list(found.shape)} {found.dtype}"
        raise DatasetError(f"{path}: {file}: expected {in_words([info])} as the other files have, found {shown}")
    return found.shape[0] if fit == "batch" else 1


def _is_stack(stored: Stored) -> bool:
    """Are these several images, [N, H, W, C] or [N, C, H, W]?"""
    return len(stored.shape) == 4 and stored.shape[0] > 0 and is_image(stored.shape[1:], stored.dtype)
