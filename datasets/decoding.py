"""Decoding one stored image into 8-bit RGB pixels, or giving a plain reason why it cannot be decoded.

This calls Pillow's decoders directly instead of `Image.open`. The format is known from the file's name and checked
against its first bytes, so no formats are tried in turn. A decompression bomb is detected from the header, without
`Image.open`'s process-wide Python warning, which threads could not silence safely.
"""

import io
from collections.abc import Callable
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
from datasets.guards.steps import CountedReads, has_too_many_scans

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
}

# JPEG includes MPO, a JPEG with more pictures appended; the plain decoder takes the first.
_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
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
_HEAD_BYTES = 16
_ORIENTATION_TAG = 0x0112
_BAND_PIXELS = 2**22  # larger images become arrays band by band, so that no second copy of the whole is made
# The keys under which Pillow keeps metadata that may hold an orientation; images without them need no EXIF lookup.
_ORIENTATION_KEYS = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})


def decode_image(stream: BinaryIO, name: str, expected: str) -> NDArray[np.uint8]:
    """Decode an image and turn it upright by its EXIF orientation; if it has several frames, take the first.

    Alpha is dropped, not composited, as in torchvision. 16-bit grey is scaled to 8 bits (v / 257, rounded).

    Args:
        stream: A seekable binary stream at its start.
        name: Name of the image in its source, for the error.
        expected: The format that the file name promises, a value of `FORMATS`.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UnreadableImageError: The file is empty, not an image, of another format than expected, damaged or truncated,
            has too many pixels, or has pixels of a type without a defined range.
    """
    pixels: NDArray[np.uint8] = decode_with(lambda image: _rgb_pixels(_upright(image), name), stream, name, expected)
    return pixels


def decode_with(
    pixels: Callable[[Image.Image], NDArray[Any]], stream: BinaryIO, name: str, expected: str
) -> NDArray[Any]:
    """Decode an image as `decode_image` does, but for what its pixels become.

    Args:
        pixels: Makes an array of the loaded image.
        stream: A seekable binary stream at its start.
        name: Name of the image in its source, for the error.
        expected: The format that the file name promises.

    Raises:
        UnreadableImageError: See `decode_image`.
    """
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    found = _format_of(head)
    if found != expected:
        raise UnreadableImageError(name, _format_reason(head, found, expected))
    try:
        with SPACE.turn():
            return pixels(_loaded(stream, name, found))
    except (DatasetError, MemoryError):
        raise
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(name, f"damaged or truncated {found} file: {message}") from error


def _loaded(stream: BinaryIO, name: str, found: str) -> Image.Image:
    # Pillow gets no file name: it would map the file of that name in the working folder instead of reading the stream.
    image: Image.Image = _DECODERS[found](CountedReads(stream))
    reason = bomb(*image.size)
    if reason:
        raise UnreadableImageError(name, reason)
    if found == "JPEG" and isinstance(stream, io.BytesIO) and has_too_many_scans(stream.getvalue()):
        raise UnreadableImageError(name, "a JPEG of over a hundred scans, which takes minutes to decode; convert it")
    SPACE.take(image.width * image.height)
    image.load()
    return image


def _format_of(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}.get(head[8:12], "video or HEIC")
    return next((label for signature, label in _SIGNATURES if head.startswith(signature)), None)


def _format_reason(head: bytes, found: str | None, expected: str) -> str:
    if not head:
        return "empty file (0 bytes)"
    if found is None:
        return f"not an image: the file begins with {head!r}, which no {expected} file does"
    return f"its name says {expected}, but it holds {found}; rename or convert it"


def _upright(image: Image.Image) -> Image.Image:
    if not _ORIENTATION_KEYS.intersection(image.info):
        return image  # TIFF keeps its orientation elsewhere, but Pillow applies it when loading
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - a damaged EXIF block gives no orientation, but the pixels are sound
        return image
    return ImageOps.exif_transpose(image) if orientation != 1 else image


def _rgb_pixels(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise UnreadableImageError(name, "floating-point pixels have no defined range; convert them to 8 or 16 bits")
    image.info.pop("transparency", None)  # otherwise convert() carries a transparent colour over, with a warning
    rows = max(1, _BAND_PIXELS // image.width)
    if rows >= image.height:
        return _rgb_band(image, name)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = _rgb_band(image.crop((0, top, image.width, bottom)), name)
    return pixels


def _rgb_band(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), name)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _from_16_bit(grey: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        reason = f"32-bit integer pixels from {low} to {high}; only 8 and 16 bits can be read, convert them"
        raise UnreadableImageError(name, reason)
    eight = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(eight[:, :, np.newaxis], 3, axis=2)
