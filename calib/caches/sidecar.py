"""The form of `calibration.json`, as it is checked when it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calib.documents import document_from_json
from calib.regular_files import bytes_of_file

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class SourceDocument:
    """Part `source`; see `calib.caches.provenance.Source`. An image is its name, fingerprint and SHA-256."""

    model: str
    data: str
    preprocessing: dict[str, Any]
    images: list[tuple[str, str, str]]
    quarantined: list[tuple[str, str]]
    paths: dict[str, str]


@dataclass(frozen=True)
class FilesDocument:
    """Part `files`: SHA-256 of the cache and of the statistics by name."""

    files: dict[str, str]


@dataclass(frozen=True)
class ConvergenceDocument:
    """An entry of part `convergence`; see `calib.caches.convergence.ScalesOfPart`."""

    images: int
    tensors: int
    moved: int
    largest: float
    median: float
    tensor: str
    noise_db: float


@dataclass(frozen=True)
class SidecarDocument(FilesDocument):
    """What is read of the whole file."""

    schema: int
    algorithm: str
    parameters: dict[str, Scalar]
    versions: dict[str, str]
    source: SourceDocument
    convergence: list[ConvergenceDocument] = field(default_factory=list)


def read_sidecar(path: Path) -> SidecarDocument:
    """Read a sidecar and check its form.

    Raises:
        OSError: It cannot be read.
        DocumentError: It has another form.
    """
    return document_from_json(SidecarDocument, bytes_of_file(path))


def files_named_by(path: Path) -> frozenset[str]:
    """Names of the files that a sidecar describes.

    Raises:
        OSError: It cannot be read.
        DocumentError: It has another form.
    """
    return frozenset(document_from_json(FilesDocument, bytes_of_file(path)).files)
