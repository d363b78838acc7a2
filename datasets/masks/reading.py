"""Reading one mask: an image file whose pixels are class numbers."""

from __future__ import annotations

import io
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.decoding import FORMATS, decode_with
from datasets.errors import DatasetError, UnreadableImageError
from datasets.guards.regular_file import whole_file

SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # formats that keep every number
_MOST_BYTES = 256 * 2**20


def mask_from_file(path: Path) -> NDArray[np.int32]:
    """The class number of each pixel, int32 [H, W].

    A palette image holds the numbers themselves, whatever its colours are; a grey one has them as its values. Three
    equal channels are one. Other colours are taken for those of PASCAL VOC's palette.

    Raises:
        DatasetError: The file cannot be read, or its colours are no class numbers.
    """
    try:
        contents = whole_file(str(path), _MOST_BYTES)
        if contents is None:
            raise DatasetError(f"{path}: expected a mask of at most {_MOST_BYTES / 2**20:g} MiB, found a larger file")
        expected = FORMATS[PurePath(path).suffix.lower()]
        found: NDArray[np.int32] = decode_with(_numbers, io.BytesIO(contents), str(path), expected).astype(np.int32)
    except UnreadableImageError as error:
        raise DatasetError(f"{error}; expected a mask of class numbers") from None
    except OSError as error:
        raise DatasetError(f"{path}: the mask cannot be read: {(error.strerror or str(error)).lower()}") from None
    if found.ndim == 2:
        return found
    if (found[..., :1] == found[..., :3]).all():
        return np.ascontiguousarray(found[..., 0])
    return _from_colours(found[..., :3], path)


def _numbers(image: Image.Image) -> NDArray[Any]:
    if image.mode == "LA":
        image = image.convert("L")
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        return np.asarray(image)
    return np.asarray(image.convert("RGB"))


def _from_colours(pixels: NDArray[np.int32], path: Path) -> NDArray[np.int32]:
    """Class numbers of colours out of PASCAL VOC's palette.

    Source: M. Everingham et al., 2010, "The PASCAL Visual Object Classes (VOC) Challenge"; the palette is that of its
    development kit, whose bits go from the number's lowest three to the colours' highest.
    """
    number_of = {_voc_colour(number): number for number in range(256)}
    packed = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    colours, places = np.unique(packed, return_inverse=True)
    numbers = np.array([number_of.get(int(colour), -1) for colour in colours], np.int32)
    if (numbers < 0).any():
        odd = int(colours[int(np.argmax(numbers < 0))])
        raise DatasetError(
            f"{path}: expected class numbers (a grey or palette image), found the colour #{odd:06x}; save masks with "
            "one channel that holds the number of each pixel's class"
        )
    found: NDArray[np.int32] = numbers[places.reshape(packed.shape)]
    return found


def _voc_colour(number: int) -> int:
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((number >> channel) & 1) << (7 - bit)
        number >>= 3
    return channels[0] << 16 | channels[1] << 8 | channels[2]
