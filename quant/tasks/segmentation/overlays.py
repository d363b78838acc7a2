"""Where a build's map differs from FP32's, as a small picture that lies over the image."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.preprocessing.geometry import Frame

SIDE = 256  # pixels of the longer side, at most
LOST, WON, CHANGED = 1, 2, 3
Map = NDArray[np.int32]


@dataclass(frozen=True)
class Change:
    """Where an image's map changed.

    Attributes:
        file: The image's name.
        changed: Pixels with another class than in FP32, per cent of those that count.
        lost: Those that were right in FP32, per cent; None without masks.
        won: Those that are right now, per cent; None without masks.
        overlay: A PNG, uint8 grey: 0 the same, `LOST`, `WON`, or `CHANGED` otherwise; it shows all of the image.
    """

    file: str
    changed: float
    lost: float | None
    won: float | None
    overlay: bytes

    def row(self) -> dict[str, Any]:
        """The same for JSON."""
        uri = f"data:image/png;base64,{base64.b64encode(self.overlay).decode()}"
        return {"file": self.file, "changed": self.changed, "lost": self.lost, "won": self.won, "overlay": uri}


def change_of_image(
    file: str, size: tuple[int, int], first: Map, answer: Map, counted: Map, mask: Map | None, frame: Frame | None
) -> Change:
    """What changed in an image.

    Args:
        file: The image's name.
        size: Height and width of the image.
        first: FP32's map, of the model's input.
        answer: The build's.
        counted: -1 where nothing counts.
        mask: The class of each pixel; None without masks.
        frame: Where the image lies in the input; None where the input is all there is.
    """
    counts = counted >= 0
    kinds = np.where(counts & (answer != first), CHANGED, 0).astype(np.uint8)
    lost = won = None
    total = max(int(counts.sum()), 1)
    if mask is not None:
        kinds[(kinds > 0) & (first == mask)] = LOST
        kinds[(kinds > 0) & (answer == mask)] = WON
        lost, won = (round(100 * int((kinds == kind).sum()) / total, 4) for kind in (LOST, WON))
    changed = round(100 * int((kinds > 0).sum()) / total, 4)
    return Change(file, changed, lost, won, _png(_over_the_image(kinds, size, frame)))


def _over_the_image(kinds: NDArray[np.uint8], size: tuple[int, int], frame: Frame | None) -> NDArray[np.uint8]:
    shrink = min(1.0, SIDE / max(size))
    height, width = (max(1, round(side * shrink)) for side in size)
    where = frame or Frame((1.0, 1.0), (0.0, 0.0), (kinds.shape[1], kinds.shape[0]))
    found: NDArray[np.uint8] = where.inverse_nearest(kinds, (height, width), 0)
    return found


def _png(values: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
