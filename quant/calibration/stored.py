"""A calibration stored on disk: whether a run can use it, and if not, why."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from calib.algorithms import Algorithm, Entropy, Percentile
from calib.caches.cache import CalibrationCache, coverage, read_cache
from calib.caches.provenance import (
    Calibration,
    ImageRecord,
    Source,
    differences,
    foreign_file,
    read_calibration,
    sidecar_paths,
)
from calib.errors import CacheError
from datasets import identify
from datasets.errors import UnreadableImageError
from datasets.identity import DataIdentity, ImageIdentity, sha256_of_sample
from quant.calibration.run_data import RunData
from quant.errors import BuildError
from quant.onnx_graph.model import OnnxModel
from quant.onnx_graph.tensor_types import activation_names
from quant.progress import Console
from quant.qdq.writer import quantizable_tensors
from quant.settings.run_settings import RunSettings


def problems_of(stored: Calibration, source: Source, algorithm: Algorithm, settings: RunSettings) -> list[str]:
    """List why this run cannot use a stored calibration, one line per reason."""
    problems = differences(stored.source, source)
    kind = stored.parameters.get("calibrator", "toolkit")
    if kind != settings.calibrator:
        problems.append("TensorRT's own calibration" if kind == "tensorrt" else "the toolkit's statistics")
        return problems
    # TensorRT keeps no statistics from which other scales could be computed, and --cache-only leaves the file alone.
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
    """Read a cache without provenance and check what can be checked: format, scales, algorithm, and fit to the model.

    Raises:
        CacheError: It is malformed, made by another algorithm, lacks tensors, or holds tensors that the model lacks.
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
        needed = quantizable_tensors(model.light)
    except BuildError:
        needed = []  # no INT8 build is possible; the build itself will report that
    known = activation_names(model.graph)
    fit = coverage(cache, needed, known)
    if fit.foreign:
        raise CacheError(
            f"{path}: expected tensors of {model.path}, found {len(fit.foreign)} that it does not have, "
            f"'{fit.foreign[0]}' first; this cache belongs to another model"
        )
    if fit.missing:
        raise CacheError(
            f"{path}: expected scales of all {len(needed)} tensors to be quantized, {len(fit.missing)} are missing, "
            f"'{fit.missing[0]}' first; recalibrate without --trust-cache"
        )
    return cache


def stored_calibration(settings: RunSettings, console: Console) -> Calibration | None:
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
    """Refuse to overwrite files that the user's --cache names but this tool did not write."""
    foreign, provenance = foreign_file(path), sidecar_paths(path)[0]
    if foreign == path and not provenance.exists():
        raise CacheError(
            f"{path}: has no provenance ({provenance.name}) beside it, so it is not known to fit; "
            "use it with --trust-cache, or give another --cache to write to"
        )
    if foreign is not None:
        raise CacheError(
            f"{foreign}: expected no file, or one that {provenance.name} names, because {path.name} and the files "
            "beside it would replace it; give another --cache to write to"
        )


def source_of_run(model: OnnxModel, data: RunData, stored: Calibration | None) -> Source:
    """What this run's calibration would be made from; unchanged contents are not read again."""
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
    """Identity of the calibration images, without those that have no contents (dead links), as in the stream."""
    try:
        return identify(data.source, data.selection, known)
    except UnreadableImageError:
        return identify(data.source, [index for index in data.selection if _has_contents(data, index)], known)


def _has_contents(data: RunData, index: int) -> bool:
    try:
        data.source.fingerprint(index)
        sha256_of_sample(data.source, index)
    except UnreadableImageError:
        return False
    return True
