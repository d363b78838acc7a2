"""What a calibration cache was made from: the sidecar `calibration.json` and the statistics `calibration.h5`.

A cache is reused only for the same model, images and preprocessing. The sidecar holds their hashes. It also holds the
hashes of the cache and the statistics, so that a file that was edited, swapped or only half replaced is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from calib.algorithms import Algorithm
from calib.caches.cache import CalibrationCache, read_cache, text_from_cache
from calib.caches.convergence import ScalesOfPart
from calib.caches.sidecar import SourceDocument, files_named_by, read_sidecar
from calib.documents import DocumentError
from calib.errors import CacheError, CalibrationError
from calib.files import Transaction, sha256_of_files
from calib.histograms.statistics import Statistics, hdf5_from_statistics, read_statistics
from calib.scratch import recover
from calib.texts import whole_characters

SCHEMA = 1


@dataclass(frozen=True)
class ImageRecord:
    """One calibration image.

    Attributes:
        name: Path relative to the data folder.
        fingerprint: Changes when the file is written to. It is compared first: an unchanged file is not read.
        sha256: Hash of the file's contents.
    """

    name: str
    fingerprint: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """What determines the statistics.

    Attributes:
        model: SHA-256 of the ONNX file.
        data: SHA-256 over the hashes of the images' contents, in order.
        preprocessing: The fields of the preprocessing.
        images: The images in order.
        paths: Where the model and the data were, for people.
        quarantined: Images that could not be read, each with the reason; they are among `images` too.
    """

    model: str
    data: str
    preprocessing: Mapping[str, Any]
    images: tuple[ImageRecord, ...]
    paths: Mapping[str, str] = field(default_factory=dict)
    quarantined: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Calibration:
    """A cache and everything that is known about it.

    Attributes:
        cache: The scales.
        algorithm: Name of the algorithm.
        parameters: The algorithm's parameters, and anything else that the scales depend on.
        source: What the statistics were made from.
        statistics: Histograms of all tensors; none when TensorRT calibrated by itself.
        versions: Versions of the toolkit and of the back end that ran the model.
        convergence: How far the scales of parts of the images were from these; empty where that is not known.
    """

    cache: CalibrationCache
    algorithm: str
    parameters: Mapping[str, Any]
    source: Source
    statistics: Statistics
    versions: Mapping[str, str]
    convergence: tuple[ScalesOfPart, ...] = ()

    def matches(self, algorithm: Algorithm) -> bool:
        """Whether the scales were computed by this algorithm with these parameters."""
        return not self.algorithm_difference(algorithm)

    def algorithm_difference(self, algorithm: Algorithm) -> str:
        """How this algorithm and its parameters differ from those of the scales; empty if they do not."""
        if self.algorithm != algorithm.name:
            return f"another algorithm ({self.algorithm}, now {algorithm.name})"
        own = {key: value for key, value in self.parameters.items() if key not in ("calibrator", "batch_size")}
        wanted = asdict(algorithm)
        changed = sorted(key for key in {*own, *wanted} if own.get(key) != wanted.get(key))
        return ", ".join(f"another {key} ({own.get(key)}, now {wanted.get(key)})" for key in changed)

    @property
    def zero_tensors(self) -> tuple[str, ...]:
        """Tensors whose values were all zero."""
        return zero_tensors(self.cache, self.statistics)


def zero_tensors(cache: CalibrationCache, statistics: Statistics | None) -> tuple[str, ...]:
    """Tensors that were zero for all images, according to the statistics or to marks in the cache itself."""
    histograms = statistics.histograms if statistics is not None else {}
    return (*(name for name, h in histograms.items() if not h.abs_max), *cache.zero_tensors)


def sidecar_paths(cache: Path) -> tuple[Path, Path]:
    """Provenance (.json) and statistics (.h5) that belong to a cache file."""
    return cache.with_suffix(".json"), cache.with_suffix(".h5")


def differences(found: Source, expected: Source) -> list[str]:
    """How a calibration's source differs from the expected one, one line per difference; empty if it does not."""
    lines = []
    if found.model != expected.model:
        lines.append(f"another model (SHA-256 {found.model[:12]}, now {expected.model[:12]})")
    if dict(found.preprocessing) != dict(expected.preprocessing):
        keys = sorted(
            key
            for key in {*found.preprocessing, *expected.preprocessing}
            if found.preprocessing.get(key) != expected.preprocessing.get(key)
        )
        changes = (f"{key} {found.preprocessing.get(key)}, now {expected.preprocessing.get(key)}" for key in keys)
        lines.append(f"other preprocessing ({'; '.join(changes)})")
    if found.data != expected.data:
        lines.append(f"other images ({_image_difference(found.images, expected.images)})")
    return lines


