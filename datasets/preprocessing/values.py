"""The values of pixels: many bits as 0..255 without rounding, channels in order, scale, mean and std."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# ITU-R 601 luma in 16-bit fixed point, the weights of Pillow's convert("L").
_LUMA = (19595, 38470, 7471)
_OPAQUE = 255
_CHANNELS = {"grey": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
_ORDER = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2, 3), "bgra": (2, 1, 0, 3)}


@dataclass(frozen=True)
class ValueRule:
    """How a pixel's value, 0..255, becomes a value of the input: `(pixel * scale - mean) / std`.

    Attributes:
        color: Channels and their order.
        scale: Factor.
        mean: One number for all channels, or one per channel.
        std: One number for all channels, or one per channel.
        dtype: NumPy's name for the input's type; `uint8` takes pixels as they are.
    """

    color: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str

    def fill(self, out: NDArray[Any], pixels: NDArray[Any], *, channels_first: bool) -> None:
        """Write the values of images into an array.

        Args:
            out: The inputs, [B, C, h, w] or [B, h, w, C].
            pixels: uint8 or float32 [B, h, w, 3 or 4], red first; 0..255.
            channels_first: Is the second axis of `out` that of the channels?
        """
        tables = self._tables() if pixels.dtype == np.uint8 and self.dtype != "uint8" else None
        for channel, plane in enumerate(_planes(pixels, self.color)):
            target = out[:, channel] if channels_first else out[..., channel]
            if tables is not None:
                target[...] = np.take(tables[channel], plane, mode="clip")  # never clips
            elif self.dtype == "uint8":
                target[...] = plane if plane.dtype == np.uint8 else np.rint(plane)
            else:
                target[...] = self._values(plane, channel)

    def _tables(self) -> list[NDArray[np.floating[Any]]]:
        """The values of the 256 pixel values, per channel."""
        return [self._values(np.arange(256), channel) for channel in range(channels_of(self.color))]

    def _values(self, pixels: NDArray[Any], channel: int) -> NDArray[np.floating[Any]]:
        """The values of a channel's pixels.

        Computed step by step in float32, as in torchvision's ToTensor and Normalize, because the last digit decides on
        which side of a bin's edge a value falls. For float16 the result is rounded at the end; float64 is computed in
        float64.
        """
        kind = np.float64 if self.dtype == "float64" else np.float32
        pixels = pixels.astype(kind)
        scaled = pixels / kind(255) if self.scale == 1 / 255 else pixels * kind(self.scale)
        mean, std = (
            np.broadcast_to(np.array(v, kind), channels_of(self.color))[channel] for v in (self.mean, self.std)
        )
        values: NDArray[np.floating[Any]] = ((scaled - mean) / std).astype(self.dtype)
        return values


def channels_of(color: str) -> int:
    """Number of channels of an order of colours."""
    return _CHANNELS[color]


def brought_to_8_bits(pixels: NDArray[Any], pixel_range: tuple[float, float] | None) -> NDArray[Any]:
    """Pixels of more than 8 bits as float32 on the scale of 8 bits, 0..255, without rounding; those of 8 as they are.

    Args:
        pixels: uint8, or numbers of another type.
        pixel_range: Which values are 0 and 255; values beyond them are cut off. None takes all of uint16.
    """
    if pixels.dtype == np.uint8:
        return pixels
    low, high = pixel_range or (0, np.iinfo(np.uint16).max)
    exact = pixels.dtype == np.float32 or pixels.dtype.itemsize <= 2  # single precision holds these as they are
    wide = pixels.astype(np.float32 if exact else np.float64)  # then in place: images may be large
    wide -= low
    wide *= 255 / (high - low)
    return np.clip(wide, 0, 255, out=wide).astype(np.float32, copy=False)


def with_channels(pixels: NDArray[Any], color: str) -> NDArray[Any]:
    """Pixels [H, W, 1 to 4] with the channels that an order of colours is made of: red, green, blue, alpha if asked.

    A single channel counts as grey, the second of two as alpha, and what has no alpha is opaque.
    """
    wanted, found = 4 if channels_of(color) == 4 else 3, pixels.shape[2]
    if found == wanted:
        return pixels
    colours = pixels[..., :3] if found >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if wanted == 3:
        return colours
    alpha = pixels[..., 1:] if found == 2 else np.full_like(pixels[..., :1], _OPAQUE)
    return np.concatenate([colours, alpha], axis=2)


def _planes(pixels: NDArray[Any], color: str) -> Sequence[NDArray[Any]]:
    if color != "grey":
        return [pixels[..., channel] for channel in _ORDER[color]]
    if pixels.dtype != np.uint8:
        return [pixels @ (np.array(_LUMA, np.float32) / np.float32(1 << 16))]
    luma = np.tensordot(pixels.astype(np.uint32), np.array(_LUMA, np.uint32), axes=1)
    return [((luma + 0x8000) >> 16).astype(np.uint8)]
