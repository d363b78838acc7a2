"""Thumbnails of images as data URIs, small enough that a page holds many."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import ImageSource
from datasets.errors import DatasetError

SIDE = 96  # pixels of the longer side, at most
_QUALITY = 80


def thumbnails_from_source(source: Any, names: Iterable[str]) -> Mapping[str, str]:  # noqa: ANN401 - images or tensors
    """A JPEG data URI for each of these images.

    Images that can no longer be read are left out, and a source of ready tensors has none.

    Args:
        source: Where the images come from.
        names: Their names in it.
    """
    wanted = set(names)
    if not isinstance(source, ImageSource) or not wanted:
        return {}
    found = {}
    for index, name in enumerate(source.names):
        if name in wanted:
            try:
                found[name] = thumbnail(source.read(index))
            except DatasetError:
                continue  # a missing picture is no reason to lose the report
    return found


def thumbnail(pixels: NDArray[np.uint8], side: int = SIDE) -> str:
    """The data URI of an image, uint8 [H, W, 3] RGB; larger ones are scaled down, small ones stay as they are."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
