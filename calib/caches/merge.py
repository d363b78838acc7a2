"""Merging the statistics of several shards of the images exactly, and computing the cache of them all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path

from calib.algorithms import Algorithm, amax_from_statistics
from calib.caches.cache import cache_from_amax, text_from_cache
from calib.caches.provenance import (
    Calibration,
    Source,
    foreign_file,
    read_calibration,
    sidecar_paths,
    write_calibration,
)
from calib.errors import CacheError
from calib.files import Transaction
from calib.histograms.statistics import Statistics, hdf5_from_statistics, read_statistics
from calib.regular_files import resolved
from calib.scratch import recover


@dataclass(frozen=True)
class Merge:
    """What `merge_statistics_files` did.

    Attributes:
        images: How many images the statistics come from.
        tensors: How many tensors the cache holds.
        provenance: Whether provenance was merged too, which takes provenance for every shard.
        warnings: What a user should know, one line each.
    """

    images: int
    tensors: int
    provenance: bool
    warnings: tuple[str, ...]


def merge_statistics_files(shards: Sequence[Path], target: Path, algorithm: Algorithm) -> Merge:
    """Merge statistics; write the cache, its statistics (.h5) and, if all shards have it, the provenance.

    The merged statistics are bit for bit those of one pass over all images.

    Args:
        shards: Statistics (.h5), or the caches beside them.
        target: Where the cache goes.
        algorithm: How amax is computed.

    Raises:
        CalibrationError: A shard cannot be read or belongs to another model, or `target` would replace a foreign file.
    """
    if target.suffix in (".h5", ".json"):
        raise CacheError(f"{target}: expected the path of a cache, such as merged.cache; the .h5 is written beside it")
    caches = [path.with_suffix(".cache") for path in shards]
    for folder in {path.parent for path in (target, *shards)}:
        recover(folder)
    _refuse_to_replace(target, shards)
    merged = reduce(Statistics.merged, (read_statistics(path.with_suffix(".h5")) for path in shards))
    merged = replace(merged, first_batch=None, first_batch_size=0)
    cache = cache_from_amax(amax_from_statistics(merged, algorithm), algorithm)
    known = [read_calibration(path) for path in caches if path.is_file() and sidecar_paths(path)[0].is_file()]
    if len(known) == len(shards):
        source, warnings = _merged_source(known, caches)
        write_calibration(
            Calibration(cache, algorithm.name, asdict(algorithm), source, merged, known[0].versions), target
        )
        return Merge(merged.images, len(cache.scales), provenance=True, warnings=tuple(warnings))
    with Transaction(target.parent) as files:
        files.stage(target.name).write_text(text_from_cache(cache), encoding="utf-8", newline="\n")
        files.stage(target.with_suffix(".h5").name).write_bytes(hdf5_from_statistics(merged))
    return Merge(merged.images, len(cache.scales), provenance=False, warnings=())


def _refuse_to_replace(target: Path, shards: Sequence[Path]) -> None:
    if resolved(target).with_suffix("") in {resolved(path).with_suffix("") for path in shards}:
        raise CacheError(f"{target}: expected a new file, found one of the shards; give another name")
    foreign = foreign_file(target)
    if foreign is not None:
        raise CacheError(f"{foreign}: already exists and would be replaced; give another name")


def _merged_source(shards: Sequence[Calibration], paths: Sequence[Path]) -> tuple[Source, list[str]]:
    """The source of the merged statistics, with the images of all shards in turn, and warnings."""
    first = shards[0].source
    for shard, path in zip(shards, paths, strict=True):
        for what in ("model", "preprocessing"):
            if getattr(shard.source, what) != getattr(first, what):
                raise CacheError(
                    f"{path}: expected the {what} of {paths[0]}, found another; calibrate all shards alike"
                )
    images = tuple(image for shard in shards for image in shard.source.images)
    warnings = []
    repeated = len(images) - len({image.sha256 for image in images})
    if repeated:
        warnings.append(f"{repeated} images are in more than one shard (or twice in one) and are counted each time")
    # As in `datasets.identify`: the digests in order, one per line.
    data = hashlib.sha256("".join(f"{image.sha256}\n" for image in images).encode()).hexdigest()
    quarantined = tuple(item for shard in shards for item in shard.source.quarantined)
    folders = ", ".join(dict.fromkeys(shard.source.paths.get("data", "") for shard in shards))
    return replace(first, images=images, data=data, quarantined=quarantined, paths={**first.paths, "data": folders}), (
        warnings
    )
