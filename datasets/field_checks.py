"""Checks for the fields of a `Preprocessing`: each returns the value as one type, or says what was expected."""

from __future__ import annotations

import contextlib
import math

from datasets.errors import DatasetError


def shown(value: object) -> str:
    """A value from a file as text for an error, which must stay one line."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"


def check_option(field: str, value: object, options: tuple[str, ...]) -> None:
    """Raise an error unless the value is one of the options."""
    if value not in options:
        raise DatasetError(f"{field}: expected one of {', '.join(options)}; found {shown(value)}")


def is_int(value: object) -> bool:
    """Whether a value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def checked_number(field: str, value: object) -> float:
    """The value as a finite float."""
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        with contextlib.suppress(OverflowError):  # whole numbers have any size
            if math.isfinite(value):
                return float(value)
    raise DatasetError(f"{field}: expected a finite number, found {shown(value)}")


def checked_size(value: object) -> tuple[int, int]:
    """The value as height and width, in pixels."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(is_int(side) and side > 0 for side in value):
        return value[0], value[1]
    raise DatasetError(f"size: expected [height, width] in whole pixels, found {shown(value)}")


def checked_range(field: str, value: object) -> tuple[float, float]:
    """The value as a lower and a higher finite float."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = (checked_number(field, number) for number in value)
        if low < high:
            return low, high
    raise DatasetError(f"{field}: expected [lowest, highest] such as [0, 4095], found {shown(value)}")


def checked_per_channel(field: str, value: object, channels: int) -> tuple[float, ...]:
    """The value as one finite float for all channels, or one per channel."""
    if not isinstance(value, (list, tuple)) or len(value) not in (1, channels):
        expected = "a list of 1 number" if channels == 1 else f"a list of 1 or {channels} numbers"
        raise DatasetError(f"{field}: expected {expected}, found {shown(value)}")
    return tuple(checked_number(field, number) for number in value)
