"""Turning an image into a model input: resize, crop, colour order, normalisation, layout; presets and TOML."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.decoding import Wanted
from datasets.errors import DatasetError
from datasets.field_checks import (
    check_option,
    checked_number,
    checked_per_channel,
    checked_range,
    checked_size,
    is_int,
    shown,
)
from datasets.preprocessing.binding import dtype_for, layout_for, size_for
from datasets.preprocessing.geometry import (
    Frame,
    Resizer,
    crop_frame,
    letterbox_frame,
    letterboxed,
    scaled_and_cropped,
    stretched,
)
from datasets.preprocessing.values import ValueRule, brought_to_8_bits, channels_of, with_channels
from datasets.text_file import table_from_toml

Resize = Literal["crop", "stretch", "letterbox", "none"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
Color = Literal["rgb", "bgr", "grey", "rgba", "bgra"]
Layout = Literal["auto", "nchw", "nhwc"]
DType = Literal["auto", "float32", "float16", "float64", "uint8"]

_MOST_PIXELS = 2**26  # of a model's input: 8192 x 8192, which is 768 MiB as float32


@dataclass(frozen=True)
class Preprocessing:
    """A complete description of how a decoded image becomes a model input.

    The value of a pixel is `(pixel * scale - mean) / std`, per channel in the order of `color`. A description must
    first be bound to a model input with `bound_to`, which determines size, layout and dtype; then it can be called.

    Attributes:
        name: A name for people; it has no influence on values or on `digest`.
        size: Height and width of the model input; None takes the model's.
        resize: `crop` scales until the image covers size / crop_fraction, then takes the centre. `stretch` ignores the
            aspect ratio. `letterbox` keeps it and fills the border with `pad_value`. `none` accepts only images that
            have the size.
        crop_fraction: The part of the scaled image's side that `crop` keeps (224 / 256 = 0.875 for ImageNet).
        keep_exact: Whether an image that already has the target size is taken as it is, as prepared for this model.
        interpolation: Pillow's filter of that name.
        antialias: Whether scaling down takes the mean of all pixels, as Pillow and torchvision do, or only of those
            next to each point, as OpenCV's INTER_LINEAR does.
        color: Channel order, or a single channel of luma; `rgba` and `bgra` keep alpha.
        pixel_range: Lowest and highest value of images with more than 8 bits, which become 0 and 255 before `scale`;
            None for all of 16 bits. Images of 8 bits are not concerned.
        scale: Factor that a pixel is multiplied by before mean and std; 1/255 maps pixels to 0..1.
        mean: One number for all channels, or one per channel.
        std: One number above 0 for all channels, or one per channel.
        layout: Order of the axes; `auto` follows the model.
        dtype: Type of the values; `auto` follows the model. `uint8` passes pixels through without normalisation.
        pad_value: Pixel value, 0..255, of the letterbox's border.
    """

    name: str = "custom"
    size: tuple[int, int] | None = None
    resize: Resize = "crop"
    crop_fraction: float = 0.875
    keep_exact: bool = True
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    color: Color = "rgb"
    pixel_range: tuple[float, float] | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "auto"
    dtype: DType = "auto"
    pad_value: int = 114

    def __post_init__(self) -> None:
        """Check every field and convert numbers to one type, so that equal descriptions have equal digests."""
        if not isinstance(self.name, str):
            raise DatasetError(f"name: expected text, found {shown(self.name)}")
        for field, options in _OPTIONS.items():
            check_option(field, getattr(self, field), options)
        for field in ("keep_exact", "antialias"):
            if not isinstance(getattr(self, field), bool):
                raise DatasetError(f"{field}: expected true or false, found {shown(getattr(self, field))}")
        fixed = {
            "size": None if self.size is None else checked_size(self.size),
            "crop_fraction": checked_number("crop_fraction", self.crop_fraction),
            "scale": checked_number("scale", self.scale),
            "mean": checked_per_channel("mean", self.mean, self.channels),
            "std": checked_per_channel("std", self.std, self.channels),
            "pixel_range": None if self.pixel_range is None else checked_range("pixel_range", self.pixel_range),
        }
        for field, value in fixed.items():
            object.__setattr__(self, field, value)
        if not 0 < self.crop_fraction <= 1:
            raise DatasetError(f"crop_fraction: expected a number above 0 and at most 1, found {self.crop_fraction}")
        if self.scale == 0:
            raise DatasetError("scale: 0 makes every pixel the same; expected 1/255 or another factor")
        if min(self.std) <= 0:
            raise DatasetError(f"std: expected numbers above 0, found {list(self.std)}")
        if not is_int(self.pad_value) or not 0 <= self.pad_value <= 255:
            raise DatasetError(f"pad_value: expected a whole number from 0 to 255, found {shown(self.pad_value)}")
        if self.dtype == "uint8":
            self._check_plain_pixels()

    @staticmethod
    def preset(name: str) -> "Preprocessing":
        """The preset of that name.

        Raises:
            DatasetError: No preset has that name. The message lists the presets.
        """
        if name not in PRESETS:
            raise DatasetError(f"no preset {name!r}; expected one of {', '.join(PRESETS)}")
        return PRESETS[name]

    @staticmethod
    def from_spec(spec: str) -> "Preprocessing":
        """The preset of that name, or the description in a file whose name ends in .toml."""
        if spec.lower().endswith(".toml"):
            return Preprocessing.from_toml(spec)
        if spec not in PRESETS:
            raise DatasetError(f"no preset {spec!r}; expected one of {', '.join(PRESETS)}, or a path ending in .toml")
        return PRESETS[spec]

    @staticmethod
    def from_toml(path: str | Path) -> "Preprocessing":
        """Read the fields from a TOML file; its key `preset` names the preset that the other keys change.

        `size` may be one number for a square, `mean` and `std` one for all channels, and `pixel_range` its upper end.
        The default `name` is the file's name.

        Raises:
            DatasetError: The file is missing, is not valid TOML, or has unknown keys or wrong types or values. The
                message begins with the file's path.
        """
        path = Path(path)
        table = table_from_toml(path, "preprocessing description in TOML")
        keys = tuple(field.name for field in fields(Preprocessing))
        unknown = [key for key in table if key not in (*keys, "preset")]
        if unknown:
            raise DatasetError(f"{path}: unknown key {unknown[0]!r}; the keys are preset, {', '.join(keys)}")
        base = table.pop("preset", None)
        if base is not None and not (isinstance(base, str) and base in PRESETS):
            raise DatasetError(f"{path}: no preset {shown(base)}; expected one of {', '.join(PRESETS)}")
        for key in ("mean", "std"):
            if isinstance(table.get(key), (int, float)):
                table[key] = [table[key]]
        if isinstance(table.get("size"), int):
            table["size"] = [table["size"], table["size"]]
        if isinstance(table.get("pixel_range"), (int, float)):
            table["pixel_range"] = [0, table["pixel_range"]]
        try:
            return replace(PRESETS[base] if base else Preprocessing(), **{"name": path.stem, **table})
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from None

    def to_toml(self) -> str:
        """The description as TOML; `from_toml` restores it exactly. A size of None has no line: TOML has no null."""
        # JSON strings, numbers, booleans and lists are also valid TOML.
        return "".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
            for key, value in self.to_dict().items()
            if value is not None
        )

    def to_dict(self) -> dict[str, object]:
        """All fields as JSON values, in their declared order; of later keys those that change what was done before."""
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in fields.items() if key not in _LATER or value != _LATER[key]}

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all fields but `name`."""
        fields = self.to_dict()
        del fields["name"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def channels(self) -> int:
        """Number of channels of the model input."""
        return channels_of(self.color)

    @property
    def wanted(self) -> Wanted:
        """What is taken of an image beyond 8-bit RGB."""
        return Wanted(alpha=self.channels == 4, any_range=self.pixel_range is not None)

    @property
    def is_bound(self) -> bool:
        """Whether size, layout and dtype are determined."""
        return self.size is not None and self.layout != "auto" and self.dtype != "auto"

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Shape of one model input without the batch axis.

        Raises:
            DatasetError: The preprocessing is not bound.
        """
        height, width = self._bound_size()
        return (self.channels, height, width) if self.layout == "nchw" else (height, width, self.channels)

    def bound_to(self, shape: Sequence[int | str | None], dtype: str) -> "Preprocessing":
        """The same preprocessing with size, layout and dtype determined for one model input.

        Args:
            shape: Shape of the model input with its batch axis; free axes are None, a name or negative.
            dtype: NumPy's name for the model input's type, such as `float32`.

        Raises:
            DatasetError: The model input cannot take what this describes, or both leave the same property open.
        """
        axes = [axis if isinstance(axis, int) and axis > 0 else None for axis in shape]
        shown = f"[{', '.join('?' if axis is None else str(axis) for axis in shape)}]"
        if len(axes) != 4:
            raise DatasetError(f"the model input {shown} takes no images: expected [N, C, H, W] or [N, H, W, C]")
        layout = layout_for(self.layout, self.color, self.channels, axes, shown)
        size = size_for(self.size, (axes[2], axes[3]) if layout == "nchw" else (axes[1], axes[2]), shown)
        if size[0] * size[1] > _MOST_PIXELS:
            raise DatasetError(
                f"images of {size[0]} x {size[1]} pixels (height x width) are asked for, an input may have at most "
                f"{_MOST_PIXELS:,}"
            )
        found = dtype_for(self.dtype, dtype)
        if found == "uint8":
            self._check_plain_pixels()
        return replace(self, size=size, layout=cast(Layout, layout), dtype=cast(DType, found))

    def __call__(self, image: NDArray[Any]) -> NDArray[np.generic]:
        """Turn one image, see `fitted`, into a contiguous array of `sample_shape`."""
        sample: NDArray[np.generic] = self.normalised(self.fitted(image)[np.newaxis])[0]
        return sample

    def fitted(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image resized to the model's size, red first, with alpha if `color` has it: uint8 [h, w, 3 or 4].

        Args:
            image: uint8 [H, W, 3 or 4], red first; or numbers with more bits, [H, W, 1 to 4], which become float32 on
                the scale of 8 bits without being rounded.

        Raises:
            DatasetError: It is not bound, or `resize` is `none` and the image has another size.
        """
        image = brought_to_8_bits(image, self.pixel_range)
        # Channels are dropped before the image is resized and added after it, because images may be large.
        if image.shape[2] > 2:
            return self._resized(with_channels(image, self.color))
        return with_channels(self._resized(image), self.color)

    def _resized(self, image: NDArray[Any]) -> NDArray[Any]:
        size = self._bound_size()
        if image.shape[:2] == size and (self.keep_exact or self.resize != "crop"):
            return image
        resizer = Resizer(self.interpolation, self.antialias)
        if self.resize == "crop":
            return scaled_and_cropped(image, size, self.crop_fraction, resizer)
        if self.resize == "stretch":
            return stretched(image, size, resizer)
        if self.resize == "letterbox":
            return letterboxed(image, size, self.pad_value, resizer)
        height, width = image.shape[:2]
        raise DatasetError(
            f"{height} x {width} pixels (height x width), but resize 'none' takes {size[0]} x {size[1]} only; "
            "set resize to 'crop', 'stretch' or 'letterbox'"
        )

    def frame(self, height: int, width: int) -> Frame:
        """Where an image of this size lies in the model's input once it is `fitted`."""
        size = self._bound_size()
        scaled, (top, left) = (height, width), (0, 0)
        if (height, width) == size and (self.keep_exact or self.resize != "crop"):
            pass
        elif self.resize == "crop":
            scaled, (top, left) = crop_frame((height, width), size, self.crop_fraction)
            top, left = -top, -left
        elif self.resize == "stretch":
            scaled = size
        elif self.resize == "letterbox":
            scaled, (top, left) = letterbox_frame((height, width), size)
        return Frame((scaled[1] / width, scaled[0] / height), (left, top), (width, height))

    def normalised(self, pixels: NDArray[Any]) -> NDArray[np.generic]:
        """Turn fitted images, uint8 or float32 [B, h, w, 3 or 4], into one contiguous array [B, *sample_shape]."""
        out = np.empty((len(pixels), *self.sample_shape), dtype=self.dtype)
        rule = ValueRule(self.color, self.scale, self.mean, self.std, self.dtype)
        rule.fill(out, pixels, channels_first=self.layout == "nchw")
        return out

    def _bound_size(self) -> tuple[int, int]:
        if not self.is_bound or self.size is None:
            raise DatasetError(f"preprocessing {self.name!r} is not bound to a model input; call bound_to first")
        return self.size

    def _check_plain_pixels(self) -> None:
        if self.scale != 1 or any(self.mean) or set(self.std) != {1.0}:
            raise DatasetError(
                f"uint8 takes pixels as they are, but preprocessing {self.name!r} normalises them; "
                "set scale = 1, mean = [0] and std = [1], or use the preset 'raw'"
            )


# Keys that came later. Where they say what was done before them, digests and caches stay as they were.
_LATER: dict[str, object] = {"antialias": True, "pixel_range": None}

_OPTIONS: dict[str, tuple[str, ...]] = {
    "resize": get_args(Resize),
    "interpolation": get_args(Interpolation),
    "color": get_args(Color),
    "layout": get_args(Layout),
    "dtype": get_args(DType),
}


PRESETS: dict[str, Preprocessing] = {
    preset.name: preset
    for preset in (
        # torchvision's reference transforms for ImageNet classifiers
        Preprocessing("imagenet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        # Keras' "tf" mode: -1..1
        Preprocessing("imagenet-tf", scale=1 / 127.5, mean=(1.0,)),
        Preprocessing("unit", resize="stretch"),
        Preprocessing("yolo", resize="letterbox"),
        # mean and std of CIFAR-10's training images; nothing is cropped away from so small a picture
        Preprocessing("cifar10", crop_fraction=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        # for models that normalise their input themselves
        Preprocessing("raw", scale=1.0),
    )
}
