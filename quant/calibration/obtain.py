"""From data to scales: reuse a fitting cache, reuse statistics, or run the images.

These are tried in order: a bare cache that the user trusts; a cache whose provenance fits (no image is read);
statistics that fit but with scales of another algorithm (the scales are recomputed, no image is read); calibration.
With --cache-only, only a cache that fits is used, algorithm and parameters included, and none of its files is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import calib
from calib.algorithms import Algorithm, algorithm_from_name, amax_from_statistics
from calib.caches.cache import CalibrationCache, cache_from_amax
from calib.caches.convergence import ScalesOfPart, ScalesOverImages
from calib.caches.provenance import (
    Calibration,
    Source,
    write_calibration,
    zero_tensors,
)
from calib.calibrator import calibrator_from_name
from calib.errors import CacheError
from calib.histograms.statistics import Statistics
from quant.backend import Backend
from quant.calibration.run_data import RunData
from quant.calibration.stored import problems_of, source_of_run, stored_calibration, trusted_cache
from quant.collectors.collector import Collector
from quant.onnx_graph.model import OnnxModel
from quant.progress import Console
from quant.settings.run_settings import RunSettings


@dataclass(frozen=True)
class CalibrationResult:
    """Scales, and how they were obtained.

    Attributes:
        cache: The scales.
        path: The cache file.
        how: calibrated, recomputed (from reused statistics), reused, or trusted.
        images: Readable images that the statistics come from; None for a trusted cache, which does not record them.
        seconds: Time for reading, decoding, inference, statistics and search.
        statistics: Histograms; None for a trusted cache.
        quarantined: Unreadable images, each with the reason.
        data_sha256: Hash of the images' contents in order; None for a trusted cache.
        convergence: How far the scales of parts of the images are from these; empty where that is not known.
    """

    cache: CalibrationCache
    path: Path
    how: str
    images: int | None
    seconds: float
    statistics: Statistics | None
    quarantined: tuple[tuple[str, str], ...]
    data_sha256: str | None
    convergence: tuple[ScalesOfPart, ...] = ()

    @property
    def amax(self) -> Mapping[str, float]:
        """Largest magnitude kept for each tensor, in activation units."""
        return self.cache.amax

    @property
    def zero_tensors(self) -> tuple[str, ...]:
        """Tensors that were zero for all images."""
        return zero_tensors(self.cache, self.statistics)


def obtain_calibration(
    settings: RunSettings, model: OnnxModel, data: RunData, backend: Backend, collector: Collector, console: Console
) -> CalibrationResult:
    """Obtain the scales for a run; the module's docstring says where they come from.

    Args:
        settings: Settings of the run.
        model: FP32 model.
        data: The images.
        backend: Calibrates itself if that was asked for.
        collector: Collects the toolkit's statistics.
        console: Where progress and notes go.

    Raises:
        CacheError: The cache cannot be used and may not be replaced (`cache_only`, `trust_cache`, a foreign `cache`).
        NonFiniteError: An activation holds NaN or infinity.
        DatasetError: Too many images cannot be read.
    """
    start = time.perf_counter()
    settings = settings.with_algorithm(detects=False)  # a run has chosen already, as it knows what the model is for
    algorithm = algorithm_from_name(settings.algo, settings.percentile, match_tensorrt=settings.match_tensorrt)
    path = settings.cache_path
    if settings.trust_cache:
        cache = trusted_cache(path, model, algorithm)
        console.note(f"{path}: used as it is ({len(cache.scales)} tensors); where its scales come from is not known")
        return CalibrationResult(cache, path, "trusted", None, time.perf_counter() - start, None, (), None)
    stored = stored_calibration(settings, console)
    source = source_of_run(model, data, stored)
    problems = problems_of(stored, source, algorithm, settings) if stored is not None else ["there is none"]
    if stored is not None and not problems:
        how, calibration = "reused", stored
        if not stored.matches(algorithm):
            how, calibration = "recomputed", _recomputed(stored, source, algorithm)
            console.note(f"{path}: holds {stored.algorithm}; {algorithm.name} is computed from the same statistics")
            write_calibration(calibration, path)
        else:
            console.note(f"{path}: fits and is used again; no image is read for calibration")
    elif settings.cache_only:
        raise CacheError(f"{path}: cannot be used: {'; '.join(problems)}; leave out --cache-only to make a new one")
    else:
        if stored is not None:
            console.warn(f"{path}: was made from {'; '.join(problems)}; recalibrating")
        how, calibration = (
            "calibrated",
            _calibrated(settings, model, data, backend, collector, console, algorithm, source),
        )
        write_calibration(calibration, path)
    return CalibrationResult(
        calibration.cache,
        path,
        how,
        calibration.statistics.images,
        time.perf_counter() - start,
        calibration.statistics,
        calibration.source.quarantined,
        calibration.source.data,
        calibration.convergence,
    )


def _calibrated(
    settings: RunSettings,
    model: OnnxModel,
    data: RunData,
    backend: Backend,
    collector: Collector,
    console: Console,
    algorithm: Algorithm,
    source: Source,
) -> Calibration:
    stream = data.calibration_stream(settings)
    calibrator = calibrator_from_name(
        settings.algo, stream, percentile=settings.percentile, match_tensorrt=settings.match_tensorrt
    )
    convergence: tuple[ScalesOfPart, ...] = ()
    with console.task("Calibrating", stream.images) as advance:
        if settings.calibrator == "tensorrt":
            cache = backend.calibrate(model, calibrator, advance)
            statistics = Statistics(images=stream.images - len(stream.quarantined))
        else:
            calibrator.over_images = ScalesOverImages(calibrator.algorithm, stream.images, stream.batch_size)
            collector.collect(model, calibrator, advance)
            cache, statistics = calibrator.compute_cache(), calibrator.statistics
            convergence = calibrator.over_images.parts(statistics, cache.amax)
            _note_left_out(statistics, console)
    return Calibration(
        cache=cache,
        algorithm=algorithm.name,
        parameters=asdict(algorithm) | ({} if settings.calibrator == "toolkit" else _native_parameters(settings)),
        source=Source(
            source.model,
            source.data,
            source.preprocessing,
            source.images,
            source.paths,
            tuple((item.file, item.reason) for item in stream.quarantined),
        ),
        statistics=statistics,
        versions={
            "calib": calib.__version__,
            backend.name: backend.version,
            **({"collector": collector.where} if collector.where and statistics.histograms else {}),
        },
        convergence=convergence,
    )


def _note_left_out(statistics: Statistics, console: Console) -> None:
    names = statistics.left_out
    if names:
        console.note(
            f"{len(names)} tensors get no scale, '{names[0]}' first: they hold infinities, NaN or a mask, "
            "and none of them is quantized"
        )


def _native_parameters(settings: RunSettings) -> dict[str, Any]:
    """What TensorRT's own calibration depends on besides the algorithm."""
    return {"calibrator": "tensorrt", "batch_size": settings.batch_size}


def _recomputed(stored: Calibration, source: Source, algorithm: Algorithm) -> Calibration:
    amax = amax_from_statistics(stored.statistics, algorithm)
    return Calibration(
        cache=cache_from_amax(amax, algorithm),
        algorithm=algorithm.name,
        parameters=asdict(algorithm),
        source=Source(
            source.model, source.data, source.preprocessing, source.images, source.paths, stored.source.quarantined
        ),
        statistics=stored.statistics,
        versions=stored.versions,
    )
