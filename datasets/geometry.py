"""Resizing uint8 images with Pillow's filters: scale and crop, stretch, or letterbox."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

Corner = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """Where an image lies in a model's input: a point (x, y) of it is at (x, y) * scale + corner there.

    Attributes:
        scale: Of x and y, pixels of the input for one of the image.
        corner: x and y of the image's corner in the input, pixels; negative where it is cropped away.
        size: Width and height of the image, pixels.
    """

    scale: tuple[float, float]
    corner: tuple[float, float]
    size: tuple[int, int]

    def in_image(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes [D, 4] (left, top, right, bottom) in the image's pixels and within it, from those in the input's."""
        found = (boxes - np.array(self.corner * 2)) / np.array(self.scale * 2)
        inside: NDArray[np.float64] = np.clip(found, 0, np.array(self.size * 2, np.float64))
        return inside


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
    scaled, (top, left) = crop_frame(image.shape[:2], size, fraction)
    return stretched(image, scaled, interpolation)[top : top + size[0], left : left + size[1]]


def crop_frame(shape: tuple[int, ...], size: tuple[int, int], fraction: float) -> tuple[tuple[int, int], Corner]:
    """Size (height, width) that an image is scaled to, and the corner (top, left) of the crop in it."""
    height, width = shape[:2]
    cover_height, cover_width = (round(side / fraction) for side in size)
    if width * cover_height >= height * cover_width:  # wider than the target: the height decides
        scaled = cover_height, cover_height * width // height
    else:
        scaled = cover_width * height // width, cover_width
    top, left = (round((side - target) / 2) for side, target in zip(scaled, size, strict=True))
    return scaled, (top, left)


def letterboxed(
    image: NDArray[np.uint8], size: tuple[int, int], pad_value: int, interpolation: str
) -> NDArray[np.uint8]:
    """Scale the image, keeping its aspect ratio, to just fit into size; centre it and fill the rest with pad_value."""
    inner, (top, left) = letterbox_frame(image.shape[:2], size)
    out = np.full((*size, 3), pad_value, np.uint8)
    out[top : top + inner[0], left : left + inner[1]] = stretched(image, inner, interpolation)
    return out


def letterbox_frame(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[tuple[int, int], Corner]:
    """Size (height, width) that an image is scaled to, and its corner (top, left) within the border."""
    factor = min(target / side for side, target in zip(shape[:2], size, strict=True))
    height, width = (min(target, max(1, round(side * factor))) for side, target in zip(shape[:2], size, strict=True))
    return (height, width), ((size[0] - height) // 2, (size[1] - width) // 2)
