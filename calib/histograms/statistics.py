"""Statistics of all activations of a model: one mergeable histogram per tensor, stored as HDF5."""

from __future__ import annotations

import io
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from calib.entropy import SEARCH_BINS
from calib.errors import CalibrationError, NonFiniteError
from calib.files import Transaction
from calib.histograms.first_batch import FirstBatchHistogram
from calib.histograms.histogram import Histogram
from calib.histograms.packing import gathered
from calib.histograms.sealed_hdf5 import BLOCK, array_from, dataset_from, open_sealed, sealed
from calib.histograms.tables import BINS

FORMAT = "calib-statistics-3"
_MOST_TENSORS = 1 << 16  # those of many tensors are packed as they are read
_MOST_IMAGES = 1 << 53


@dataclass
class Statistics:
    """Histograms by tensor name, and the number of images they come from.

    Attributes:
        histograms: Histograms that do not depend on batches or order.
        images: Number of images.
        first_batch: Histograms on TensorRT's grid, which depend on the first batch; None if they were not collected.
        first_batch_size: Number of images in that first batch.
        products: Tensors that are inputs of matrix products (MatMul), where plain entropy clips less.
        left_out: Tensors without a histogram: they need no scale, and hold NaN, infinity or a mask.
    """

    histograms: MutableMapping[str, Histogram] = field(default_factory=dict)
    images: int = 0
    first_batch: dict[str, FirstBatchHistogram] | None = None
    first_batch_size: int = 0
    products: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    def add(self, tensor: str, values: ArrayLike) -> None:
        """Count the values of one tensor.

        Raises:
            NonFiniteError: A value is NaN or infinite. The error names the tensor.
        """
        histogram = self.histograms[tensor] if tensor in self.histograms else Histogram()
        try:
            histogram.add(values)
            self.histograms[tensor] = histogram
        except NonFiniteError as error:
            raise NonFiniteError(f"tensor '{tensor}': {error}", tensor=tensor, index=error.index) from None

    def merged(self, other: Statistics) -> Statistics:
        """Statistics of both sets of images together, exactly as one pass over all images would give them.

        Histograms that depend on the first batch cannot be merged and are left out.

        Raises:
            CalibrationError: The two do not hold the same tensors.
        """
        if not (self.histograms and other.histograms):
            return self if self.histograms else other
        left_out = tuple(dict.fromkeys((*self.left_out, *other.left_out)))  # by one of them: then by both together
        gone = set(left_out)
        different = sorted((set(self.histograms) ^ set(other.histograms)) - gone)
        if different:
            raise CalibrationError(
                f"cannot merge statistics of different models: {len(different)} tensors are in only one of them, "
                f"the first is '{different[0]}'; collect both with the same model"
            )
        kept = (name for name in self.histograms if name not in gone)
        histograms = gathered(
            ((name, self.histograms[name].merged(other.histograms[name])) for name in kept), len(self.histograms)
        )
        products = (self.products | other.products) & histograms.keys()
        return Statistics(histograms, self.images + other.images, products=products, left_out=left_out)


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write statistics as compressed HDF5, about 10 kB per tensor. The file appears whole or not at all.

    Raises:
        CalibrationError: The file cannot be written; an older file is untouched.
    """
    contents = hdf5_from_statistics(statistics)
    with Transaction(path.parent) as files:
        files.stage(path.name).write_bytes(contents)


def hdf5_from_statistics(statistics: Statistics) -> bytes:
    """The contents of the statistics file, written in memory: HDF5 ends the process if the disk fills up under it."""
    import h5py

    buffer = io.BytesIO()
    histograms = statistics.histograms.values()
    extremes = [(h.widths, h.zeros, h.min, h.max) for h in histograms]  # those of many tensors are unpacked one by one
    names = [name.encode() for name in statistics.histograms]
    with h5py.File(buffer, "w", userblock_size=BLOCK) as file:
        file.attrs["format"] = FORMAT
        file.attrs["images"] = statistics.images
        file.create_dataset("tensor", data=np.array(names, f"S{max(map(len, names), default=0) or 1}"))
        file.create_dataset(
            "product", data=np.array([name in statistics.products for name in statistics.histograms], bool)
        )
        file.create_dataset("width", data=np.array([widths for widths, *_ in extremes], np.float64).reshape(-1, 2))
        file.create_dataset("zeros", data=np.array([zeros for _, zeros, _, _ in extremes], np.int64))
        file.create_dataset("min", data=np.array([low for _, _, low, _ in extremes], np.float64))
        file.create_dataset("max", data=np.array([high for *_, high in extremes], np.float64))
        shape, packed = (len(extremes), 2, BINS), {}
        if extremes:  # an empty dataset cannot be chunked
            packed = {"chunks": (1, 2, BINS), "compression": "gzip", "compression_opts": 1, "shuffle": True}
        counts = file.create_dataset("signed_counts", shape, np.int64, **packed)
        for i, histogram in enumerate(histograms):
            counts[i] = histogram.signed_counts
        if statistics.left_out:
            file.create_dataset("left_out", data=np.array([name.encode() for name in statistics.left_out], "S"))
        if statistics.first_batch is not None:
            first = [statistics.first_batch[name] for name in statistics.histograms]
            file.attrs["first_batch_size"] = statistics.first_batch_size
            file.create_dataset("first_batch_limit", data=np.array([h.limit for h in first], np.float64))
            file.create_dataset(
                "first_batch_counts",
                data=np.array([h.counts for h in first], np.int64).reshape(-1, SEARCH_BINS),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
    return sealed(buffer.getvalue(), FORMAT)


def read_statistics(path: Path) -> Statistics:
    """Read what `write_statistics` wrote.

    Raises:
        CalibrationError: The file cannot be read, is damaged, or holds something else.
    """
    try:
        with open_sealed(path, FORMAT) as file:
            return _statistics_from_hdf5(file)
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be read as statistics ({error.strerror or error}); recalibrate"
        ) from error
    except (KeyError, ValueError, TypeError, RuntimeError, CalibrationError) as error:
        raise CalibrationError(f"{path}: cannot be read as statistics ({error}); recalibrate") from error


def _statistics_from_hdf5(file: Any) -> Statistics:  # noqa: ANN401 - h5py has no types
    names = [name.decode() for name in array_from(file, "tensor", (None,), "S")]
    count = len(names)
    if len(set(names)) < count or count > _MOST_TENSORS:
        raise CalibrationError(f"expected up to {_MOST_TENSORS} tensors, each once, found {count}")
    widths = array_from(file, "width", (count, 2), "float64").tolist()
    zeros = array_from(file, "zeros", (count,), "int64").tolist()
    lows, highs = (array_from(file, name, (count,), "float64").tolist() for name in ("min", "max"))
    products = array_from(file, "product", (count,), "bool").tolist()
    counts = dataset_from(file, "signed_counts", (count, 2, BINS), "int64")
    read = (
        (
            name,
            Histogram.from_parts(
                counts[i], widths=(widths[i][0], widths[i][1]), zeros=zeros[i], minimum=lows[i], maximum=highs[i]
            ),
        )
        for i, name in enumerate(names)
    )
    histograms = gathered(read, count)
    first, size = _read_first_batch(file, names)
    found = frozenset(name for name, product in zip(names, products, strict=True) if product)
    left_out = ()
    if "left_out" in file:
        left_out = tuple(name.decode() for name in array_from(file, "left_out", (None,), "S"))
    return Statistics(histograms, _images_from(file, "images"), first, size, found, left_out)


def _read_first_batch(
    file: Any,  # noqa: ANN401 - h5py has no types
    names: list[str],
) -> tuple[dict[str, FirstBatchHistogram] | None, int]:
    if "first_batch_counts" not in file:
        return None, 0
    counts = array_from(file, "first_batch_counts", (len(names), SEARCH_BINS), "int64")
    limits = array_from(file, "first_batch_limit", (len(names),), "float64").tolist()
    parts = zip(names, counts, limits, strict=True)
    histograms = {name: FirstBatchHistogram.from_parts(row, limit) for name, row, limit in parts}
    return histograms, _images_from(file, "first_batch_size")


def _images_from(file: Any, name: str) -> int:  # noqa: ANN401 - h5py has no types
    found = file.attrs[name]
    if not isinstance(found, int | np.integer) or not 0 <= found < _MOST_IMAGES:
        raise CalibrationError(f"'{name}': expected a number of images, found {found!r:.40}")
    return int(found)
