"""Images with what changed drawn on them: maps of classes as colours, detections as boxes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets import ImageSource
from datasets.errors import DatasetError
from quant.report.views.tables import value_at
from quant.report.views.thumbnails import thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 256  # pixels of the longer side, at most
_RED, _GREEN, _YELLOW = (230, 30, 50), (20, 170, 80), (250, 200, 20)
_OPAQUE = 0.65
_START = "data:image/png;base64,"


def pictures_from_source(
    source: Any,  # noqa: ANN401 - images or tensors
    document: Mapping[str, Any],
    files: Mapping[str, str],
) -> dict[str, str]:
    """A JPEG data URI for each image with what changed, by the place of that in report.json.

    Images that can no longer be read are left out, and a source of ready tensors has none.

    Args:
        source: Where the images come from.
        document: The report.
        files: Names of the images in the source, by place.
    """
    if not isinstance(source, ImageSource) or not files:
        return {}
    index_of = {name: index for index, name in enumerate(source.names)}
    found = {}
    for key, name in files.items():
        row = value_at(document, key)
        try:
            pixels = source.read(index_of[name])
        except (DatasetError, KeyError):
            continue  # a missing picture is no reason to lose the report
        found[key] = thumbnail(np.asarray(_drawn(pixels, row)), SIDE)
    return found


def _drawn(pixels: Any, row: Mapping[str, Any]) -> Image:  # noqa: ANN401 - an array
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    width = image.width
    image.thumbnail((SIDE, SIDE))
    return (
        _with_map(image, row["overlay"]) if "overlay" in row else _with_boxes(image, row["boxes"], image.width / width)
    )


def _with_boxes(image: Image, boxes: Sequence[Mapping[str, Any]], scale: float) -> Image:
    """The image with boxes in the colours of what became of them; see `quant.tasks.detection.changes`."""
    from PIL import ImageDraw

    colours = {"lost": _RED, "gained": _GREEN, "moved": _YELLOW}
    pen = ImageDraw.Draw(image)
    for box in boxes:
        for corners, width in ((box["before"], 1), (box["box"], 2)):
            if corners is not None:
                left, top, right, bottom = (value * scale for value in corners)
                sides = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
                pen.rectangle(sides, outline=colours[box["kind"]], width=width)
    return image


def _with_map(image: Image, overlay: str) -> Image:
    """The image in grey, with the colours of what changed over it; see `quant.tasks.segmentation.overlays`."""
    from PIL import Image

    encoded = io.BytesIO(base64.b64decode(overlay.removeprefix(_START)))
    kinds = np.asarray(Image.open(encoded, formats=["PNG"]).resize(image.size, Image.Resampling.NEAREST))
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
    for kind, colour in enumerate((_RED, _GREEN, _YELLOW), start=1):
        at = kinds == kind
        grey[at] = (1 - _OPAQUE) * grey[at] + _OPAQUE * np.array(colour, np.float32)
    return Image.fromarray(grey.astype(np.uint8))
