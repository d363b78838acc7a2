"""Statistics of all activations of a model: one histogram a tensor, mergeable, kept as HDF5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from calib.errors import CalibrationError, NonFiniteError
from calib.histogram import BINS, Histogram

FORMAT = "calib-statistics-1"


@dataclass
class Statistics:
    """Histograms by tensor name, and how many images they come from."""

    histograms: dict[str, Histogram] = field(default_factory=dict)
    images: int = 0

    def reserve(self, tensors: Iterable[str]) -> None:
        """Make the tensors known in this order, so that `add` may then be called from threads."""
        for tensor in tensors:
            self.histograms.setdefault(tensor, Histogram())

    def add(self, tensor: str, values: ArrayLike) -> None:
        """Count the values of one tensor.

        Raises:
            NonFiniteError: A value is NaN or infinite; names the tensor.
        """
        try:
            self.histograms.setdefault(tensor, Histogram()).add(values)
        except NonFiniteError as error:
            raise NonFiniteError(f"tensor '{tensor}': {error}", tensor=tensor, index=error.index) from None

    def merged(self, other: Statistics) -> Statistics:
        """Statistics of both sets of images together, exactly as one pass over all of them would give.

        Raises:
            CalibrationError: The two do not hold the same tensors.
        """
        different = sorted(set(self.histograms) ^ set(other.histograms))
        if self.histograms and other.histograms and different:
            raise CalibrationError(
                f"cannot merge statistics of different models: {len(different)} tensors are in one of them only, "
                f"'{different[0]}' first; collect both with the same model"
            )
        empty = Histogram()
        names = self.histograms or other.histograms
        histograms = {
            name: self.histograms.get(name, empty).merged(other.histograms.get(name, empty)) for name in names
        }
        return Statistics(histograms, self.images + other.images)


def write_statistics(statistics: Statistics, path: Path, extra: Mapping[str, ArrayLike] | None = None) -> None:
    """Write statistics as HDF5 (compressed; about 10 kB a tensor). `extra` holds further data sets, by name."""
    import h5py

    histograms = list(statistics.histograms.values())
    with h5py.File(path, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["images"] = statistics.images
        file.create_dataset("tensor", data=list(statistics.histograms), dtype=h5py.string_dtype())
        file.create_dataset("width", data=np.array([h.width for h in histograms], np.float64))
        file.create_dataset("zeros", data=np.array([h.zeros for h in histograms], np.int64))
        file.create_dataset("min", data=np.array([h.min for h in histograms], np.float64))
        file.create_dataset("max", data=np.array([h.max for h in histograms], np.float64))
        shape = (len(histograms), 2, BINS)
        counts = file.create_dataset(
            "signed_counts", shape, np.int64, chunks=(1, 2, BINS), compression="gzip", compression_opts=1, shuffle=True
        )
        for i, histogram in enumerate(histograms):
            counts[i] = histogram.signed_counts
        for name, data in (extra or {}).items():
            file.create_dataset(name, data=data)


def read_statistics(path: Path) -> Statistics:
    """Read what `write_statistics` wrote.

    Raises:
        CalibrationError: The file is no HDF5 file, is truncated, or holds something else.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise CalibrationError(f"{path}: expected '{FORMAT}', found '{file.attrs.get('format')}'; recalibrate")
            names = [name.decode() for name in file["tensor"][:]]
            parts = zip(names, file["width"], file["zeros"], file["min"], file["max"], strict=True)
            counts = file["signed_counts"]
            histograms = {
                name: Histogram.from_parts(
                    counts[i], width=float(width), zeros=int(zeros), minimum=float(low), maximum=float(high)
                )
                for i, (name, width, zeros, low, high) in enumerate(parts)
            }
            return Statistics(histograms, int(file.attrs["images"]))
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{path}: cannot be read as statistics ({error}); recalibrate") from error
