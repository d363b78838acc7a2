"""Calibrators: an algorithm with its parameters, a stream of image batches, a cache.

A back end takes a calibrator and streams its batches through the model. ONNX Runtime passes the activations to
`collect`; TensorRT's builder calibrates by itself. One pass collects what all algorithms need. The algorithm only
decides how amax is computed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import ArrayLike, NDArray

from calib.algorithms import MSE, Algorithm, Entropy, MinMax, Percentile, algorithm_from_name, amax_from_statistics
from calib.caches.cache import DEFAULT_VERSION, CalibrationCache, cache_from_amax, text_from_cache
from calib.caches.convergence import ScalesOverImages
from calib.errors import CalibrationError
from calib.files import Transaction
from calib.histograms.statistics import Statistics, read_statistics


class CalibrationBatch(Protocol):
    """A batch of a data stream.

    Attributes:
        inputs: Arrays by input name; the first axis is the batch.
        names: Names of the images, for messages.
    """

    @property
    def inputs(self) -> Mapping[str, NDArray]: ...  # type: ignore[type-arg]  # noqa: D102 - see the class
    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102 - see the class


class Calibrator:
    """Collects activations and turns them into scales.

    Attributes:
        algorithm: How amax is computed.
        batches: The stream of batches; None when the caller uses `collect`. What runs the model takes batches with
            `inputs` and `names`, and also arrays, tensors, dicts or (array, label) pairs, so a DataLoader will do. One
            pass is made, so a generator serves one collection.
        cache: The path that `write_cache` writes to; None to pass the path to `write_cache`.
        statistics: What has been collected so far.
        over_images: Takes the scales of parts of the images as they are collected; None if nobody asked for it.
    """

    algorithm: Algorithm

    def __init__(
        self,
        algorithm: Algorithm,
        batches: Iterable[Any] | None = None,
        *,
        cache: str | Path | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.batches = batches
        self.cache = Path(cache) if cache is not None else None
        self.statistics = Statistics()
        self.over_images: ScalesOverImages | None = None

    def __iter__(self) -> Iterator[Any]:
        if self.batches is None:
            raise CalibrationError("calibrator: expected a stream of batches, found none; pass it as `batches`")
        return iter(self.batches)

    def collect(self, activations: Mapping[str, ArrayLike], images: int) -> None:
        """Count one batch.

        Plain entropy clips the inputs of matrix products less than other tensors. Name them in
        `statistics.products`, as `quant.collect_statistics` does.

        Args:
            activations: Values by tensor name, any shape.
            images: How many images the batch holds.

        Raises:
            NonFiniteError: An activation holds NaN or infinity.
        """
        for tensor, values in activations.items():
            self.statistics.add(tensor, values)
        self.statistics.images += images

    def merge(self, other: Statistics | Calibrator) -> None:
        """Add, exactly, what another calibrator collected from another shard of the images.

        Raises:
            CalibrationError: It was collected from another model.
        """
        self.statistics = self.statistics.merged(other.statistics if isinstance(other, Calibrator) else other)

    def resume(self, path: str | Path) -> None:
        """Add statistics from disk (`calibration.h5`) to what has been collected so far.

        Raises:
            CalibrationError: The file cannot be read as statistics, or belongs to another model.
        """
        self.merge(read_statistics(Path(path)))

    def compute_amax(self) -> dict[str, float]:
        """Largest magnitude kept of each tensor, activation units, from what was collected.

        Raises:
            CalibrationError: Nothing was collected.
        """
        if not self.statistics.images:
            raise CalibrationError("calibrator: expected statistics of at least one image, found none; collect first")
        return amax_from_statistics(self.statistics, self.algorithm)

    def compute_cache(self, version: int = DEFAULT_VERSION) -> CalibrationCache:
        """The calibration cache computed from what was collected, for that TensorRT version."""
        return cache_from_amax(self.compute_amax(), self.algorithm, version)

    def write_cache(self, path: str | Path | None = None) -> Path:
        """Write the cache, whole or not at all, and return its path.

        Raises:
            CalibrationError: No path is known, nothing was collected, or the file cannot be written.
        """
        target = Path(path) if path is not None else self.cache
        if target is None:
            raise CalibrationError("calibrator: expected a path for the cache, found none; pass `cache` or `path`")
        text = text_from_cache(self.compute_cache())
        with Transaction(target.parent) as files:
            files.stage(target.name).write_text(text, encoding="utf-8")
        return target


class EntropyCalibrator(Calibrator):
    """Smallest KL divergence, as in TensorRT's IInt8EntropyCalibrator2; with `match_tensorrt`, its exact answers."""

    def __init__(
        self,
        batches: Iterable[Any] | None = None,
        *,
        cache: str | Path | None = None,
        match_tensorrt: bool = False,
    ) -> None:
        super().__init__(Entropy(match_tensorrt), batches, cache=cache)


class MinMaxCalibrator(Calibrator):
    """The whole range of the data, as in TensorRT's IInt8MinMaxCalibrator."""

    def __init__(self, batches: Iterable[Any] | None = None, *, cache: str | Path | None = None) -> None:
        super().__init__(MinMax(), batches, cache=cache)


class PercentileCalibrator(Calibrator):
    """A percentile of |x|, as in TensorRT's IInt8LegacyCalibrator with that quantile."""

    def __init__(
        self,
        batches: Iterable[Any] | None = None,
        *,
        percentile: float = 99.99,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__(Percentile(percentile), batches, cache=cache)


class MSECalibrator(Calibrator):
    """Smallest mean squared error on the INT8 grid."""

    def __init__(self, batches: Iterable[Any] | None = None, *, cache: str | Path | None = None) -> None:
        super().__init__(MSE(), batches, cache=cache)


def calibrator_from_name(
    name: str,
    batches: Iterable[Any] | None = None,
    *,
    percentile: float = 99.99,
    match_tensorrt: bool = False,
    cache: str | Path | None = None,
) -> Calibrator:
    """The calibrator of that algorithm: entropy, minmax, percentile or mse.

    Raises:
        CalibrationError: No algorithm has that name.
    """
    algorithm = algorithm_from_name(name, percentile, match_tensorrt=match_tensorrt)
    if isinstance(algorithm, Percentile):
        return PercentileCalibrator(batches, percentile=algorithm.percentile, cache=cache)
    if isinstance(algorithm, Entropy):
        return EntropyCalibrator(batches, match_tensorrt=algorithm.match_tensorrt, cache=cache)
    return (MinMaxCalibrator if isinstance(algorithm, MinMax) else MSECalibrator)(batches, cache=cache)
