"""Which output is a vector an image, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.outputs import OutputLayout

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class VectorHead:
    """An output that holds a vector an image.

    Attributes:
        output: Its place.
        name: Its name.
        axis: Its axis of images.
        width: How many numbers.
    """

    output: int
    name: str
    axis: int
    width: int

    def vectors(self, outputs: Sequence[Array]) -> Floats:
        """The vectors, float64 [N, width]."""
        by_image = np.moveaxis(outputs[self.output], self.axis, 0)
        return np.asarray(by_image, np.float64).reshape(len(by_image), -1)


def vector_heads(layouts: Sequence[OutputLayout], outputs: Sequence[Any]) -> list[VectorHead]:
    """The outputs with one vector of floats an image: [N, K], also with axes of length one."""
    found = []
    for place, layout in enumerate(layouts):
        if layout.axis is None:
            continue
        by_image = layout.by_image(outputs[place])
        long = [side for side in by_image.shape[1:] if side != 1]
        if by_image.dtype.kind == "f" and len(long) <= 1:
            found.append(VectorHead(place, layout.name, layout.axis, int(np.prod(by_image.shape[1:]))))
    return found
