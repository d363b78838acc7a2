"""Turning an image into a model input: resize, crop, colour order, normalisation, layout; presets and TOML."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DatasetError
from datasets.field_checks import check_option, checked_number, checked_per_channel, checked_size, is_int, shown
from datasets.geometry import Frame, crop_frame, letterbox_frame, letterboxed, scaled_and_cropped, stretched
from datasets.text_file import table_from_toml

Resize = Literal["crop", "stretch", "letterbox", "none"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
Color = Literal["rgb", "bgr", "grey"]
Layout = Literal["auto", "nchw", "nhwc"]
DType = Literal["auto", "float32", "float16", "float64", "uint8"]

# ITU-R 601 luma in 16-bit fixed point, the weights of Pillow's convert("L").
_LUMA = (19595, 38470, 7471)

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
        interpolation: Pillow's filter of that name, with antialiasing when scaling down.
        color: Channel order, or a single channel of luma.
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
    color: Color = "rgb"
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
        if not isinstance(self.keep_exact, bool):
            raise DatasetError(f"keep_exact: expected true or false, found {shown(self.keep_exact)}")
        fixed = {
            "size": None if self.size is None else checked_size(self.size),
            "crop_fraction": checked_number("crop_fraction", self.crop_fraction),
            "scale": checked_number("scale", self.scale),
            "mean": checked_per_channel("mean", self.mean, self.channels),
            "std": checked_per_channel("std", self.std, self.channels),
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

        `size` may be one number for a square; `mean` and `std` may be one number for all channels. The default `name`
        is the file's name.

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
        """All fields as JSON values, in their declared order."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all fields but `name`."""
        fields = self.to_dict()
        del fields["name"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def channels(self) -> int:
        """Number of channels of the model input: 1 for grey, otherwise 3."""
        return 1 if self.color == "grey" else 3

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
        layout = self._layout_for(axes, shown)
        found = (axes[2], axes[3]) if layout == "nchw" else (axes[1], axes[2])
        if self.size is None:
            height, width = found
            if height is None or width is None:
                raise DatasetError(
                    f"the model input {shown} leaves the image size open; state it as size = [height, width]"
                )
            size = height, width
        else:
            size = self.size
            if any(axis not in (None, stated) for axis, stated in zip(found, size, strict=True)):
                raise DatasetError(
                    f"size {list(size)} is stated, but the model input {shown} takes images of height {found[0]} "
                    f"and width {found[1]}; leave size out to use the model's"
                )
        if size[0] * size[1] > _MOST_PIXELS:
            raise DatasetError(
                f"images of {size[0]} x {size[1]} pixels (height x width) are asked for, an input may have at most "
                f"{_MOST_PIXELS:,}"
            )
        return replace(self, size=size, layout=layout, dtype=self._dtype_for(dtype))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Turn one uint8 [H, W, 3] RGB image into a contiguous array of `sample_shape`."""
        sample: NDArray[np.generic] = self.normalised(self.fitted(image)[np.newaxis])[0]
        return sample

    def fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image resized to the model's size, still uint8 [h, w, 3] RGB."""
        size = self._bound_size()
        if image.shape[:2] == size and (self.keep_exact or self.resize != "crop"):
            return image
        if self.resize == "crop":
            return scaled_and_cropped(image, size, self.crop_fraction, self.interpolation)
        if self.resize == "stretch":
            return stretched(image, size, self.interpolation)
        if self.resize == "letterbox":
            return letterboxed(image, size, self.pad_value, self.interpolation)
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

    def normalised(self, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Turn fitted images, uint8 [B, h, w, 3] RGB, into one contiguous array [B, *sample_shape]."""
        out = np.empty((len(pixels), *self.sample_shape), dtype=self.dtype)
        tables = None if self.dtype == "uint8" else self._tables()
        for channel, plane in enumerate(self._planes(pixels)):
            target = out[:, channel] if self.layout == "nchw" else out[..., channel]
            target[...] = plane if tables is None else np.take(tables[channel], plane, mode="clip")  # never clips
        return out

    def _planes(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        red, green, blue = (pixels[..., channel] for channel in range(3))
        if self.color == "grey":
            luma = np.tensordot(pixels.astype(np.uint32), np.array(_LUMA, np.uint32), axes=1)
            return [((luma + 0x8000) >> 16).astype(np.uint8)]
        return [red, green, blue] if self.color == "rgb" else [blue, green, red]

    def _tables(self) -> list[NDArray[np.floating]]:
        """(pixel * scale - mean) / std of each of the 256 pixel values, per channel.

        Computed step by step in float32, as in torchvision's ToTensor and Normalize, because the last digit decides on
        which side of a bin's edge a value falls. For float16 the result is rounded at the end; float64 is computed in
        float64.
        """
        kind = np.float64 if self.dtype == "float64" else np.float32
        pixels = np.arange(256, dtype=kind)
        scaled = pixels / kind(255) if self.scale == 1 / 255 else pixels * kind(self.scale)
        mean, std = (np.broadcast_to(np.array(v, kind), self.channels) for v in (self.mean, self.std))
        result = np.dtype(np.float16) if self.dtype == "float16" else np.dtype(kind)
        return [((scaled - m) / s).astype(result) for m, s in zip(mean, std, strict=True)]

    def _bound_size(self) -> tuple[int, int]:
        if not self.is_bound or self.size is None:
            raise DatasetError(f"preprocessing {self.name!r} is not bound to a model input; call bound_to first")
        return self.size

    def _layout_for(self, axes: Sequence[int | None], shown: str) -> Layout:
        channels = self.channels
        places: dict[Layout, int | None] = {"nchw": axes[1], "nhwc": axes[3]}
        if self.layout != "auto":
            if places[self.layout] not in (None, channels):
                raise DatasetError(
                    f"layout {self.layout!r} with color {self.color!r} needs size {channels} on axis "
                    f"{1 if self.layout == 'nchw' else 3} of the model input {shown}, found {places[self.layout]}"
                )
            return self.layout
        exact = [layout for layout, axis in places.items() if axis == channels]
        possible = exact or [layout for layout, axis in places.items() if axis is None]
        if len(possible) == 1:
            return possible[0]
        if possible:
            raise DatasetError(f"the model input {shown} can be read as nchw or as nhwc; state the layout")
        other = 3 if channels == 1 else 1
        hint = f"; set color = '{'rgb' if other == 3 else 'grey'}'" if other in places.values() else ""
        raise DatasetError(
            f"no axis of the model input {shown} fits the {channels} channel{'s' * (channels > 1)} of color "
            f"{self.color!r}; expected [N, {channels}, H, W] or [N, H, W, {channels}]{hint}"
        )

    def _dtype_for(self, model: str) -> DType:
        for option in get_args(DType):
            if option == model and option != "auto":
                if self.dtype not in ("auto", option):
                    raise DatasetError(
                        f"dtype {self.dtype!r} is stated, but the model input takes {model}; leave dtype out"
                    )
                if option == "uint8":
                    self._check_plain_pixels()
                result: DType = option
                return result
        raise DatasetError(f"the model input takes {model}; images can be given as float32, float16, float64 or uint8")

    def _check_plain_pixels(self) -> None:
        if self.scale != 1 or any(self.mean) or set(self.std) != {1.0}:
            raise DatasetError(
                f"uint8 takes pixels as they are, but preprocessing {self.name!r} normalises them; "
                "set scale = 1, mean = [0] and std = [1], or use the preset 'raw'"
            )


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
