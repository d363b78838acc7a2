"""A public calibrator in the form that TensorRT's INT8 builder takes: an IInt8 class, fed from a `CalibrationFeed`.

TensorRT 8.6 and 10 only; 11 has no calibrators.
"""

from __future__ import annotations

from typing import Any, Protocol

from calib.algorithms import Algorithm, Percentile
from calib.caches.cache import CalibrationCache, text_from_cache
from quant.cuda.batch_feed import CalibrationFeed
from quant.errors import BuildError
from quant.tensorrt.bindings import TensorRT

# TensorRT's class for each of our algorithms, if TensorRT itself calibrates.
NATIVE_CLASSES = {
    "entropy": "IInt8EntropyCalibrator2",
    "minmax": "IInt8MinMaxCalibrator",
    "percentile": "IInt8LegacyCalibrator",
}
# The class that reads scales, and its name in the header. Scales of mse and percentile are handed over as if entropy
# had found them: TensorRT uses all scales alike, it has no mse, and the legacy header has no version to check.
_CACHE_CALIBRATORS = {
    "entropy": ("IInt8EntropyCalibrator2", "EntropyCalibration2"),
    "minmax": ("IInt8MinMaxCalibrator", "MinMaxCalibration"),
}
REGRESSION_CUTOFF = 1.0  # with this, the legacy calibrator takes the quantile as it is


class BuilderCalibrator(Protocol):
    """The calibrator that the builder gets, as this project uses it.

    Attributes:
        requested: Number of batches that TensorRT asked for.
        written: The cache that TensorRT wrote; None if it wrote none.
    """

    requested: int
    written: bytes | None


def cache_class(algorithm: str) -> str:
    """Name of the IInt8 class that reads a cache of this algorithm's scales."""
    return _CACHE_CALIBRATORS.get(algorithm, _CACHE_CALIBRATORS["entropy"])[0]


def cache_for_tensorrt(cache: CalibrationCache, number: int) -> tuple[CalibrationCache, str | None]:
    """The cache with the header that this version of TensorRT accepts from the class that reads it.

    TensorRT silently refuses another major version or another calibrator, and calibrates from data instead.

    Args:
        cache: Any cache with checked scales.
        number: The running version, such as 8600.

    Returns:
        The cache to hand over, and a line that says what was changed; None if nothing was.
    """
    name = _CACHE_CALIBRATORS.get(cache.algo, _CACHE_CALIBRATORS["entropy"])[1]
    header = f"TRT-{number}-{name}"
    if header == cache.header:
        return cache, None
    return (
        CalibrationCache(header, cache.scales),
        f"cache header '{cache.header}' is handed to TensorRT as '{header}'; the scales are the same",
    )


def native_calibrator(tensorrt: TensorRT, algorithm: Algorithm, feed: CalibrationFeed) -> BuilderCalibrator:
    """A calibrator with which TensorRT computes the scales itself.

    Raises:
        BuildError: TensorRT has no calibrator for this algorithm.
    """
    if algorithm.name not in NATIVE_CLASSES:
        raise BuildError(
            f"TensorRT has no calibrator for {algorithm.name}; choose --algo {', '.join(NATIVE_CLASSES)}, "
            "or --calibrator toolkit"
        )
    quantile = algorithm.percentile / 100 if isinstance(algorithm, Percentile) else None
    return _bridge(tensorrt.module, NATIVE_CLASSES[algorithm.name], feed, None, quantile)


def cache_calibrator(tensorrt: TensorRT, cache: CalibrationCache) -> BuilderCalibrator:
    """A calibrator that hands over a cache and has no data; requests for batches are counted and refused."""
    return _bridge(tensorrt.module, cache_class(cache.algo), None, text_from_cache(cache).encode(), None)


def _bridge(
    trt: Any,  # noqa: ANN401 - the bindings have no types
    class_name: str,
    feed: CalibrationFeed | None,
    cache: bytes | None,
    quantile: float | None,
) -> BuilderCalibrator:
    base = getattr(trt, class_name)

    class Bridge(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # explicitly: pybind11 needs it, super() is not enough
            self.requested = 0
            self.written: bytes | None = None

        def get_batch_size(self) -> int:
            return feed.batch if feed is not None else 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            # Never raises: TensorRT would take that as the end of data and go on. `feed.error` keeps it.
            self.requested += 1
            return feed.next(names) if feed is not None else None

        def read_calibration_cache(self) -> bytes | None:
            return cache

        def write_calibration_cache(self, data: Any) -> None:  # noqa: ANN401 - a buffer of TensorRT's
            if feed is None or feed.error is None:
                self.written = bytes(memoryview(data))  # TensorRT owns the memory: copy it

        def get_quantile(self) -> float:
            return 1.0 if quantile is None else quantile

        def get_regression_cutoff(self) -> float:
            return REGRESSION_CUTOFF

        def read_histogram_cache(self, length: int) -> None:
            """Return None: histograms come as raw pointers and are not kept."""

        def write_histogram_cache(self, pointer: Any, length: int) -> None:  # noqa: ANN401 - a raw pointer
            """Do nothing, see above."""

    bridge: BuilderCalibrator = Bridge()
    return bridge