def _image_difference(found: Sequence[ImageRecord], expected: Sequence[ImageRecord]) -> str:
    before = {image.name: image.sha256 for image in found}
    now = {image.name: image.sha256 for image in expected}
    groups = {
        "changed": [name for name in now if name in before and before[name] != now[name]],
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    parts = [
        f"{len(names)} {what}: {names[0]}" + ("..." if len(names) > 1 else "")
        for what, names in groups.items()
        if names
    ]
    return f"{len(found)} then, {len(expected)} now; " + (", ".join(parts) or "another order")


def write_calibration(calibration: Calibration, cache: Path) -> None:
    """Write the cache, the provenance and the statistics together, whole or not at all.

    Raises:
        CalibrationError: They cannot be written; older files are untouched.
    """
    with Transaction(cache.parent) as files:
        stage_calibration(files, calibration, cache.name)


def stage_calibration(files: Transaction, calibration: Calibration, name: str) -> None:
    """Write the three files as part of a larger set; `name` is the cache's."""
    provenance_name, statistics_name = (path.name for path in sidecar_paths(Path(name)))
    text = text_from_cache(calibration.cache)
    files.stage(name).write_text(text, encoding="utf-8", newline="\n")
    statistics = hdf5_from_statistics(calibration.statistics)
    files.stage(statistics_name).write_bytes(statistics)
    digests = {
        name: hashlib.sha256(text.encode()).hexdigest(),
        statistics_name: hashlib.sha256(statistics).hexdigest(),
    }
    document = whole_characters(_document_from_calibration(calibration, digests))
    files.stage(provenance_name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def foreign_file(cache: Path) -> Path | None:
    """The first of the files that writing a calibration here would replace and that is not part of a calibration.

    None if there is no such file: the three files are all absent, or the provenance names the other two.
    """
    provenance, statistics = sidecar_paths(cache)
    try:
        owned = {cache.name, statistics.name} <= files_named_by(provenance)
    except (OSError, DocumentError):
        owned = False
    return None if owned else next((path for path in (cache, provenance, statistics) if path.exists()), None)


def read_calibration(cache: Path) -> Calibration:
    """Read a cache with its sidecar files and check that the three belong together.

    Raises:
        CacheError: A file is missing, malformed, or not the one that the provenance describes.
    """
    recover(cache.parent)
    provenance_path, statistics_path = sidecar_paths(cache)
    contents = read_cache(cache)
    try:
        document = read_sidecar(provenance_path)
    except OSError as error:
        raise CacheError(
            f"{provenance_path}: the cache's provenance cannot be read ({error.strerror}); "
            "recalibrate, or use the bare cache with --trust-cache"
        ) from error
    except DocumentError as error:
        raise CacheError(f"{provenance_path}: malformed provenance ({error}); recalibrate") from error
    if document.schema != SCHEMA:
        raise CacheError(f"{provenance_path}: expected schema {SCHEMA}, found {document.schema}; recalibrate")
    for path in (cache, statistics_path):
        if not path.is_file() or sha256_of_files(path) != document.files.get(path.name):
            raise CacheError(
                f"{path}: is not the file that {provenance_path.name} describes (edited, swapped or missing); "
                "recalibrate"
            )
    try:
        statistics = read_statistics(statistics_path)
    except CalibrationError as error:
        raise CacheError(str(error)) from error
    return Calibration(
        contents,
        document.algorithm,
        document.parameters,
        _source_from_document(document.source),
        statistics,
        document.versions,
        tuple(ScalesOfPart(**asdict(part)) for part in document.convergence),
    )


def _source_from_document(document: SourceDocument) -> Source:
    return Source(
        document.model,
        document.data,
        document.preprocessing,
        tuple(ImageRecord(*image) for image in document.images),
        document.paths,
        tuple(document.quarantined),
    )


def _document_from_calibration(calibration: Calibration, digests: Mapping[str, str]) -> dict[str, Any]:
    amax = calibration.cache.amax
    source = calibration.source
    return {
        "schema": SCHEMA,
        "versions": dict(calibration.versions),
        "algorithm": calibration.algorithm,
        "parameters": dict(calibration.parameters),
        "tensors": {
            name: {"amax": amax[name], "min": h.min, "max": h.max, "zeros": h.zeros, "count": h.count}
            for name, h in calibration.statistics.histograms.items()
        }
        or {name: {"amax": value} for name, value in amax.items()},
        "zero_tensors": list(calibration.zero_tensors),
        "convergence": [asdict(part) for part in calibration.convergence],
        "source": {
            "model": source.model,
            "data": source.data,
            "preprocessing": dict(source.preprocessing),
            "paths": dict(source.paths),
            "quarantined": [list(item) for item in source.quarantined],
            "images": [[image.name, image.fingerprint, image.sha256] for image in source.images],
        },
        "files": dict(digests),
    }
