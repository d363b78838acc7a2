"""Finds raw heads: outputs level by level, as exporters leave them that cut the decoding off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from quant.tasks.detection.boxes import Array
from quant.tasks.detection.grids import grid_size, stride_from_grid
from quant.tasks.detection.heads import Activation, Level, LevelsHead, by_point

_USUAL_BINS = 16  # where neither names nor a second output tell how many of the channels are boxes
_SSD_BOXES = (2, 3, 4, 5, 6)  # of a cell


def levels_head(
    names: Sequence[str],
    outputs: Mapping[int, Array],
    images: int,
    size: tuple[int, int],
    classes: int | None,
) -> LevelsHead | None:
    """The head whose levels these outputs are; None where they are none.

    Args:
        names: Of all outputs.
        outputs: Those of floats, by place.
        images: How many images they are of.
        size: Height and width of the model's input.
        classes: How many classes there are; None where that is not known.
    """
    grids = _grids(outputs, images, size)
    alone = grids is not None and len(grids) < 2  # a single level of candidates is read as any candidates are
    if not grids or (alone and (len(outputs) < 2 or any(output.ndim < 4 for output in outputs.values()))):
        return None
    each = {len(places) for places in grids.values()}
    if len(each) != 1 or len(outputs) != sum(map(len, grids.values())):
        return None
    (count,) = each
    ordered = sorted(grids, key=lambda grid: -grid[0] * grid[1])
    if count == 1:
        return _in_one(outputs, [(grid, grids[grid][0]) for grid in ordered], size, classes)
    if count in (2, 3):
        return _apart(names, outputs, [(grid, grids[grid]) for grid in ordered], size, classes)
    return None


def _grids(outputs: Mapping[int, Array], images: int, size: tuple[int, int]) -> dict[tuple[int, int], list[int]] | None:
    """Outputs by the grid they are of; None where one is of no grid."""
    grids: dict[tuple[int, int], list[int]] = {}
    points = {grid[0] * grid[1]: grid for grid in (grid_size(size, 2**k) for k in range(2, 8))}
    for place, output in outputs.items():
        if len(output) != images:
            return None
        grid: tuple[int, int] | None
        if output.ndim == 4:
            grid = next((g for g in points.values() if g in (output.shape[2:], output.shape[1:3])), None)
            grid = grid or (int(output.shape[2]), int(output.shape[3]))  # SSD's last levels have odd sizes
        elif output.ndim == 3 and output.shape[1] in points:
            grid = points[output.shape[1]]
        elif output.ndim == 3 and output.shape[2] in points:
            grid = points[output.shape[2]]
        else:
            return None
        grids.setdefault(grid, []).append(place)
    return grids


def _in_one(
    outputs: Mapping[int, Array],
    levels: Sequence[tuple[tuple[int, int], int]],
    size: tuple[int, int],
    classes: int | None,
) -> LevelsHead | None:
    """Boxes and scores of a level in one output: distributions of distances, then classes."""
    channels = {by_point(outputs[place], grid).shape[2] for grid, place in levels}
    if len(channels) != 1:
        return None
    (total,) = channels
    bins, left = divmod(total - classes, 4) if classes is not None else (_USUAL_BINS, 0)
    known = classes if classes is not None else total - 4 * bins
    strides = _strides(levels, size)
    if left or bins < 5 or known < 1 or strides is None:
        return None
    scores = [by_point(outputs[place], grid)[..., 4 * bins :] for grid, place in levels]
    made = [Level(place, place, grid, stride) for (grid, place), stride in zip(levels, strides, strict=True)]
    return LevelsHead(tuple(made), known, "distances", bins, _activation(scores))


def _apart(
    names: Sequence[str],
    outputs: Mapping[int, Array],
    levels: Sequence[tuple[tuple[int, int], list[int]]],
    size: tuple[int, int],
    classes: int | None,
) -> LevelsHead | None:
    """Boxes and scores of a level in two outputs, and perhaps the objectness in a third."""
    widths = [{place: by_point(outputs[place], grid).shape[2] for place in places} for grid, places in levels]
    boxes = [_box_output(names, outputs, grid, width, classes) for (grid, _), width in zip(levels, widths, strict=True)]
    if any(place is None for place in boxes):
        return None
    chosen = [place for place in boxes if place is not None]
    rest = [
        sorted((p for p in width if p != place), key=lambda p: -width[p])
        for width, place in zip(widths, chosen, strict=True)
    ]
    scores = [places[0] for places in rest]
    each = [width[place] for width, place in zip(widths, chosen, strict=True)]
    objectness: list[int | None] = [None] * len(levels)
    if len(rest[0]) == 2:
        objectness = [places[1] for places in rest if widths[0][rest[0][1]] == 1]
        if len(objectness) != len(levels) or set(each) != {4}:
            return None
    values = [by_point(outputs[place], grid) for (grid, _), place in zip(levels, scores, strict=True)]
    strides = _strides([(grid, 0) for grid, _ in levels], size)
    made = tuple(
        Level(place, score, grid, stride, extra)
        for (grid, _), place, score, stride, extra in zip(
            levels, chosen, scores, strides or [0] * len(levels), objectness, strict=True
        )
    )
    numbers = [by_point(outputs[place], grid) for (grid, _), place in zip(levels, chosen, strict=True)]
    boxes_of_cell = [width // 4 for width in each]
    if _is_ssd(boxes_of_cell, [array.shape[2] for array in values]):
        return _ssd(made, values, boxes_of_cell)
    if len(set(each)) != 1 or strides is None or len({array.shape[2] for array in values}) != 1:
        return None
    kind = _kind_of_boxes(numbers, boxes_of_cell[0], size, with_objectness=objectness[0] is not None)
    bins = 1 if kind == "cells" else boxes_of_cell[0]
    return LevelsHead(made, values[0].shape[2], kind, bins, _activation(values))


def _kind_of_boxes(
    numbers: Sequence[Array], bins: int, size: tuple[int, int], *, with_objectness: bool
) -> Literal["distances", "pixels", "cells"]:
    """What four numbers a box are: offsets may be negative, distances are not, and those in strides are small."""
    if with_objectness or (bins == 1 and min(float(array.min()) for array in numbers) < -1e-3):
        return "cells"
    largest = max(float(array.max()) for array in numbers)
    return "pixels" if bins == 1 and largest > max(size) / 8 else "distances"


def _box_output(
    names: Sequence[str],
    outputs: Mapping[int, Array],
    grid: tuple[int, int],
    widths: Mapping[int, int],
    classes: int | None,
) -> int | None:
    """Which of a level's outputs holds the boxes: by name, else the one of a width that is no number of classes."""
    possible = [place for place, width in widths.items() if width % 4 == 0]
    if len(possible) == 1:
        return possible[0]
    told = [p for p in possible if any(word in names[p].lower() for word in ("reg", "box", "loc", "dis", "dfl"))]
    if len(told) == 1:
        return told[0]
    others = [place for place in possible if widths[place] != classes]
    if len(others) == 1:
        return others[0]
    beyond = [p for p in possible if (by_point(outputs[p], grid) > 1).any()]
    return beyond[0] if len(beyond) == 1 else None


