"""JPEG files of the common kinds, decoded without Pillow where the pixels are the same.

Pillow reads a JPEG's headers in Python, under the interpreter's lock, which takes several times as long as decoding a
tiny image. simplejpeg hands the whole file to libjpeg-turbo, with which Pillow's wheels decode too, and lets go of the
lock meanwhile.

Pillow still decides what is readable, and says why not. A file is decoded here only if its headers hold nothing that
Pillow would heed or refuse, and if libjpeg-turbo does not even warn of its data; the others are Pillow's. As Pillow may
have been built with another library, both decode a small image of each kind first, and a kind whose pixels differ is
Pillow's as well.
"""

import importlib
import io
from collections.abc import Callable, Iterator
from functools import cache, partial
from struct import Struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from datasets.guards.decoding_space import SPACE, bomb
from datasets.guards.steps import has_too_many_scans, scans_of

_MOST_SEGMENTS = 256  # before the first scan; encoders write about ten, and a large colour profile takes some more
_START = b"\xff\xd8"
_SEGMENT = Struct(">BBH")  # 0xFF, the marker, and the length, which counts its own two bytes
_FRAME = Struct(">BHHB")  # bits of a value, height, width, number of components; then 3 bytes for each of these
_SCAN = 0xDA
_ADOBE = 0xEE
_FRAMES = {0xC0: False, 0xC1: False, 0xC2: True}  # Huffman-coded DCT, and whether it is progressive
# Tables, restart intervals, comments, makers' own data: what Pillow refuses in these, libjpeg-turbo refuses too.
_FREE = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE3, 0xED), 0xEF))
# Of JFIF and colour profiles Pillow reads the first bytes, and refuses a file that lacks them.
_LEAST_BYTES = {0xE0: 14, 0xE2: 14}
# EXIF and XMP may turn the picture; Photoshop's resources Pillow reads to their end.
_FOR_PILLOW = frozenset((0xE1, 0xED))
_ALL_COEFFICIENTS = 2**64 - 1  # of a block, a bit for each
_GREY = "grey"
_SAMPLINGS = {0x11: "4:4:4", 0x21: "4:2:2", 0x22: "4:2:0"}  # of the luma, horizontal and vertical, in half bytes


class Kind(NamedTuple):
    """What decides how pixels come out of a JPEG's numbers.

    Attributes:
        sampling: How colours are subsampled, `4:2:0` for one; `grey` without colours.
        progressive: Is the picture refined scan by scan?
    """

    sampling: str
    progressive: bool


_KINDS = [Kind(sampling, progressive) for sampling in (_GREY, *_SAMPLINGS.values()) for progressive in (False, True)]


class CommonJpeg(NamedTuple):
    """A JPEG file of a common kind.

    Attributes:
        data: The whole file.
        width: Pixels.
        height: Pixels.
        kind: How it is coded.
        plain: Do its headers hold nothing that Pillow would have to read, such as an orientation?
    """

    data: bytes
    width: int
    height: int
    kind: Kind
    plain: bool

    def pixels(self, *, alpha: bool = False) -> NDArray[np.uint8] | None:
        """The pixels as Pillow gives them; None if that is for Pillow to find out. To be called in a turn of `SPACE`.

        Args:
            alpha: Add a channel of 255.

        Returns:
            uint8 [H, W, 3 or 4], as they are stored, whatever the orientation.
        """
        if not is_same_as_pillow(self.kind) or bomb(self.width, self.height) or has_too_many_scans(self.data):
            return None
        if self.kind.progressive and not _is_complete(self.data, 1 if self.kind.sampling == _GREY else 3):
            return None
        SPACE.take(self.width * self.height)
        return _decoded(self.data, "RGBA" if alpha else "RGB")


