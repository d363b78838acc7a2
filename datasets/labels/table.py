"""Text as a table: columns between tabs, commas or semicolons, or two columns with blanks between them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datasets.errors import DatasetError

_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}


@dataclass(frozen=True)
class Row:
    """A line's columns."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One way to read a text.

    Attributes:
        separator: What stands between its columns, in words.
        rows: Its lines but for empty ones; the first may be a header.
    """

    separator: str
    rows: tuple[Row, ...]

    @property
    def columns(self) -> int:
        """Number of columns, as the first line has them."""
        return len(self.rows[0].cells)


def separated_tables(path: Path, text: str) -> Iterator[Table]:
    """Every way to read a text as a table of at least two columns with separators between them.

    Args:
        path: Where the text is from, for the error.
        text: The text.

    Raises:
        DatasetError: The text cannot be divided, see `csv`.
    """
    first = _first_line(text)
    for separator, words in _SEPARATORS.items():
        if separator in first:
            rows = tuple(_rows(path, text, separator))
            if len(rows[0].cells) > 1:
                yield Table(words, rows)


def blank_tables(text: str) -> Iterator[Table]:
    """Every way to read a text as two columns with blanks between them; a name may hold blanks too, or a label."""
    first = _first_line(text)
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if len(first.split()) > 1:
        yield Table("blanks", tuple(Row(i, tuple(line.rsplit(None, 1))) for i, line in lines))
    if len(first.split()) > 2:
        yield Table("blanks", tuple(Row(i, tuple(line.split(None, 1))) for i, line in lines))


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


class _Reader(Protocol):
    line_num: int

    def __next__(self) -> list[str]: ...


def _rows(path: Path, text: str, separator: str) -> Iterator[Row]:
    reader: _Reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a field of over 128 KiB, or a zero byte
            raise DatasetError(f"{path}:{reader.line_num}: cannot be read as CSV: {error}") from None
        if cells and any(cell.strip() for cell in cells):
            yield Row(reader.line_num, tuple(cells))
