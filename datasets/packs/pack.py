"""Packs: images or ready-made model inputs in one HDF5 file, read row by row."""

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError, UnreadableImageError
from datasets.guards.decoding_space import SPACE, bomb, most_pixels
from datasets.labels import Labels, labels_in_order, read_classes
from datasets.packs.fitting import fitting_from_attribute
from datasets.packs.structure import (
    MOST_ROW_BYTES,
    check_rows,
    damage_told,
    dataset_at,
    holds_images,
    listing_of,
    one_line,
    open_hdf5,
    shape_in_words,
    texts_at,
)
from datasets.packs.trial import check_that_reading_ends

SUFFIXES = (".h5", ".hdf5")


class _Pack(ABC):
    """The parts that both kinds of pack share: the open file, its lock, names and labels."""

    def __init__(self, path: str | Path, classes: str | Path | Sequence[str] | None = None) -> None:
        self.path, self._given_classes = Path(path), classes
        self._classes = read_classes(classes) if classes is not None else None
        check_that_reading_ends(self.path)
        self._file = open_hdf5(self.path)
        self._lock = threading.Lock()
        self._datasets: dict[str, h5py.Dataset] = {}
        self.names: tuple[str, ...] = ()
        self.labels: NDArray[np.int64] | None = None
        self.class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[Any, ...]:  # another process opens the file again
        return functools.partial(type(self), classes=self._given_classes), (self.path, *self._also())

    def _also(self) -> tuple[Any, ...]:
        """What it is made from beside the file and the classes."""
        return ()

    def __enter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        with self._lock:
            self._file.close()

    def content(self, index: int) -> bytes:
        """The bytes of a row; those of several inputs follow one another."""
        return b"".join(np.ascontiguousarray(row).tobytes() for row in self._rows(index).values())

    def fingerprint(self, index: int) -> str:
        """Size, times and inode of the file, and the row."""
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}:{index}"

    def _open(self) -> None:
        """Find the samples and what is beside them; the file is closed if they are not as they should be."""
        try:
            with damage_told(self.path):
                self._datasets = self._find_datasets()
                for name, dataset in self._datasets.items():
                    check_rows(dataset, f"{self.path}: {name!r}", self._most_row_bytes())
                self._read_names_and_labels(len(next(iter(self._datasets.values()))))
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _find_datasets(self) -> dict[str, h5py.Dataset]:
        """The samples' datasets by name."""

    def _most_row_bytes(self) -> int:
        return MOST_ROW_BYTES

    def _rows(self, index: int) -> dict[str, NDArray[np.generic]]:
        try:
            with self._lock:
                return {name: np.asarray(dataset[index]) for name, dataset in self._datasets.items()}
        except (OSError, RuntimeError, ValueError) as error:  # h5py's, depending on where HDF5 meets the damage
            raise UnreadableImageError(self.names[index], f"damaged HDF5 data: {one_line(error)}") from error

    def _read_names_and_labels(self, count: int) -> None:
        """Read the small datasets beside the samples."""
        if not count:
            raise DatasetError(f"{self.path}: holds no samples; expected at least one row")
        names = texts_at(self._file, "names", self.path)
        self.names = tuple(f"#{index}" for index in range(count)) if names is None else names
        if len(self.names) != count:
            raise DatasetError(f"{self.path}: 'names' has {len(self.names)} rows, the samples have {count}")
        if names is not None and len(set(names)) != count:
            raise DatasetError(f"{self.path}: 'names' holds a name twice; expected a different one for every row")
        self.class_names = texts_at(self._file, "class_names", self.path)
        labels = dataset_at(self._file, "labels", self.path)
        if labels is not None:
            self.labels = self._read_labels(labels, count)
        elif "labels" in self._file:
            raise DatasetError(f"{self.path}: 'labels' must hold class indices; found no dataset, but something else")
        if self._classes is not None and self.labels is not None:
            ordered = labels_in_order(self.path, Labels(self.labels, self.class_names), self._classes)
            self.labels, self.class_names = ordered.indices, ordered.class_names

    def _read_labels(self, labels: h5py.Dataset, count: int) -> NDArray[np.int64]:
        if labels.dtype.kind not in "iu" or labels.shape != (count,):
            raise DatasetError(
                f"{self.path}: 'labels' must hold class indices, int64 [{count}]; found {shape_in_words(labels)}"
            )
        indices: NDArray[np.int64] = labels[()].astype(np.int64)
        highest = np.iinfo(np.int64).max if self.class_names is None else len(self.class_names) - 1
        wrong = np.flatnonzero((indices < 0) | (indices > highest))
        if len(wrong):
            raise DatasetError(
                f"{self.path}: 'labels' holds {indices[wrong[0]]} at row {wrong[0]}, which is not a class index"
            )
        return indices


