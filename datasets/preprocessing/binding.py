"""Fitting a description to a model's input: layout, size, type."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.errors import DatasetError

_TYPES = ("float32", "float16", "float64", "uint8")
_OTHER_COLORS = {1: "grey", 3: "rgb", 4: "rgba"}


def layout_for(layout: str, color: str, channels: int, axes: Sequence[int | None], shown: str) -> str:
    """The order of an input's axes, nchw or nhwc.

    Args:
        layout: What is stated, or `auto`.
        color: The order of colours, for the error.
        channels: How many these are.
        axes: The input's shape; None for an open axis.
        shown: The same as text.

    Raises:
        DatasetError: No axis fits the channels, or both do.
    """
    places: dict[str, int | None] = {"nchw": axes[1], "nhwc": axes[3]}
    if layout != "auto":
        if places[layout] not in (None, channels):
            raise DatasetError(
                f"layout {layout!r} with color {color!r} needs size {channels} on axis "
                f"{1 if layout == 'nchw' else 3} of the model input {shown}, found {places[layout]}"
            )
        return layout
    exact = [name for name, axis in places.items() if axis == channels]
    possible = exact or [name for name, axis in places.items() if axis is None]
    if len(possible) == 1:
        return possible[0]
    if possible:
        raise DatasetError(f"the model input {shown} can be read as nchw or as nhwc; state the layout")
    other = next((name for count, name in _OTHER_COLORS.items() if count != channels and count in places.values()), "")
    hint = f"; set color = '{other}'" if other else "; images of other channels come as .npy files or as HDF5"
    raise DatasetError(
        f"no axis of the model input {shown} fits the {channels} channel{'s' * (channels > 1)} of color "
        f"{color!r}; expected [N, {channels}, H, W] or [N, H, W, {channels}]{hint}"
    )


def size_for(stated: tuple[int, int] | None, found: tuple[int | None, int | None], shown: str) -> tuple[int, int]:
    """Height and width of the images that an input takes.

    Args:
        stated: What is stated; None for the input's own.
        found: The input's height and width; None where it leaves them open.
        shown: The input's shape as text, for the error.

    Raises:
        DatasetError: Both leave them open, or differ.
    """
    height, width = found
    if stated is None:
        if height is None or width is None:
            raise DatasetError(
                f"the model input {shown} leaves the image size open; state it with --input-size HEIGHTxWIDTH, or as "
                "size = [height, width] in the TOML file of --preprocess"
            )
        return height, width
    if any(axis not in (None, side) for axis, side in zip(found, stated, strict=True)):
        raise DatasetError(
            f"size {list(stated)} is stated, but the model input {shown} takes images of height {height} "
            f"and width {width}; leave size out to use the model's"
        )
    return stated


def dtype_for(stated: str, model: str) -> str:
    """The type of an input's values.

    Raises:
        DatasetError: Images cannot be given as the model's type, or another one is stated.
    """
    if model not in _TYPES:
        raise DatasetError(f"the model input takes {model}; images can be given as {', '.join(_TYPES[:3])} or uint8")
    if stated not in ("auto", model):
        raise DatasetError(f"dtype {stated!r} is stated, but the model input takes {model}; leave dtype out")
    return model
