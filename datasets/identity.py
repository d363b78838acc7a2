"""Identifying the data that a result was made from: SHA-256 over the contents; unchanged files are not read again."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import UnreadableImageError
from datasets.source import PiecewiseSource, Source


@dataclass(frozen=True)
class ImageIdentity:
    """The identity of one sample.

    Attributes:
        name: Name of the sample in its source.
        fingerprint: Changes when the stored sample may have changed.
        sha256: SHA-256 of the stored bytes, hex.
    """

    name: str
    fingerprint: str
    sha256: str


@dataclass(frozen=True)
class DataIdentity:
    """The identity of an ordered selection of samples.

    Attributes:
        entries: One identity per sample, in order.
        sha256: SHA-256 over the samples' digests in order, each as hex and a line feed; names do not count.
        hashed: Number of samples whose contents had to be read.
    """

    entries: tuple[ImageIdentity, ...]
    sha256: str
    hashed: int


def sha256_of_sample(source: Source, index: int) -> str:
    """SHA-256 (hex) of a sample's stored bytes, read in pieces if the source gives such.

    Raises:
        UnreadableImageError: They cannot be read.
    """
    return _sha256(_pieces_of(source)(index))


def _pieces_of(source: Source) -> Callable[[int], Iterable[bytes]]:
    """What gives a sample's stored bytes; to be asked once for many, as a protocol's check takes as long as hashing."""
    return source.pieces if isinstance(source, PiecewiseSource) else lambda index: (source.content(index),)


def _sha256(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def identify(
    source: Source, indices: Sequence[int] | NDArray[np.int64], known: Iterable[ImageIdentity] = ()
) -> DataIdentity:
    """Identify samples by their contents.

    If the name and fingerprint of a sample equal those of a known one, the known digest is used and the sample is not
    read. Git's index works the same way.

    Raises:
        UnreadableImageError: A sample's bytes cannot be read at all; damaged images are hashed like any other.
    """
    digests = {(entry.name, entry.fingerprint): entry.sha256 for entry in known}
    entries: list[ImageIdentity] = []
    hashed = 0
    whole = hashlib.sha256()
    pieces = _pieces_of(source)
    for index in (int(index) for index in indices):
        name, fingerprint = source.names[index], source.fingerprint(index)
        digest = digests.get((name, fingerprint))
        if digest is None:
            digest = _sha256(pieces(index))
            hashed += 1
        entries.append(ImageIdentity(name, fingerprint, digest))
        whole.update(f"{digest}\n".encode())
    return DataIdentity(tuple(entries), whole.hexdigest(), hashed)


def contents(source: Source, known: Iterable[ImageIdentity] = ()) -> list[str | None]:
    """SHA-256 of each sample's stored bytes, in order; None for a sample that cannot be read.

    Args:
        source: The samples.
        known: Digests that stay valid as long as the name and fingerprint of a sample are the same.
    """
    known = tuple(known)
    digests = {(entry.name, entry.fingerprint): entry for entry in known}
    found: list[str | None] = []
    pieces = _pieces_of(source)
    for index in range(len(source)):
        try:
            entry = digests.get((source.names[index], source.fingerprint(index)))
            found.append(_sha256(pieces(index)) if entry is None else entry.sha256)
        except UnreadableImageError:
            found.append(None)
    return found
