"""Packs: images or ready-made model inputs in one HDF5 file, read row by row."""

import threading
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError, UnreadableImageError
from datasets.labels import Labels, labels_in_order, read_class_names

SUFFIXES = (".h5", ".hdf5")

# HDF5's cache of chunks, for rows drawn in random order.
_CACHE_BYTES = 16 * 2**20


class _Pack:
    """The parts that both kinds of pack share: the open file, its lock, names and labels."""

    def __init__(self, path: str | Path, classes: str | Path | Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self._classes = read_class_names(classes) if classes is not None else None
        self._file = open_hdf5(self.path)
        self._lock = threading.Lock()
        self._datasets: dict[str, h5py.Dataset] = {}
        self.names: tuple[str, ...] = ()
        self.labels: NDArray[np.int64] | None = None
        self.class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

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

    def _rows(self, index: int) -> dict[str, NDArray[np.generic]]:
        try:
            with self._lock:
                return {name: np.asarray(dataset[index]) for name, dataset in self._datasets.items()}
        except OSError as error:
            raise UnreadableImageError(self.names[index], f"damaged HDF5 data: {one_line(error)}") from error

    def _read_names_and_labels(self, count: int) -> None:
        """Read the small datasets beside the samples."""
        if not count:
            raise DatasetError(f"{self.path}: holds no samples; expected at least one row")
        names = self._texts("names")
        self.names = tuple(f"#{index}" for index in range(count)) if names is None else names
        if len(self.names) != count:
            raise DatasetError(f"{self.path}: 'names' has {len(self.names)} rows, the samples have {count}")
        if len(set(self.names)) != count:
            raise DatasetError(f"{self.path}: 'names' holds a name twice; expected a different one for every row")
        self.class_names = self._texts("class_names")
        if "labels" in self._file:
            self.labels = self._read_labels(count)
        if self._classes is not None and self.labels is not None:
            ordered = labels_in_order(self.path, Labels(self.labels, self.class_names), self._classes)
            self.labels, self.class_names = ordered.indices, ordered.class_names

    def _read_labels(self, count: int) -> NDArray[np.int64]:
        labels = self._dataset("labels")
        if labels.dtype.kind not in "iu" or labels.shape != (count,):
            found = f"{labels.dtype} {list(labels.shape)}"
            raise DatasetError(f"{self.path}: 'labels' must hold class indices, int64 [{count}]; found {found}")
        indices: NDArray[np.int64] = labels[()].astype(np.int64)
        highest = np.iinfo(np.int64).max if self.class_names is None else len(self.class_names) - 1
        wrong = np.flatnonzero((indices < 0) | (indices > highest))
        if len(wrong):
            raise DatasetError(
                f"{self.path}: 'labels' holds {indices[wrong[0]]} at row {wrong[0]}, which is not a class index"
            )
        return indices

    def _dataset(self, name: str) -> h5py.Dataset:
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise DatasetError(f"{self.path}: no dataset {name!r}; the file holds {listing_of(self._file)}")
        return found

    def _texts(self, name: str) -> tuple[str, ...] | None:
        """Texts from a dataset or, failing that, an attribute of the file."""
        stored = self._dataset(name)[()] if name in self._file else self._file.attrs.get(name)
        if stored is None:
            return None
        try:
            return tuple(
                item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else _text(item)
                for item in np.asarray(stored).ravel().tolist()
            )
        except TypeError as error:
            raise DatasetError(f"{self.path}: {name!r} must hold text; found {error}") from None


class ImagePack(_Pack):
    """Images in one HDF5 file: `images` uint8 [N, H, W, 3] RGB, and optionally `labels`, `names` and `class_names`.

    A row is read when it is asked for. Rows without a name are called `#0`, `#1`, ...

    Attributes:
        path: The file.
        names: One name per image.
        labels: Class index of every image, int64 [N], or None.
        class_names: Class names by index, or None.
    """

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
        try:
            self._datasets = {"images": self._image_dataset()}
            self._read_names_and_labels(len(self._datasets["images"]))
        except BaseException:
            self.close()
            raise

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3] RGB.

        Raises:
            UnreadableImageError: The file is damaged there.
        """
        return self._rows(index)["images"].astype(np.uint8, copy=False)

    def _image_dataset(self) -> h5py.Dataset:
        images = self._dataset("images")
        if not holds_images(images):
            raise DatasetError(
                f"{self.path}: 'images' must be uint8 [N, H, W, 3], found {images.dtype} {list(images.shape)}"
            )
        return images


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
        try:
            self._datasets = self._input_datasets()
            self._read_names_and_labels(len(self._datasets[self.inputs[0]]))
        except BaseException:
            self.close()
            raise

    def load(self, index: int) -> dict[str, NDArray[np.generic]]:
        """One sample: arrays without a batch axis, by input name.

        Raises:
            UnreadableImageError: The file is damaged there.
        """
        return self._rows(index)

    def _input_datasets(self) -> dict[str, h5py.Dataset]:
        missing = [name for name in self.inputs if not isinstance(self._file.get(name), h5py.Dataset)]
        if missing or not self.inputs:
            wanted = ", ".join(map(repr, missing)) or "the model's inputs"
            raise DatasetError(f"{self.path}: no dataset for {wanted}; the file holds {listing_of(self._file)}")
        datasets = {name: self._file[name] for name in self.inputs}
        lengths: dict[str, int] = {}
        for name, dataset in datasets.items():
            if dataset.dtype.kind not in "biuf" or dataset.ndim < 1:
                raise DatasetError(
                    f"{self.path}: {name!r} must hold numbers, [N, ...]; found {dataset.dtype} {list(dataset.shape)}"
                )
            lengths[name] = len(dataset)
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
            raise DatasetError(f"{self.path}: all inputs need the same number of rows; found {found}")
        return datasets


def open_hdf5(path: Path) -> h5py.File:
    """The opened file.

    Raises:
        DatasetError: The file does not exist, is not HDF5, or is damaged.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; expected an HDF5 pack")
    try:
        if not h5py.is_hdf5(path):
            raise DatasetError(f"{path}: not an HDF5 file; `calib pack` writes one from a folder of images")
        return h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)
    except OSError as error:
        raise DatasetError(f"{path}: damaged HDF5 file: {one_line(error)}") from error


def holds_images(dataset: object) -> bool:
    """Whether a dataset is uint8 [N, H, W, 3]."""
    if not isinstance(dataset, h5py.Dataset):
        return False
    return bool(dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3)


def listing_of(file: h5py.File) -> str:
    """Names, types and shapes of the datasets of a file, for messages."""
    found = [f"{name!r} {item.dtype} {list(item.shape)}" for name, item in file.items() if hasattr(item, "shape")]
    return ", ".join(found) or "no datasets"


def _text(item: object) -> str:
    if not isinstance(item, str):
        raise TypeError(f"{item!r}")
    return item


def one_line(error: BaseException) -> str:
    """An error's message without the line breaks that HDF5 puts into its own."""
    return " ".join(str(error).split())