def _is_ssd(boxes_of_cell: Sequence[int], widths: Sequence[int]) -> bool:
    """Several boxes a cell, each with its scores: widths grow with the boxes of the cell from level to level."""
    return all(count in _SSD_BOXES for count in boxes_of_cell) and all(
        width % count == 0 and width // count == widths[0] // boxes_of_cell[0] > 1
        for width, count in zip(widths, boxes_of_cell, strict=True)
    )


def _ssd(levels: tuple[Level, ...], values: Sequence[Array], boxes_of_cell: Sequence[int]) -> LevelsHead:
    total = values[0].shape[2] // boxes_of_cell[0]
    every = np.concatenate([array.reshape(-1, total) for array in values])
    ends = {0: float((every.argmax(axis=1) == 0).mean()), -1: float((every.argmax(axis=1) == total - 1).mean())}
    background = max(ends, key=lambda end: ends[end])
    if ends[background] < 0.5:
        return LevelsHead(levels, total, "offsets", 1, _activation(values))
    plain = bool(((every >= -1e-3) & (every <= 1 + 1e-3)).all())
    return LevelsHead(levels, total - 1, "offsets", 1, "none" if plain else "softmax", background)


def _strides(levels: Sequence[tuple[tuple[int, int], int]], size: tuple[int, int]) -> list[int] | None:
    strides = [stride_from_grid(size, *grid) for grid, _ in levels]
    return [stride for stride in strides if stride is not None] if all(strides) else None


def _activation(scores: Sequence[Array]) -> Activation:
    """Scores that stay within 0 and 1 on all levels have gone through their sigmoid already."""
    return "none" if all(bool(((s >= -1e-3) & (s <= 1 + 1e-3)).all()) for s in scores) else "sigmoid"