class ImagePack(_Pack):
    """Images in one HDF5 file: `images` uint8 [N, H, W, 3] RGB, and optionally `labels`, `names` and `class_names`.

    A row is read when it is asked for. Rows without a name are called `#0`, `#1`, ...

    Attributes:
        path: The file.
        names: One name per image.
        labels: Class index of every image, int64 [N], or None.
        class_names: Class names by index, or None.
        fitted: How the images were fitted to one size when they were packed, see `datasets.packs.fitting`; None where
            they were not, or where that is not known.
        size: Height and width of the images.
    """

    fitted: Mapping[str, object] | None
    size: tuple[int, int]

    def __init__(self, path: str | Path, *, classes: str | Path | Sequence[str] | None = None) -> None:
        """Open the file.

        Args:
            path: The file.
            classes: The class names in the desired order, or a file with one per line; by default the pack's order.

        Raises:
            DatasetError: The file does not exist, is not HDF5, has no dataset `images`, has a dataset of the wrong type
                or shape, or has a label that is not among the classes.
        """
        super().__init__(path, classes)
        self._open()

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3] RGB.

        Raises:
            UnreadableImageError: The file is damaged there.
        """
        height, width = self._datasets["images"].shape[1:3]
        with SPACE.turn():
            SPACE.take(height * width)
            return self._rows(index)["images"].astype(np.uint8, copy=False)

    def _find_datasets(self) -> dict[str, h5py.Dataset]:
        images = dataset_at(self._file, "images", self.path)
        if images is None:
            raise DatasetError(f"{self.path}: no dataset 'images'; the file holds {listing_of(self._file)}")
        if not holds_images(images):
            raise DatasetError(f"{self.path}: 'images' must be uint8 [N, H, W, 3], found {shape_in_words(images)}")
        height, width = images.shape[1:3]
        if not height * width:
            raise DatasetError(f"{self.path}: 'images' holds images without pixels, {shape_in_words(images)}")
        reason = bomb(width, height)
        if reason:
            raise DatasetError(f"{self.path}: 'images': {reason}")
        self.fitted, self.size = fitting_from_attribute(images), (height, width)
        return {"images": images}

    def _most_row_bytes(self) -> int:
        return max(MOST_ROW_BYTES, 3 * (most_pixels() or 0))


class TensorPack(_Pack):
    """Ready-made model inputs in one HDF5 file: a dataset [N, ...] per input, and optionally `labels` and `names`.

    Attributes:
        path: The file.
        inputs: Names of the model inputs.
        names: One name per sample.
        labels: Class index of every sample, int64 [N], or None.
        class_names: Class names by index, or None.
    """

    def __init__(
        self, path: str | Path, inputs: Sequence[str], *, classes: str | Path | Sequence[str] | None = None
    ) -> None:
        """Open the file.

        Args:
            path: The file.
            inputs: Names of the model inputs.
            classes: The class names in the desired order, or a file with one per line; by default the pack's order.

        Raises:
            DatasetError: The file does not exist or is not HDF5, an input has no dataset, a dataset does not hold
                numbers, the datasets differ in length, or a label is not among the classes.
        """
        super().__init__(path, classes)
        self.inputs = tuple(inputs)
        self._open()

    def _also(self) -> tuple[Any, ...]:
        return (self.inputs,)

    def load(self, index: int) -> dict[str, NDArray[np.generic]]:
        """One sample: arrays without a batch axis, by input name.

        Raises:
            UnreadableImageError: The file is damaged there.
        """
        return self._rows(index)

    def _find_datasets(self) -> dict[str, h5py.Dataset]:
        found = {name: dataset_at(self._file, name, self.path) for name in self.inputs}
        datasets = {name: dataset for name, dataset in found.items() if dataset is not None}
        missing = [name for name in self.inputs if name not in datasets]
        if missing or not self.inputs:
            wanted = ", ".join(map(repr, missing)) or "the model's inputs"
            raise DatasetError(f"{self.path}: no dataset for {wanted}; the file holds {listing_of(self._file)}")
        lengths: dict[str, int] = {}
        for name, dataset in datasets.items():
            if dataset.dtype.kind not in "biuf" or not dataset.shape:
                raise DatasetError(
                    f"{self.path}: {name!r} must hold numbers, [N, ...]; found {shape_in_words(dataset)}"
                )
            lengths[name] = len(dataset)
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
            raise DatasetError(f"{self.path}: all inputs need the same number of rows; found {told}")
        return datasets