def common_jpeg(data: bytes) -> CommonJpeg | None:
    """What the headers of a JPEG say up to its first scan; None unless they are whole and of a common kind."""
    frame, plain = None, True
    for marker, start, end in _segments(data):
        if marker in _FREE:
            continue
        if marker == _SCAN:
            return None if frame is None else CommonJpeg(data, *frame, plain)
        if marker in _FRAMES and frame is None:
            frame = _frame(data[start:end], progressive=_FRAMES[marker])
            if frame is None:
                return None
        elif marker in _LEAST_BYTES:
            plain = plain and end - start >= _LEAST_BYTES[marker]
        elif marker in _FOR_PILLOW:
            plain = False
        elif marker != _ADOBE or not _is_adobe_ycc(data[start:end]):
            return None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Markers of the segments, and where their contents begin and end; up to what is no segment."""
    at = len(_START) if data.startswith(_START) else len(data)
    for _ in range(_MOST_SEGMENTS):
        if at + _SEGMENT.size > len(data):
            return
        first, marker, length = _SEGMENT.unpack_from(data, at)
        end = at + 2 + length
        if first != 0xFF or length < 2 or end > len(data):
            return
        yield marker, at + _SEGMENT.size, end
        at = end


def _frame(header: bytes, *, progressive: bool) -> tuple[int, int, Kind] | None:
    """Width, height and kind out of a frame header; None if it is not of a common kind."""
    if len(header) < _FRAME.size:
        return None
    bits, height, width, components = _FRAME.unpack_from(header)
    if bits != 8 or not (height and width) or len(header) != _FRAME.size + 3 * components:
        return None
    identities, samplings = header[6::3], header[7::3]
    if samplings == b"\x11":
        return width, height, Kind(_GREY, progressive)
    if len(samplings) == 3 and samplings[0] in _SAMPLINGS and samplings[1:] == b"\x11\x11" and identities != b"RGB":
        return width, height, Kind(_SAMPLINGS[samplings[0]], progressive)
    return None


def _is_adobe_ycc(segment: bytes) -> bool:
    """Whether Adobe's segment says that the colours are YCbCr."""
    return segment[:5] == b"Adobe" and segment[11:12] == b"\x01"


def _is_complete(jpeg: bytes, components: int) -> bool:
    """Whether the scans of a progressive JPEG bring all coefficients of all components, to the last bit.

    What they leave out is smoothed over by libjpeg-turbo, and its versions differ in that.
    """
    known: dict[int, int] = {}
    for start in scans_of(jpeg):
        header = jpeg[start + 3 : start + int.from_bytes(jpeg[start : start + 2], "big")]
        if len(header) < 3:
            return False
        lowest, highest, bits = header[-3:]
        if lowest <= highest < 64 and not bits & 0x0F:  # down to bit 0
            for component in header[:-3:2]:
                known[component] = known.get(component, 0) | (2 << highest) - (1 << lowest)
    return list(known.values()) == [_ALL_COEFFICIENTS] * components


def in_use() -> tuple[str, str]:
    """The version of simplejpeg, and why it does not decode, for people; the reason is empty if it does."""
    try:
        version = str(importlib.import_module("simplejpeg").__version__)
        _decoder()
    except Exception as error:  # noqa: BLE001 - see `is_same_as_pillow`
        return "", f"it cannot be imported: {error}"
    others = [kind for kind in _KINDS if not is_same_as_pillow(kind)]
    names = ", ".join(f"{kind.sampling}{' progressive' if kind.progressive else ''}" for kind in others)
    return version, f"its pixels are not those of Pillow's library for {names}" if others else ""


@cache
def is_same_as_pillow(kind: Kind) -> bool:
    """Whether simplejpeg can be used, and decodes a trial image of a kind as Pillow does."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (27, 37, 3), dtype=np.uint8))
    try:
        file = io.BytesIO()
        if kind.sampling == _GREY:
            noise.convert("L").save(file, "JPEG", progressive=kind.progressive)
        else:
            noise.save(file, "JPEG", subsampling=kind.sampling, progressive=kind.progressive)
        trial = file.getvalue()
        expected = np.asarray(JpegImagePlugin.JpegImageFile(io.BytesIO(trial)).convert("RGB"))
        return np.array_equal(_decoder()(trial, "RGB"), expected)
    except Exception:  # noqa: BLE001 - a library that does not fit this machine may raise anything; Pillow does without
        return False


@cache
def _decoder() -> Callable[[bytes, str], NDArray[np.uint8]]:
    """What makes pixels of a file and the names of the channels; exact, and refusing what libjpeg-turbo warns of."""
    decode_jpeg = importlib.import_module("simplejpeg").decode_jpeg
    return partial(decode_jpeg, fastdct=False, fastupsample=False, strict=True)


def _decoded(jpeg: bytes, colours: str) -> NDArray[np.uint8] | None:
    try:
        return _decoder()(jpeg, colours)
    except (ValueError, RuntimeError):  # damaged, or a warning of libjpeg's, whose words are not those that users read
        return None
