"""Images of more than 8 bits a channel, of which Pillow keeps all bits of grey, but only 8 of colours."""

from __future__ import annotations

import sys
from typing import Any, Literal

from PIL import Image, ImageFile

# Pillow takes one byte of each pair, and the name of the order says which; the opposite order gives the other byte.
_OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_COLOURS = ("RGB", "RGBA", "RGBX")


def many_bits(image: ImageFile.ImageFile) -> Literal["grey", "colours"] | None:
    """Where the bits beyond 8 of an opened image are: in grey pixels, or in colours, of which Pillow drops them.

    None for images of 8 bits, and for kinds of 16 bits whose other bytes Pillow cannot be asked for, such as CMYK.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return "grey"
    orders = [_raw_mode(tile[3]).partition(";") for tile in image.tile]
    deep = [mode in _COLOURS and order in _OTHER_ORDER for mode, _, order in orders]
    return "colours" if deep and all(deep) else None


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
