"""Whether there are enough images to tell if the drop is within the limit, and how many would be enough."""

from __future__ import annotations

import math

from quant.evaluation.drop import Z95, Drop, MetricDrop, adjusted_wald

_Z80 = 0.8416212335729143  # 80 % quantile
_MOST = 10**9  # beyond this, no number of images is named


def tells(drop: Drop | MetricDrop, max_drop: float) -> bool:
    """Whether the interval lies on one side of the limit; the limit itself is allowed."""
    return drop.high <= max_drop or drop.low > max_drop


def images_needed(drop: Drop, images: int, max_drop: float) -> int | None:
    """How many images would be enough, with a probability of 80 %, if they flip as often as those seen.

    This is the smallest number at which the estimate lies 1.96 + 0.84 standard errors from the limit: the usual sample
    size for a two-sided 5 % test with 80 % power, with the standard error of the adjusted Wald interval of
    `paired_drop`.

    Args:
        drop: As measured.
        images: Number of images it was measured on.
        max_drop: The limit, percentage points.

    Returns:
        The number, rounded up to two significant digits; None if the drop is too close to the limit for any number.
    """
    lost, won = drop.lost / images, drop.won / images

    def enough(count: int) -> bool:
        middle, error = adjusted_wald(lost * count, won * count, count)
        return abs(middle - max_drop / 100) >= (Z95 + _Z80) * error

    high = max(images, 1)
    while not enough(high):
        high *= 2
        if high > _MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return _two_digits(high)


def images_from_width(width: float, distance: float, images: int) -> int | None:
    """The same for an average with a known 95 % interval, whose width shrinks with the square root of the images.

    Args:
        width: Width of the interval.
        distance: Distance from the estimate to the limit, in the same unit.
        images: Number of images it was measured on.
    """
    if not distance:
        return None
    count = images * ((Z95 + _Z80) * width / (2 * Z95) / distance) ** 2
    return _two_digits(max(math.ceil(count), images + 1)) if count <= _MOST else None


def _two_digits(count: int) -> int:
    unit = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // unit) * unit
