"""From data to scales: a fitting cache is used again, statistics are used again, or the images are run.

In this order: a bare cache that the user trusts; a cache whose provenance fits (nothing is read); statistics that fit
with scales of another algorithm (they are computed anew, no image is read); calibration. With --cache-only nothing but
a cache that fits, algorithm and parameters included: no file of it is written.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import calib
from calib.algorithms import Algorithm, Entropy, Percentile, algorithm_from_name
from calib.cache import CalibrationCache, cache_from_amax, coverage, read_cache
from calib.calibrator import amax_from_statistics, calibrator_from_name
from calib.errors import CacheError
from calib.provenance import (
    Calibration,
    ImageRecord,
    Source,
    differences,
    foreign_file,
    read_calibration,
    sidecar_paths,
    write_calibration,
)
from calib.statistics import Statistics
from datasets import identify
from datasets.errors import UnreadableImageError
from datasets.identity import DataIdentity, ImageIdentity
from quant.activation_types import activation_names
from quant.backend import Backend
from quant.console import Console
from quant.data import RunData
from quant.errors import BuildError
from quant.graph import OnnxModel
from quant.qdq import quantizable_tensors
from quant.settings import RunSettings


@dataclass(frozen=True)
class CalibrationResult:
    """Scales, and how they came about.

    Attributes:
        cache: The scales.
        path: The cache file.
        how: calibrated, recomputed (statistics used again), reused, or trusted.
        images: Readable images that the statistics come from; None for a trusted cache, which does not say.
        seconds: For reading, decoding, inference, statistics and search.
        statistics: Histograms; None for a trusted cache.
        quarantined: Unreadable images and why.
        data_sha256: Hash of the images' contents in order; None for a trusted cache.
    """

    cache: CalibrationCache
    path: Path
    how: str
    images: int | None
    seconds: float
    statistics: Statistics | None
    quarantined: tuple[tuple[str, str], ...]
    data_sha256: str | None

    @property
    def amax(self) -> Mapping[str, float]:
        """Largest magnitude kept of each tensor, activation units."""
        return self.cache.amax

    @property
    def zero_tensors(self) -> tuple[str, ...]:
        """Tensors that were zero for all images."""
        histograms = self.statistics.histograms if self.statistics is not None else {}
        return (*(name for name, h in histograms.items() if not h.abs_max), *self.cache.zero_tensors)


def obtain_calibration(
    settings: RunSettings, model: OnnxModel, data: RunData, backend: Backend, console: Console
) -> CalibrationResult:
    """The scales for a run; see the module's text for where they come from.

    Raises:
        CacheError: The cache cannot be used and may not be replaced (`cache_only`, `trust_cache`, a foreign `cache`).
        NonFiniteError: An activation holds NaN or infinity.
        DatasetError: Too many images cannot be read.
    """
    start = time.perf_counter()
    algorithm = algorithm_from_name(settings.algo, settings.percentile, match_tensorrt=settings.match_tensorrt)
    path = settings.cache_path
    if settings.trust_cache:
        cache = trusted_cache(path, model, algorithm)
        console.note(f"{path}: used as it is ({len(cache.scales)} tensors); where its scales come from is not known")
        return CalibrationResult(cache, path, "trusted", None, time.perf_counter() - start, None, (), None)
    stored = _stored_calibration(settings, console)
    source = _source_of(model, data, stored)
    problems = _problems(stored, source, algorithm, settings) if stored is not None else ["there is none"]
    if stored is not None and not problems:
        how, calibration = "reused", stored
        if not stored.matches(algorithm):
            how, calibration = "recomputed", _recomputed(stored, source, algorithm)
            console.note(f"{path}: holds {stored.algorithm}; {algorithm.name} is computed from the same statistics")
            write_calibration(calibration, path)
        else:
            console.note(f"{path}: fits and is used again; no image is read for calibration")
    elif settings.cache_only:
        raise CacheError(f"{path}: cannot be used: {'; '.join(problems)}; leave out --cache-only to make it anew")
    else:
        if stored is not None:
            console.warn(f"{path}: was made from {'; '.join(problems)}; recalibrating")
        how, calibration = "calibrated", _calibrated(settings, model, data, backend, console, algorithm, source)
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
    )


def _problems(stored: Calibration, source: Source, algorithm: Algorithm, settings: RunSettings) -> list[str]:
    """Why a stored calibration does not serve this run, a line each."""
    problems = differences(stored.source, source)
    kind = stored.parameters.get("calibrator", "toolkit")
    if kind != settings.calibrator:
        problems.append("TensorRT's own calibration" if kind == "tensorrt" else "the toolkit's statistics")
        return problems
    # TensorRT keeps no statistics, from which other scales could be computed; with --cache-only the file is left alone.
    if (kind == "tensorrt" or settings.cache_only) and not stored.matches(algorithm):
        problems.append(stored.algorithm_difference(algorithm))
    if kind == "tensorrt":
        found = stored.parameters.get("batch_size")
        if found != settings.batch_size:
            problems.append(f"another batch size ({found}, now {settings.batch_size})")
        return problems
    if isinstance(algorithm, Entropy) and algorithm.match_tensorrt:
        found = stored.statistics.first_batch_size
        wanted = min(settings.batch_size, stored.statistics.images)
        if found != wanted:
            problems.append(f"statistics with another first batch (of {found or 'no'} images, now {wanted})")
    return problems


def trusted_cache(path: Path, model: OnnxModel, algorithm: Algorithm) -> CalibrationCache:
    """A cache without provenance, checked as far as it can be: format, scales, algorithm, and that it fits the model.

    Raises:
        CacheError: It is malformed, of another algorithm, lacks tensors, or holds tensors that the model does not have.
    """
    cache = read_cache(path)
    if cache.algo != algorithm.name:
        raise CacheError(f"{path}:1: expected a cache of {algorithm.name}, found {cache.algo}; choose with --algo")
    if isinstance(algorithm, Percentile) and not math.isclose(cache.percentile or 0, algorithm.percentile):
        raise CacheError(
            f"{path}:1: expected percentile {algorithm.percentile:g}, found {cache.percentile:g}; "
            "choose with --percentile"
        )
    try:
        needed = quantizable_tensors(model.proto)
    except BuildError:
        needed = []  # no INT8 build is possible, which the build itself will say
    known = activation_names(model.proto)
    fit = coverage(cache, needed, known)
    if fit.foreign:
        raise CacheError(
            f"{path}: expected tensors of {model.path}, found {len(fit.foreign)} that it does not have, "
            f"'{fit.foreign[0]}' first; this cache is of another model"
        )
    if fit.missing:
        raise CacheError(
            f"{path}: expected scales of all {len(needed)} tensors to be quantized, {len(fit.missing)} are missing, "
            f"'{fit.missing[0]}' first; recalibrate without --trust-cache"
        )
    return cache


def _stored_calibration(settings: RunSettings, console: Console) -> Calibration | None:
    """The calibration on disk; None when there is none, or one that may be replaced."""
    path = settings.cache_path
    if settings.cache is not None:
        _refuse_foreign_files(path)
    if not path.exists():
        if settings.cache_only:
            raise CacheError(f"{path}: expected a calibration cache, found none; leave out --cache-only to calibrate")
        return None
    try:
        return read_calibration(path)
    except CacheError as error:
        if settings.cache_only:
            raise
        console.warn(f"{error} - recalibrating")
        return None


def _refuse_foreign_files(path: Path) -> None:
    """Files that the user's --cache names, and that this tool did not write, are not ours to overwrite."""
    foreign, provenance = foreign_file(path), sidecar_paths(path)[0]
    if foreign == path and not provenance.exists():
        raise CacheError(
            f"{path}: has no provenance ({provenance.name}) beside it, so it is not known to fit; "
            "use it with --trust-cache, or give another --cache to write to"
        )
    if foreign is not None:
        raise CacheError(
            f"{foreign}: expected no file, or one that {provenance.name} names, as {path.name} and the files beside it "
            "would replace it; give another --cache to write to"
        )


