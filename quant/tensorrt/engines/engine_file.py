"""What an engine file was built from, in a sidecar beside it: an engine that no longer fits is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from calib.documents import DocumentError, document_from_json
from calib.regular_files import bytes_of_file
from calib.texts import whole_characters
from quant.errors import BuildError
from quant.settings.output_names import description_name

SCHEMA = 1


class StaleEngineError(BuildError):
    """An engine file was built from, by or for something other than what is wanted; rebuild it.

    Attributes:
        reason: What does not fit; the message adds that it must be rebuilt.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; rebuild"


@dataclass(frozen=True)
class EngineIdentity:
    """What determines an engine.

    Attributes:
        tensorrt: TensorRT's version; "for RTX" and its version for TensorRT for RTX.
        gpu: Name of the GPU; empty where the engine was built without one.
        compute_capability: The GPU's compute capability, such as "9.0".
        model: SHA-256 of the ONNX file.
        precision: fp32, fp16 or int8.
        scales: SHA-256 of the INT8 scales; empty for other precisions.
        batch: Batch sizes, such as "64" or "1:8:64".
        options: Everything else that was asked of the builder, as text.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    model: str
    precision: str
    scales: str
    batch: str
    options: str


_WORDS = {
    "tensorrt": "TensorRT",
    "gpu": "the GPU",
    "compute_capability": "the GPU's compute capability",
    "model": "the model (SHA-256)",
    "precision": "the precision",
    "scales": "the calibration cache (SHA-256 of its scales)",
    "batch": "the batch size",
    "options": "the build options",
}


def scales_sha256(scales: Mapping[str, float]) -> str:
    """Hash of INT8 scales, whatever their order."""
    text = "\n".join(f"{name}: {scales[name].hex()}" for name in sorted(scales))
    return hashlib.sha256(text.encode()).hexdigest()


def sidecar_path(engine: Path) -> Path:
    """Path of an engine's description."""
    return engine.with_name(description_name(engine.name))


def sidecar_text(identity: EngineIdentity, data: bytes, details: Mapping[str, Any], *, measured: bool = True) -> str:
    """The description to write beside an engine.

    Args:
        identity: What it was built from.
        data: The serialised engine.
        details: Other details to keep: layers, device memory.
        measured: Whether whoever built it also ran it: a run does, `calib build` does not.
    """
    document = {
        "schema": SCHEMA,
        "measured": measured,
        "engine": hashlib.sha256(data).hexdigest(),
        "identity": asdict(identity),
        "details": dict(details),
    }
    return json.dumps(whole_characters(document), indent=1) + "\n"


def read_description(path: Path, sha256: str) -> tuple[EngineIdentity, Mapping[str, Any]] | None:
    """What an engine was built from, and its other details; None if there is no description beside it.

    Args:
        path: Path of the engine.
        sha256: Hash of its contents, which the caller that reads the file computes once.

    Raises:
        StaleEngineError: The description belongs to another engine, or is not a description.
    """
    if not sidecar_path(path).exists():
        return None
    identity, digest, details = _parsed(sidecar_path(path))
    _check_digest(path, sha256, digest)
    return identity, details


def _check_digest(path: Path, found: str, described: str) -> None:
    if found != described:
        raise StaleEngineError(f"{path}: is not the engine that {sidecar_path(path).name} describes")


@dataclass(frozen=True)
class _Description:
    """What is read of a description."""

    schema: int
    engine: str
    identity: EngineIdentity
    details: dict[str, Any]


def _parsed(sidecar: Path) -> tuple[EngineIdentity, str, Mapping[str, Any]]:
    """Identity, SHA-256 of the engine, details."""
    try:
        document = document_from_json(_Description, bytes_of_file(sidecar))
    except OSError as error:
        raise StaleEngineError(f"{sidecar}: cannot be read: {error.strerror}") from error
    except DocumentError as error:
        raise StaleEngineError(
            f"{sidecar}: expected an engine's description, found something else ({error})"
        ) from error
    if document.schema != SCHEMA:
        raise StaleEngineError(f"{sidecar}: expected schema {SCHEMA}, found {document.schema}")
    return document.identity, document.engine, document.details


def read_engine(path: Path, wanted: EngineIdentity) -> bytes:
    """The bytes of an engine that fits.

    Raises:
        StaleEngineError: It does not fit; the message names what differs, with both values.
    """
    found, digest, _ = _parsed(sidecar_path(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StaleEngineError(f"{error.filename}: cannot be read: {error.strerror}") from error
    _check_digest(path, hashlib.sha256(data).hexdigest(), digest)
    changed = [
        f"{_WORDS[field.name]} was {_short(getattr(found, field.name))}, now {_short(getattr(wanted, field.name))}"
        for field in fields(EngineIdentity)
        if getattr(found, field.name) != getattr(wanted, field.name)
    ]
    if changed:
        raise StaleEngineError(f"{path}: stale engine: {'; '.join(changed)}")
    return data


def _short(text: str) -> str:
    return f"{text[:12]}..." if len(text) == 64 else text or "none"
