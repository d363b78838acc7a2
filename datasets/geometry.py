"""Resizing uint8 images with Pillow's filters: scale and crop, stretch, or letterbox."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


def stretched(image: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """The image (uint8 [H, W, 3]) resized to size (height, width), whatever its aspect ratio."""
    height, width = size
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), _FILTERS[interpolation]))


def scaled_and_cropped(
    image: NDArray[np.uint8], size: tuple[int, int], fraction: float, interpolation: str
) -> NDArray[np.uint8]:
    """Scale the image until it just covers size / fraction, then crop the centre.

    For a square size this is torchvision's Resize(round(size / fraction)) and CenterCrop(size), with its rounding: the
    longer side is rounded down to whole pixels, and the crop's corner is rounded half to even.
    """
    height, width = image.shape[:2]
    cover_height, cover_width = (round(side / fraction) for side in size)
    if width * cover_height >= height * cover_width:  # wider than the target: the height decides
        scaled = cover_height, cover_height * width // height
    else:
        scaled = cover_width * height // width, cover_width
    top, left = (round((side - target) / 2) for side, target in zip(scaled, size, strict=True))
    return stretched(image, scaled, interpolation)[top : top + size[0], left : left + size[1]]


def letterboxed(
    image: NDArray[np.uint8], size: tuple[int, int], pad_value: int, interpolation: str
) -> NDArray[np.uint8]:
    """Scale the image, keeping its aspect ratio, to just fit into size; centre it and fill the rest with pad_value."""
    height, width = image.shape[:2]
    factor = min(size[0] / height, size[1] / width)
    inner = tuple(min(target, max(1, round(side * factor))) for side, target in zip((height, width), size, strict=True))
    top, left = ((target - side) // 2 for side, target in zip(inner, size, strict=True))
    out = np.full((*size, 3), pad_value, np.uint8)
    out[top : top + inner[0], left : left + inner[1]] = stretched(image, (inner[0], inner[1]), interpolation)
    return out
