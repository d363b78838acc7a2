"""How a pack's images were fitted to one size when they were packed, and what a run can no longer do with them."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace

import h5py

from datasets.preprocessing import Preprocessing

ATTRIBUTE = "fitted"  # of the dataset `images`: how its images were fitted, as JSON
_MOST_TEXT = 4096  # characters of that
# Fields that are about values, not about places.
_PIXELS = {"name", "size", "color", "pixel_range", "scale", "mean", "std", "layout", "dtype"}
PLAIN = Preprocessing("pack", crop_fraction=1.0)  # where no preprocessing is named: scaled until it covers, cropped


def fitting(preprocessing: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """The part of a preprocessing that gives images a size, bound: pixels stay uint8 RGB [height, width, 3]."""
    return replace(
        preprocessing,
        size=size,
        color="rgb",
        pixel_range=None,
        scale=1.0,
        mean=(0,),
        std=(1,),
        layout="nhwc",
        dtype="uint8",
    )


def text_from_fitting(preprocessing: Preprocessing) -> str:
    """What a pack holds about how its images were fitted."""
    return json.dumps(_geometry(preprocessing))


def fitting_from_attribute(images: h5py.Dataset) -> Mapping[str, object] | None:
    """How a pack's images were fitted; None where it does not say, or says it in a way that cannot be read."""
    text = images.attrs.get(ATTRIBUTE)
    if not isinstance(text, str) or len(text) > _MOST_TEXT:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def lost_fitting(fitted: Mapping[str, object] | None, size: tuple[int, int], wanted: Preprocessing) -> str:
    """Why packed images are not what a folder's would be after this preprocessing; empty where they are.

    Args:
        fitted: How they were fitted; None where they were not, or where that is not known.
        size: Their height and width.
        wanted: The preprocessing, bound to the model.
    """
    if fitted is None or "resize" not in fitted:
        return ""
    done, needed = fitted["resize"], wanted.resize
    fraction = fitted.get("crop_fraction")
    same = done == needed and (done != "crop" or size != wanted.size or fraction == wanted.crop_fraction)
    if same or (done == needed == "crop" and not wanted.keep_exact):
        return ""
    shares = f" of {fraction}" if done == "crop" else "", f" of {wanted.crop_fraction}" if needed == "crop" else ""
    return (
        f"the images were fitted to {size[0]}x{size[1]} by resize '{done}'{shares[0]} when they were packed, where "
        f"this preprocessing has '{needed}'{shares[1]}; pack them with calib pack --preprocess"
    )


def _geometry(preprocessing: Preprocessing) -> dict[str, object]:
    """The fields that say where the pixels of an image go."""
    return {
        field.name: getattr(preprocessing, field.name) for field in fields(preprocessing) if field.name not in _PIXELS
    }
