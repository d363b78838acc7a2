"""Grids of a detector's levels: where the points are, and boxes out of distances and offsets from them.

Sources: X. Li et al., 2020, "Generalized Focal Loss" (boxes as distributions of distances: DFL); W. Liu et al., 2016,
"SSD: Single Shot MultiBox Detector", section 2.2 (sizes and shapes of the default boxes); Z. Ge et al., 2021, "YOLOX".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from quant.tasks.detection.boxes import Array, Floats, corners

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32), (8, 16), (8,), (16,), (32,), (4,))
_SMALLEST, _LARGEST = 0.2, 0.9  # sides of SSD's default boxes on the first and the last level, shares of the image
_RATIOS = (2.0, 0.5, 3.0, 1 / 3)
_CENTRE_VARIANCE, _SIDE_VARIANCE = 0.1, 0.2


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of a level."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def strides_from_points(size: tuple[int, int], points: int) -> tuple[int, ...] | None:
    """The strides of the levels whose grids have so many points together; None where no usual choice has."""
    for strides in _STRIDES:
        if sum(math.prod(grid_size(size, stride)) for stride in strides) == points:
            return strides
    return None


def stride_from_grid(size: tuple[int, int], rows: int, columns: int) -> int | None:
    """The power of two whose grid has these rows and columns; None where none has."""
    for exponent in range(1, 9):
        if grid_size(size, 2**exponent) == (rows, columns):
            return int(2**exponent)
    return None


def points_and_strides(size: tuple[int, int], strides: Sequence[int], offset: float) -> tuple[Floats, Floats]:
    """Points of the grids, level by level and row by row: float64 [A, 2] x and y in pixels, and [A] their strides.

    Args:
        size: Height and width of the model's input.
        strides: Of the levels.
        offset: Where in its cell a point is: 0 is the corner, 0.5 the centre.
    """
    points, each = [], []
    for stride in strides:
        rows, columns = grid_size(size, stride)
        y, x = np.mgrid[:rows, :columns]
        points.append((np.stack([x.ravel(), y.ravel()], axis=1) + offset) * stride)
        each.append(np.full(rows * columns, float(stride)))
    return np.concatenate(points), np.concatenate(each)


def distances_from_logits(logits: Array, bins: int) -> Floats:
    """Distances to the left, top, right and bottom, in strides: the mean of each side's distribution.

    Args:
        logits: [..., 4 * bins], the bins of one side next to each other.
        bins: How many values a distance may have: 0 to bins - 1. With 1, the numbers are the distances themselves.
    """
    values: Floats = logits.astype(np.float64)
    if bins == 1:
        return values
    sides = values.reshape(*values.shape[:-1], 4, bins)
    shares = np.exp(sides - sides.max(axis=-1, keepdims=True))
    mean: Floats = (shares / shares.sum(axis=-1, keepdims=True)) @ np.arange(bins)
    return mean


def boxes_from_distances(points: Floats, distances: Floats) -> Floats:
    """Boxes [..., 4] around points [A, 2], from distances [..., A, 4] to the four sides; all in pixels."""
    return np.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)


def boxes_from_cells(cells: Array, size: tuple[int, int], strides: Sequence[int]) -> Floats:
    """YOLOX's boxes: the centre's offset from the cell's corner and the logarithms of the sides, in strides.

    Args:
        cells: [..., A, 4].
        size: Height and width of the model's input.
        strides: Of the levels.
    """
    points, each = points_and_strides(size, strides, 0.0)
    values: Floats = cells.astype(np.float64)
    centre = values[..., :2] * each[:, None] + points
    sides = np.exp(np.clip(values[..., 2:], -50, 50)) * each[:, None]
    return corners(np.concatenate([centre, sides], axis=-1), "cxcywh")


def default_boxes(size: tuple[int, int], grids: Sequence[tuple[int, int]], each: Sequence[int]) -> Floats:
    """SSD's default boxes, float64 [A, 4] as centre and sides, in pixels: level by level, cell by cell.

    Args:
        size: Height and width of the model's input.
        grids: Rows and columns of the levels.
        each: Boxes of a cell, by level: a square, the larger square, then shapes of 2:1, 1:2, 3:1, 1:3.
    """
    steps = max(len(grids) - 1, 1)
    sides = [_SMALLEST + (_LARGEST - _SMALLEST) * k / steps for k in range(len(grids) + 1)]
    boxes = []
    for k, ((rows, columns), count) in enumerate(zip(grids, each, strict=True)):
        larger = math.sqrt(sides[k] * min(sides[k + 1], 1.0))
        shapes = [(sides[k], sides[k]), (larger, larger)]
        shapes += [(sides[k] * math.sqrt(ratio), sides[k] / math.sqrt(ratio)) for ratio in _RATIOS]
        y, x = np.mgrid[:rows, :columns]
        centres = np.stack([(x.ravel() + 0.5) / columns, (y.ravel() + 0.5) / rows], axis=1)
        cell = np.array(shapes[:count])
        boxes.append(np.concatenate([np.repeat(centres, len(cell), axis=0), np.tile(cell, (len(centres), 1))], axis=1))
    scale = np.array([size[1], size[0], size[1], size[0]], np.float64)
    return np.concatenate(boxes) * scale


def boxes_from_offsets(offsets: Array, priors: Floats) -> Floats:
    """SSD's boxes: offsets [..., A, 4] from prior boxes [A, 4] given as centre and sides; variances 0.1 and 0.2."""
    values: Floats = offsets.astype(np.float64)
    centre = values[..., :2] * _CENTRE_VARIANCE * priors[:, 2:] + priors[:, :2]
    sides = np.exp(np.clip(values[..., 2:] * _SIDE_VARIANCE, -50, 50)) * priors[:, 2:]
    return corners(np.concatenate([centre, sides], axis=-1), "cxcywh")
