"""Batch sizes, and heights and widths, that an engine takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quant.errors import BuildError


@dataclass(frozen=True)
class SideRange:
    """Heights or widths that an engine takes.

    Attributes:
        smallest: At least this.
        usual: The one that the engine is tuned for.
        largest: At most this.
    """

    smallest: int
    usual: int
    largest: int

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.usual <= self.largest:
            raise BuildError(f"dynamic size: expected 1 <= MIN <= OPT <= MAX, found {_text(self)}")

    def __str__(self) -> str:
        return f"{self.usual}" if self.smallest == self.largest else _text(self)


@dataclass(frozen=True)
class BatchRange:
    """Batch sizes that an engine takes, and heights and widths where these have ranges.

    Attributes:
        smallest: At least this; smaller batches are filled up.
        usual: The size that the engine is tuned for.
        largest: At most this; larger batches run in pieces.
        sides: Heights and widths of images; None where they are those of the model, or of the data.
    """

    smallest: int
    usual: int
    largest: int
    sides: tuple[SideRange, SideRange] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.usual <= self.largest:
            raise BuildError(
                f"dynamic batch: expected 1 <= MIN <= OPT <= MAX, found {self.smallest}:{self.usual}:{self.largest}"
            )

    @property
    def is_static(self) -> bool:
        """One shape only."""
        return self.smallest == self.largest and self.sides is None

    def __str__(self) -> str:
        batch = f"{self.usual}" if self.smallest == self.largest else f"{self.smallest}:{self.usual}:{self.largest}"
        return ",".join([batch, *map(str, self.sides or ())])


def batch_range_from_text(text: str) -> BatchRange:
    """Parse MIN:OPT:MAX of the batch, or that and the same of height and width, with commas between.

    A range of one size may be given as that number, but not for the batch alone.

    Raises:
        BuildError: The text is not that, or sizes do not rise.
    """
    parts = text.split(",")
    matches = [re.fullmatch(r"\s*(\d+):(\d+):(\d+)\s*|\s*(\d+)\s*", part) for part in parts]
    found = [match for match in matches if match is not None]
    if len(parts) not in (1, 3) or len(found) < len(parts) or (len(parts) == 1 and found[0][4]):
        raise BuildError(
            f"dynamic batch: expected MIN:OPT:MAX, for instance 1:8:64, found '{text:.80}'; calib build also takes "
            "ranges of height and width behind it, 1:4:8,256:320:640,256:320:640"
        )
    sizes = [[int(size) for size in ([match[4]] * 3 if match[4] else match.groups()[:3])] for match in found]
    least, usual, most = sizes[0]
    if len(sizes) == 1:
        return BatchRange(least, usual, most)
    return BatchRange(least, usual, most, (SideRange(*sizes[1]), SideRange(*sizes[2])))


def _text(sizes: SideRange) -> str:
    return f"{sizes.smallest}:{sizes.usual}:{sizes.largest}"
