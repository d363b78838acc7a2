"""Decoding one stored image into 8-bit RGB pixels, or into all its bits; or a plain reason why it cannot be decoded.

This calls Pillow's decoders directly instead of `Image.open`. The format is known from the file's name and checked
against its first bytes, so no formats are tried in turn. A decompression bomb is detected from the header, without
`Image.open`'s process-wide Python warning, which threads could not silence safely.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from datasets.errors import DatasetError, UnreadableImageError
from datasets.guards.decoding_space import SPACE, bomb
from datasets.guards.steps import READS, CountedReads, has_too_many_scans
from datasets.images.jpeg import common_jpeg
from datasets.images.many_bits import bytes_of_grey_and_alpha, known_bits, low_bytes, many_bits

try:  # part of Pillow since 11.3, if it was built with libavif
    from PIL import AvifImagePlugin

    AVIF = AvifImagePlugin.AvifImageFile if AvifImagePlugin.SUPPORTED else None
except ImportError:
    AVIF = None

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    **({".avif": "AVIF"} if AVIF is not None else {}),
}

# JPEG includes MPO, a JPEG with more pictures appended; the plain decoder takes the first.
_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    **({"AVIF": AVIF} if AVIF is not None else {}),
}

# First bytes of the formats we read, and of formats that are often renamed to one of them by mistake.
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}
_HEAD_BYTES = 16
_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
_STATE_RANGE = "state it as pixel_range = [lowest, highest] in the TOML file of --preprocess"
_ALL_OF_16_BITS = np.iinfo(np.uint16).max
_BAND_PIXELS = 2**22  # larger images become arrays band by band, so that no second copy of the whole is made
# The keys under which Pillow keeps metadata that may hold an orientation; images without them need no EXIF lookup.
_ORIENTATION_KEYS = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})


@dataclass(frozen=True)
class Wanted:
    """What a model takes of an image beyond 8-bit RGB.

    Attributes:
        alpha: The alpha channel.
        any_range: Numbers of any range, because what they mean is stated; otherwise 16 bits without a sign at most.
    """

    alpha: bool = False
    any_range: bool = False


def decode_image(stream: BinaryIO, name: str, expected: str) -> NDArray[np.uint8]:
    """Decode an image and turn it upright by its EXIF orientation; if it has several frames, take the first.

    Alpha is dropped, not composited, as in torchvision. 16 bits are scaled to 8 (v / 257, rounded).

    Args:
        stream: A seekable binary stream at its start.
        name: Name of the image in its source, for the error.
        expected: The format that the file name promises, a value of `FORMATS`.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UnreadableImageError: See `decode_pixels`.
    """
    pixels = decode_pixels(stream, name, expected, None)
    assert pixels.dtype == np.uint8
    return pixels


def decode_pixels(stream: BinaryIO, name: str, expected: str, wanted: Wanted | None) -> NDArray[Any]:
    """Decode an image as `decode_image` does, with all its bits.

    Args:
        stream: A seekable binary stream at its start.
        name: Name of the image in its source, for the error.
        expected: The format that the file name promises, a value of `FORMATS`.
        wanted: What is taken of it; None for 8-bit RGB.

    Returns:
        uint8 [H, W, 3], RGB, or [H, W, 4] with alpha if that is wanted; of more than 8 bits uint16, int32 or float32
        [H, W, 1] for grey, uint16 [H, W, 2] for grey and alpha, or uint16 [H, W, 3 or 4].

    Raises:
        UnreadableImageError: The file is empty, not an image, of another format than expected, damaged or truncated,
            has too many pixels, or has pixels of a type without a defined range.
    """
    return _guarded(lambda found: _decoded(stream, name, found, wanted), stream, name, expected)


def decode_with(
    pixels: Callable[[Image.Image], NDArray[Any]], stream: BinaryIO, name: str, expected: str
) -> NDArray[Any]:
    """Decode an image whose pixels are no colours, such as a mask.

    Args:
        pixels: Makes an array of the loaded image.
        stream: A seekable binary stream at its start.
        name: Name of the image in its source, for the error.
        expected: The format that the file name promises.

    Raises:
        UnreadableImageError: See `decode_pixels`.
    """

    def decoded(found: str) -> NDArray[Any]:
        image = _opened(stream, name, found)
        SPACE.take(image.width * image.height)
        image.load()
        return pixels(image)

    return _guarded(decoded, stream, name, expected)


def _guarded(decoded: Callable[[str], NDArray[Any]], stream: BinaryIO, name: str, expected: str) -> NDArray[Any]:
    """What becomes of a stream that is of the expected format, with a plain reason where it cannot be decoded."""
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    found = _format_of(head)
    if found is None or found != expected:
        raise UnreadableImageError(name, _format_reason(head, found, expected))
    try:
        with SPACE.turn():
            return decoded(found)
    except (DatasetError, MemoryError):
        raise
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(name, f"damaged or truncated {found} file: {message}") from error


def lacks_range(stream: BinaryIO, expected: str) -> bool:
    """Does an image have more than 8 bits a channel, and does its header not tell how many? Decodes no pixel."""
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if expected not in ("PNG", "TIFF") or _format_of(head) != expected:
        return False
    try:
        opened = _DECODERS[expected](CountedReads(stream))
        return many_bits(opened) is not None and not known_bits(opened)
    except Exception:  # noqa: BLE001 - whoever decodes it is told what is wrong
        return False


def _opened(stream: BinaryIO, name: str, found: str) -> ImageFile.ImageFile:
    # Pillow gets no file name: it would map the file of that name in the working folder instead of reading the stream.
    opened = _DECODERS[found](_within_steps(stream, found))
    reason = bomb(*opened.size)
    if reason:
        raise UnreadableImageError(name, reason)
    if found == "JPEG" and isinstance(stream, io.BytesIO) and has_too_many_scans(stream.getvalue()):
        raise UnreadableImageError(name, "a JPEG of over a hundred scans, which takes minutes to decode; convert it")
    return opened


def _within_steps(stream: BinaryIO, found: str) -> Any:  # noqa: ANN401 - what Pillow takes as a file
    """The stream, with an end to reading it in tiny steps.

    Pillow reads at least a byte of the headers of a JPEG or PNG in each step and stops at their end, so a small one
    needs no count, which would take a tenth of the time of decoding a tiny image.
    """
    small = isinstance(stream, io.BytesIO) and stream.getbuffer().nbytes < READS
    if small and found in ("JPEG", "PNG"):
        return stream
    return CountedReads(stream)


def _decoded(stream: BinaryIO, name: str, found: str, wanted: Wanted | None) -> NDArray[Any]:
    alpha = wanted is not None and wanted.alpha
    common = common_jpeg(stream.getvalue()) if found == "JPEG" and isinstance(stream, io.BytesIO) else None
    pixels = common.pixels(alpha=alpha) if common is not None and common.plain else None
    if pixels is not None:
        return pixels
    opened = _opened(stream, name, found)
    if common is not None and not common.plain and _orientation(opened) == _UPRIGHT:
        pixels = common.pixels(alpha=alpha)
        if pixels is not None:
            return pixels
    image: Image.Image = opened
    kind, bits = many_bits(opened), known_bits(opened)
    SPACE.take(image.width * image.height * (1 if kind is None or wanted is None else 2))
    if wanted is not None and kind == "grey and alpha":
        halves = np.asarray(_upright(bytes_of_grey_and_alpha(opened))).astype(np.uint16)
        return (halves[..., ::2] << 8) | halves[..., 1::2]
    if wanted is not None and kind == "colours":
        stream.seek(0)
        low = low_bytes(_DECODERS[found](CountedReads(stream)))
        opened.load()
        high = _rgb_pixels(_upright(opened), name, wanted).astype(np.uint16)
        return (high << 8) | _rgb_pixels(_upright(low), name, wanted)
    image.load()
    image = _upright(image)  # under the same name, so that the other is freed before the array is made
    if wanted is not None and kind == "grey":
        return _many_bits_of_grey(image, name, wanted, bits)
    return _rgb_pixels(image, name, wanted)


def _format_of(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video or HEIC")
    for signature, label in _SIGNATURES:
        if head.startswith(signature):
            return label
    return None


def _format_reason(head: bytes, found: str | None, expected: str) -> str:
    if not head:
        return "empty file (0 bytes)"
    if found is None:
        return f"not an image: the file begins with {head!r}, which no {expected} file does"
    return f"its name says {expected}, but it holds {found}; rename or convert it"


def _upright(image: Image.Image) -> Image.Image:
    return image if _orientation(image) == _UPRIGHT else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> object:
    if not _ORIENTATION_KEYS.intersection(image.info):
        return _UPRIGHT  # TIFF keeps its orientation elsewhere, but Pillow applies it when loading
    try:
        return image.getexif().get(_ORIENTATION_TAG, _UPRIGHT)
    except Exception:  # noqa: BLE001 - a damaged EXIF block gives no orientation, but the pixels are sound
        return _UPRIGHT


def _rgb_pixels(image: Image.Image, name: str, wanted: Wanted | None) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise UnreadableImageError(name, f"floating-point pixels have no defined range; {_STATE_RANGE}")
    mode = "RGBA" if wanted is not None and wanted.alpha else "RGB"
    if mode == "RGB":
        image.info.pop("transparency", None)  # otherwise convert() carries a transparent colour over, with a warning
    rows = max(1, _BAND_PIXELS // image.width)
    if rows >= image.height:
        return _rgb_band(image, name, mode)
    pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = _rgb_band(image.crop((0, top, image.width, bottom)), name, mode)
    return pixels


def _rgb_band(image: Image.Image, name: str, mode: str) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        _check_16_bits(grey, name)
        return np.repeat(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _many_bits_of_grey(image: Image.Image, name: str, wanted: Wanted, bits: int) -> NDArray[Any]:
    grey = np.asarray(image)[:, :, np.newaxis]
    if wanted.any_range:
        return grey.astype(grey.dtype.newbyteorder("="), copy=False)
    if grey.dtype.kind == "f":
        raise UnreadableImageError(name, f"floating-point pixels have no defined range; {_STATE_RANGE}")
    _check_16_bits(grey, name)
    if bits:  # as if they were all of 16
        grey = np.rint(grey.astype(np.float32) * (_ALL_OF_16_BITS / (2**bits - 1)))
    pixels: NDArray[np.uint16] = grey.astype(np.uint16, copy=False)
    return pixels


def _check_16_bits(grey: NDArray[np.generic], name: str) -> None:
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > _ALL_OF_16_BITS:
        raise UnreadableImageError(name, f"integer pixels from {low} to {high}, which no type tells; {_STATE_RANGE}")
