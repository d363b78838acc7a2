"""Tables in which values are counted before they join a histogram; they stay in the caches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calib.errors import NonFiniteError
from calib.histograms import kernels

BINS = 8192  # for each sign; a power of two, so that the largest magnitude lies in the upper half
# Tables that are all zero. Some are taken out while values are counted in them, so that an interrupt leaves none half
# full.
_spare: list[kernels.Tables] = []


def count_in_tables(values: ArrayLike, count: Callable[[NDArray[np.float32], kernels.Tables], int]) -> None:
    """Count values by way of tables, which stay in the caches.

    Args:
        values: Of any shape.
        count: Counts a part of the values in tables, and joins the tables with a histogram; gives the index of the
            first value that is not finite, or -1.

    Raises:
        NonFiniteError: A value is NaN or infinite; those before its chunk were counted.
    """
    flat = flat_values(values)
    for start in range(0, flat.size, kernels.MOST):
        part = flat[start : start + kernels.MOST]
        tables = taken_tables()
        index = count(part, tables)
        given_back(tables)
        if index >= 0:
            raise not_finite(flat, start + index, start)


def flat_values(values: ArrayLike) -> NDArray[np.float32]:
    """Values as one row of float32, without a copy where they lie so."""
    return np.ascontiguousarray(values, np.float32).reshape(-1)


def taken_tables() -> kernels.Tables:
    """Tables for the calling thread alone; `given_back` takes them when they are all zero again."""
    try:
        return _spare.pop()
    except IndexError:
        return kernels.Tables.of(BINS)


def given_back(tables: kernels.Tables) -> None:
    """Keep tables for the next one that needs some."""
    _spare.append(tables)


def not_finite(flat: NDArray[np.float32], index: int, start: int = 0) -> NonFiniteError:
    """The error of a value; `start` is where the part begins that was counted in one go."""
    return NonFiniteError(
        f"value {index} is {flat[index]}, expected a finite number",
        index=index,
        counted=start + (index - start) // kernels.CHUNK * kernels.CHUNK,
    )
