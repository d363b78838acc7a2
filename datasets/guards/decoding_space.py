"""How much memory decoding takes: what one image may need, and how many pixels threads decode at a time.

A pixel takes 4 bytes in Pillow and 3 as an array, and as much again while it is resized; WebP takes twice that. An
image is therefore bounded by its number of pixels, and so are all images together that are being decoded and resized.
"""

import os
import threading

from PIL import Image

from datasets.errors import DatasetError

LIMIT = "CALIB_MAX_IMAGE_PIXELS"  # an environment variable: it holds for every command, and for the API
_AT_A_TIME = 96 * 2**20  # pixels; one image may exceed it, and is then decoded alone
_SMALL = 2**20  # pixels of an image that needs no turn
_LEAST_WIDTH = 3  # a row costs 12 bytes, however short it is


def most_pixels() -> int | None:
    """The largest number of pixels that is decoded; None for any. It is Pillow's own limit unless a user sets another.

    Raises:
        DatasetError: The environment variable holds no number.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return Image.MAX_IMAGE_PIXELS
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise DatasetError(f"{LIMIT}: expected a number of pixels, such as 200000000, found {text[:40]!r}")
    return int(text)


def bomb(width: int, height: int) -> str:
    """Why an image of this size is not decoded; empty if it may be."""
    limit = most_pixels()
    if limit is None or max(width, _LEAST_WIDTH) * height <= limit:
        return ""
    return (
        f"decompression bomb: {width} x {height} pixels, at most {limit} are decoded; if it is a real image, set "
        f"{LIMIT} to a larger number"
    )


class _Mine(threading.local):
    """What a thread has taken: pixels, and how many blocks it is in."""

    pixels = 0
    depth = 0


class DecodingSpace:
    """Lets threads decode at the same time as long as their images together have a bounded number of pixels."""

    def __init__(self, pixels: int = _AT_A_TIME) -> None:
        """Choose how many pixels are decoded at a time."""
        self._most = self._left = pixels
        self._changed = threading.Condition()
        self._mine = _Mine()

    def turn(self) -> "DecodingSpace":
        """What `take` takes within the block is given back at the end of the outermost block of this thread."""
        return self

    def __enter__(self) -> None:
        self._mine.depth += 1

    def __exit__(self, *_: object) -> None:
        mine = self._mine
        mine.depth -= 1
        if mine.depth or not mine.pixels:
            return
        with self._changed:
            self._left += mine.pixels
            mine.pixels = 0
            self._changed.notify_all()

    def take(self, pixels: int) -> None:
        """Wait until there is space for an image, within a `turn`; what that has taken before counts."""
        if pixels <= _SMALL:
            return
        wanted = min(pixels, self._most) - self._mine.pixels
        if wanted <= 0:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._left >= wanted)
            self._left -= wanted
        self._mine.pixels += wanted


SPACE = DecodingSpace()
