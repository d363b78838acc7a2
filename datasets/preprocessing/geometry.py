"""Resizing images with Pillow's filters: scale and crop, stretch, or letterbox."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

_POINTS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}  # of a point's neighbours

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


_REACH = 2  # of the widest filter, bicubic, where it does not reduce
_OWN_PIXELS = 2**24  # a result or a step that is not larger needs no other way, whatever the shape of the image

Box = tuple[int, int, int, int]  # top, left, bottom, right
Part = tuple[float, float, float, float]  # left, top, right, bottom
Image3 = NDArray[Any]  # uint8 or float32 [H, W, 3 or 4]


@dataclass(frozen=True)
class Resizer:
    """Resizes with a filter of Pillow's.

    Attributes:
        interpolation: Its name.
        antialias: When scaling down, does the filter reach over all pixels that become one? Otherwise it takes those
            next to each point alone, as OpenCV does.
    """

    interpolation: str
    antialias: bool = True

    def __call__(self, image: Image3, size: tuple[int, int], part: Part | None = None) -> Image3:
        """An image at another size.

        Args:
            image: uint8 or float32 [H, W, 3 or 4].
            size: Height and width of the result.
            part: Left, top, right and bottom of what is resized, pixels; None for all of it.
        """
        if self.antialias or self.interpolation == "nearest":
            if image.dtype == np.uint8 and image.shape[2] == 3:
                return np.asarray(self._resized(image, size, part))
            # Pillow has float pixels in one channel only, and would multiply colours by alpha.
            return np.stack([np.asarray(self._resized(plane, size, part)) for plane in _planes(image)], axis=2)
        planes = [np.asarray(self._at_points(plane, size, part)) for plane in _planes(image)]
        found = np.stack(planes, axis=2)
        return (
            np.rint(np.clip(found, 0, 255, out=found), out=found).astype(np.uint8) if image.dtype == np.uint8 else found
        )

    def _resized(self, pixels: Image3, size: tuple[int, int], part: Part | None) -> Image.Image:
        return Image.fromarray(pixels).resize(size[::-1], _FILTERS[self.interpolation], part)

    def _at_points(self, plane: Image3, size: tuple[int, int], part: Part | None) -> Image.Image:
        # As floats: Pillow cuts off the fractions of bytes here, which darkens the image by half a level.
        image = Image.fromarray(plane.astype(np.float32, copy=False))
        box = part or (0, 0, image.width, image.height)
        return image.transform(size[::-1], Image.Transform.EXTENT, box, _POINTS[self.interpolation])


def _planes(image: Image3) -> list[Image3]:
    return [np.ascontiguousarray(image[..., channel]) for channel in range(image.shape[2])]


def stretched(image: Image3, size: tuple[int, int], resizer: Resizer) -> Image3:
    """The image resized to size (height, width), whatever its aspect ratio."""
    height, width = size
    if image.shape[:2] == size:
        return image
    if image.shape[0] * width > max(_OWN_PIXELS, 2 * image.size):
        # Pillow scales the width first. Of a narrow and very tall image, that would make something far larger.
        image = resizer(image, (height, image.shape[1]))
    return resizer(image, (height, width))


def scaled_and_cropped(image: Image3, size: tuple[int, int], fraction: float, resizer: Resizer) -> Image3:
    """Scale the image until it just covers size / fraction, then crop the centre.

    For a square size this is torchvision's Resize(round(size / fraction)) and CenterCrop(size), with its rounding: the
    longer side is rounded down to whole pixels, and the crop's corner is rounded half to even.
    """
    scaled, (top, left) = crop_frame(image.shape[:2], size, fraction)
    cover_height, cover_width = (round(side / fraction) for side in size)
    if scaled[0] * scaled[1] > max(_OWN_PIXELS, 2 * cover_height * cover_width):
        return _part_of_stretched(image, scaled, (top, left, top + size[0], left + size[1]), resizer)
    kept = stretched(image, scaled, resizer)[top : top + size[0], left : left + size[1]]
    # A view keeps all of the resized image alive, and those of a whole batch together may be large.
    return kept.copy() if scaled[0] * scaled[1] > 4 * size[0] * size[1] else kept


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


def _part_of_stretched(image: Image3, scaled: tuple[int, int], kept: Box, resizer: Resizer) -> Image3:
    """Part of an image as it were resized, made from the pixels that this part is made of.

    The values are those of the whole resized image but for the rounding of positions, which may change a few by 1.

    Args:
        image: uint8 or float32 [H, W, 3 or 4].
        scaled: Height and width of the whole resized image.
        kept: The part.
        resizer: The filter.
    """
    starts, ends, boxes = [], [], []
    for side, target, first, last in zip(image.shape, scaled, kept[:2], kept[2:], strict=False):
        step = side / target  # source pixels for one of the result
        reach = _REACH * max(step, 1)  # a filter's, in source pixels
        starts.append(max(math.floor(first * step - reach), 0))
        ends.append(min(math.ceil(last * step + reach), side))
        boxes.append((first * step - starts[-1], min(last * step, ends[-1]) - starts[-1]))
    part = np.ascontiguousarray(image[starts[0] : ends[0], starts[1] : ends[1]])
    (top, bottom), (left, right) = boxes
    return resizer(part, (kept[2] - kept[0], kept[3] - kept[1]), (left, top, right, bottom))


def letterboxed(image: Image3, size: tuple[int, int], pad_value: int, resizer: Resizer) -> Image3:
    """Scale the image, keeping its aspect ratio, to just fit into size; centre it and fill the rest with pad_value."""
    inner, (top, left) = letterbox_frame(image.shape[:2], size)
    out = np.full((*size, image.shape[2]), pad_value, image.dtype)
    out[top : top + inner[0], left : left + inner[1]] = stretched(image, inner, resizer)
    return out


def letterbox_frame(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[tuple[int, int], Corner]:
    """Size (height, width) that an image is scaled to, and its corner (top, left) within the border."""
    factor = min(target / side for side, target in zip(shape[:2], size, strict=True))
    height, width = (min(target, max(1, round(side * factor))) for side, target in zip(shape[:2], size, strict=True))
    return (height, width), ((size[0] - height) // 2, (size[1] - width) // 2)