def _source_of(model: OnnxModel, data: RunData, stored: Calibration | None) -> Source:
    """What this run's calibration would be made from; contents that did not change are not read again."""
    known = stored.source.images if stored is not None else ()
    identity = _identity_of(data, [ImageIdentity(r.name, r.fingerprint, r.sha256) for r in known])
    preprocessing = data.preprocessing.to_dict() if data.preprocessing is not None else {}
    return Source(
        model=model.sha256,
        data=identity.sha256,
        preprocessing={key: value for key, value in json.loads(json.dumps(preprocessing)).items() if key != "name"},
        images=tuple(ImageRecord(e.name, e.fingerprint, e.sha256) for e in identity.entries),
        paths={"model": str(model.path), "data": str(data.source.path)},
    )


def _identity_of(data: RunData, known: Sequence[ImageIdentity]) -> DataIdentity:
    """Identity of the calibration images; one without any contents (a dead link) is left out, as the stream does."""
    try:
        return identify(data.source, data.selection, known)
    except UnreadableImageError:
        return identify(data.source, [index for index in data.selection if _has_contents(data, index)], known)


def _has_contents(data: RunData, index: int) -> bool:
    try:
        data.source.fingerprint(index)
        data.source.content(index)
    except UnreadableImageError:
        return False
    return True


def _calibrated(
    settings: RunSettings,
    model: OnnxModel,
    data: RunData,
    backend: Backend,
    console: Console,
    algorithm: Algorithm,
    source: Source,
) -> Calibration:
    stream = data.calibration_stream(settings)
    calibrator = calibrator_from_name(
        settings.algo, stream, percentile=settings.percentile, match_tensorrt=settings.match_tensorrt
    )
    with console.task("Calibrating", stream.images) as advance:
        if settings.calibrator == "tensorrt":
            cache = backend.calibrate(model, calibrator, advance)
            statistics = Statistics(images=stream.images - len(stream.quarantined))
        else:
            backend.collect(model, calibrator, advance)
            cache, statistics = calibrator.compute_cache(), calibrator.statistics
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
        versions={"calib": calib.__version__, backend.name: backend.version},
    )


def _native_parameters(settings: RunSettings) -> dict[str, Any]:
    """What TensorRT's own calibration depends on beside the algorithm."""
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
