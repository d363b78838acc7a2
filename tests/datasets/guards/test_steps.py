"""A small file may ask for much work: reads of a byte each, or hundreds of passes over all pixels."""

import contextlib
import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets.decoding import decode_image
from datasets.errors import UnreadableImageError
from datasets.guards.steps import has_too_many_scans


def progressive_jpeg():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file, format="JPEG", progressive=True)
    return file.getvalue()


def with_scans(jpeg, count):
    """The picture with its last scan repeated, which is how a few bytes keep a decoder busy."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + jpeg[-2:]


def test_a_picture_of_many_scans_is_not_decoded():
    sound = progressive_jpeg()
    assert not has_too_many_scans(sound)
    assert has_too_many_scans(with_scans(sound, 200))
    with pytest.raises(UnreadableImageError, match="a JPEG of over a hundred scans"):
        decode_image(io.BytesIO(with_scans(sound, 200)), "a.jpg", "JPEG")


def test_a_video_behind_a_picture_has_no_scans():
    motion = progressive_jpeg() + b"\xff\xda\0\x08" * 1000
    assert not has_too_many_scans(motion)
    assert decode_image(io.BytesIO(motion), "a.jpg", "JPEG").shape == (64, 64, 3)


class Counted(io.BytesIO):
    """Counts how often it is read."""

    def __init__(self, data):
        super().__init__(data)
        self.reads = itertools.count()

    def read(self, size=-1):
        next(self.reads)
        return super().read(size)


def test_headers_that_are_read_byte_by_byte_have_an_end():
    stream = Counted(b"\xff\xd8\xff" + bytes(4 * 2**20))
    with pytest.raises(UnreadableImageError, match="damaged or truncated JPEG file: its headers take too many steps"):
        decode_image(stream, "a.jpg", "JPEG")
    assert next(stream.reads) < 2**18


@pytest.mark.parametrize("kind", [b"tEXt", b"IDAT", b"abCd"])
def test_a_small_png_takes_no_more_reads_than_it_has_bytes(kind):
    empty = bytes(4) + kind + struct.pack(">I", zlib.crc32(kind))
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    sound = file.getvalue()
    stream = Counted(sound[:33] + 8000 * empty + sound[33:])  # behind the header
    with contextlib.suppress(UnreadableImageError):
        decode_image(stream, "a.png", "PNG")
    assert next(stream.reads) < len(stream.getvalue()) < 100_000
