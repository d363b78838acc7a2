"""Batch sizes that an engine takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quant.errors import BuildError


@dataclass(frozen=True)
class BatchRange:
    """Batch sizes that an engine takes.

    Attributes:
        smallest: At least this; smaller batches are filled up.
        usual: The size that the engine is tuned for.
        largest: At most this; larger batches run in pieces.
    """

    smallest: int
    usual: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.usual <= self.largest:
            raise BuildError(
                f"dynamic batch: expected 1 <= MIN <= OPT <= MAX, found {self.smallest}:{self.usual}:{self.largest}"
            )

    @property
    def is_static(self) -> bool:
        """One size only."""
        return self.smallest == self.largest

    def __str__(self) -> str:
        return f"{self.usual}" if self.is_static else f"{self.smallest}:{self.usual}:{self.largest}"


def batch_range_from_text(text: str) -> BatchRange:
    """Parse MIN:OPT:MAX.

    Raises:
        BuildError: The text is not three whole numbers in rising order.
    """
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", text)
    if match is None:
        raise BuildError(f"dynamic batch: expected MIN:OPT:MAX, for instance 1:8:64, found '{text}'")
    return BatchRange(*(int(part) for part in match.groups()))
