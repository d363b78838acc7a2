"""How much work a small image file may ask for: reads of its headers, and passes over its pixels."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

READS = 100_000  # far more than any header takes; and one more for each
_BYTES_OF_A_READ = 1024  # of the file, though decoders read 64 times as much at a time
_SCANS = 100  # of a JPEG; encoders write about ten
_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_END = 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)


class CountedReads:
    """A binary stream that ends reading it in tiny steps: of a gigabyte of zeros, say, in search of a marker."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = READS + stream.seek(0, 2) // _BYTES_OF_A_READ
        stream.seek(0)

    def read(self, size: int = -1) -> bytes:
        """As of the stream.

        Raises:
            ValueError: There have been too many reads.
        """
        self._left -= 1
        if self._left < 0:
            raise ValueError("its headers take too many steps to read")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)


def has_too_many_scans(jpeg: bytes) -> bool:
    """Whether a JPEG consists of more scans than any encoder writes; each, however short, passes over all pixels.

    What follows the picture (a video, in motion photos) holds the marker of a scan by chance and is not counted.
    """
    if jpeg.count(_SCAN) <= _SCANS:
        return False
    return next(islice(scans_of(jpeg), _SCANS, None), None) is not None


def scans_of(jpeg: bytes) -> Iterator[int]:
    """Where the headers of a JPEG's scans begin, at their lengths, behind the markers; up to the picture's end."""
    at = 0
    while (found := _MARKER.search(jpeg, at)) is not None:
        marker, at = jpeg[found.start() + 1], found.end()
        if marker == _END:
            return
        if marker == _SCAN[1]:
            yield at
        if marker not in _WITHOUT_LENGTH:
            at += max(int.from_bytes(jpeg[at : at + 2], "big"), 2)
