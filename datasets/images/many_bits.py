"""Images of more than 8 bits a channel, of which Pillow keeps all bits of grey, but only 8 of colours."""

from __future__ import annotations

import sys
from typing import Any, Literal

from PIL import Image, ImageFile

# Pillow takes one byte of each pair, and the name of the order says which; the opposite order gives the other byte.
_OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_COLOURS = ("RGB", "RGBA", "RGBX")
_GREY_AND_ALPHA = "LA;16B"
_TWELVE = "I;12"  # of TIFF, two pixels in three bytes


def many_bits(image: ImageFile.ImageFile) -> Literal["grey", "grey and alpha", "colours"] | None:
    """Where the bits beyond 8 of an opened image are: in grey pixels, or in colours, of which Pillow drops them.

    None for images of 8 bits, and for kinds of 16 bits whose other bytes Pillow cannot be asked for, such as CMYK.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return "grey"
    if [_raw_mode(tile[3]) for tile in image.tile] == [_GREY_AND_ALPHA]:
        return "grey and alpha"
    orders = [_raw_mode(tile[3]).partition(";") for tile in image.tile]
    deep = [mode in _COLOURS and order in _OTHER_ORDER for mode, _, order in orders]
    return "colours" if deep and all(deep) else None


def known_bits(image: ImageFile.ImageFile) -> int:
    """How many bits of 16 an opened image uses, where its header tells that it is fewer; 0 where it does not."""
    return 12 if [_raw_mode(tile[3]) for tile in image.tile] == [_TWELVE] else 0


def bytes_of_grey_and_alpha(image: ImageFile.ImageFile) -> Image.Image:
    """An image of 16-bit grey and alpha, decoded to its four bytes a pixel: of grey, the upper first, then of alpha.

    They have the places of the four bytes of an ordinary pixel with alpha, so it can be decoded as such.
    """
    (tile,) = image.tile
    tiles: list[Any] = [(*tile[:3], "RGBA")]
    image.tile = tiles
    image.load()
    return image


def low_bytes(image: ImageFile.ImageFile) -> Image.Image:
    """The lower bytes of an image whose colours have 16 bits, decoded; the image itself, as opened, gives the upper."""
    tiles: list[Any] = [(*tile[:3], _swapped(tile[3])) for tile in image.tile]
    image.tile = tiles
    image.load()
    return image


def _raw_mode(arguments: Any) -> str:  # noqa: ANN401 - a text, or a tuple that begins with it
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _swapped(arguments: Any) -> Any:  # noqa: ANN401 - as above
    mode, _, order = _raw_mode(arguments).partition(";")
    swapped = f"{mode};{_OTHER_ORDER[order]}"
    return (swapped, *arguments[1:]) if isinstance(arguments, tuple) else swapped
