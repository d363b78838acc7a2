"""How a table of images is to be read: its separator, the column that names images, its header; what it says of each.

What a table's other columns mean is for those who read classes (`label_file`) or several values (`datasets.values`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from datasets.errors import DatasetError
from datasets.labels.image_names import Found, ImageNames
from datasets.labels.table import Row, Table, blank_tables, separated_tables

# What headers call the two columns, the plainest first; compared without case, blanks and underscores.
FILE_WORDS = (
    "file", "filename", "filepath", "path", "image", "imagename", "imagefile", "imagepath", "imagefilename",
    "imageid", "img", "imgname", "imgpath", "fname", "name", "id",
)  # fmt: skip
LABEL_WORDS = (
    "label", "labels", "class", "classname", "classid", "classlabel", "target", "category", "categoryid", "labelname",
    "labelid", "wnid", "synset", "groundtruth", "y",
)  # fmt: skip
_HOW = {
    "path": "images are found by the end of their paths",
    "id": "images are found without their extension",
}
_FEW = 0.5  # of the rows or of the images, that a table of these images is about
_Said = TypeVar("_Said")


@dataclass(frozen=True)
class _Candidate:
    """A way to read the file: a table, the column that names images, and what each row names."""

    table: Table
    column: int
    found: tuple[Found | None, ...]

    @property
    def places(self) -> list[int | None]:
        """The image of each row, by its place."""
        return [None if found is None else found.index for found in self.found]

    @property
    def images(self) -> int:
        """Number of images named."""
        return len({place for place in self.places if place is not None})

    @property
    def rank(self) -> tuple[int, bool, int, int, bool]:
        """How well it fits: images named, rows of one length, rows that surely or outright name them, the header."""
        rows, found = self.table.rows, [found for found in self.found if found is not None]
        return (
            self.images,
            all(len(row.cells) == self.table.columns for row in rows),
            sum(each.sure for each in found),
            sum(each.how != "id" for each in found),
            word_of(rows[0].cells[self.column]) in FILE_WORDS,
        )


@dataclass(frozen=True)
class Reading:
    """How a table is read.

    Attributes:
        path: Its file.
        table: Its columns.
        column: The one that names images.
        found: The image of each row.
        header: Is the first row a header?
        names: The images.
        folder: Their folder.
    """

    path: Path
    table: Table
    column: int
    found: tuple[Found | None, ...]
    header: bool
    names: Sequence[str]
    folder: Path

    @property
    def first(self) -> tuple[str, ...]:
        """Cells of the first row, which may be the header."""
        return self.table.rows[0].cells

    def told(self, columns: str, described: int, foreign: int) -> str:
        """How the file was read, in a line.

        Args:
            columns: What the other columns are.
            described: How many images the table describes.
            foreign: How many rows name none of them.
        """
        hows = [_HOW[how] for how in _HOW if any(found is not None and found.how == how for found in self.found)]
        parts = [
            f"labels: {self.path}, images in {self.called(self.column)}, {columns}, {self.table.separator} between "
            f"({'line 1 is the header' if self.header else 'no header'})",
            f"{described:,} of {len(self.names):,} images have {'one' if columns.startswith('labels') else 'them'}",
            *hows,
            *([f"{foreign:,} rows name none of these images"] if foreign else []),
        ]
        return "; ".join(parts)

    def called(self, column: int) -> str:
        """What a column is called."""
        return repr(self.first[column].strip()[:40]) if self.header else f"column {column + 1}"


@dataclass(frozen=True)
class Described(Generic[_Said]):
    """What a table says of images.

    Attributes:
        rows: Line and what it says, by the image's place.
        foreign: Number of rows that name no image.
    """

    rows: dict[int, tuple[int, _Said]]
    foreign: int


def read_table(path: Path, text: str, folder: Path, names: Sequence[str], extensions: frozenset[str]) -> Reading:
    """How a text is to be read as a table of these images.

    Args:
        path: The file.
        text: Its text.
        folder: The images' folder.
        names: The images, relative to it.
        extensions: Extensions of images, in small letters.

    Raises:
        DatasetError: It fits the images in no way, or in several.
    """
    best = _best(path, text, folder, ImageNames(folder, names, extensions))
    return Reading(path, best.table, best.column, best.found, _is_header(best, extensions), names, folder)


def described_images(reading: Reading, said: Callable[[Row, str], _Said], what: str) -> Described[_Said]:
    """What a table says of each image; rows of other images are counted.

    Args:
        reading: How it is read.
        said: What a row says of the image of that name.
        what: That in words, such as `a label`.

    Raises:
        DatasetError: Two rows say different things of an image, or most rows are of others.
    """
    rows: dict[int, tuple[int, _Said]] = {}
    sure: dict[int, bool] = {}
    foreign, start, columns = 0, int(reading.header), reading.table.columns
    for row, found in zip(reading.table.rows[start:], reading.found[start:], strict=True):
        if len(row.cells) != columns:
            raise DatasetError(f"{reading.path}:{row.line}: expected {columns} columns, found {len(row.cells)}")
        if found is None:
            foreign += 1
            continue
        name = reading.names[found.index]
        value = said(row, name)
        earlier = rows.get(found.index)
        if earlier is None or (found.sure and not sure[found.index]):
            foreign += earlier is not None
            rows[found.index], sure[found.index] = (row.line, value), found.sure
        elif found.sure < sure[found.index]:
            foreign += 1
        elif earlier[1] != value:
            raise DatasetError(f"{reading.path}:{row.line}: {name!r} already has {what} on line {earlier[0]}")
    missing = len(reading.names) - len(rows)
    if missing and foreign and len(rows) < _FEW * min(len(reading.names), len(rows) + foreign):
        raise DatasetError(
            f"{reading.path}: names only {len(rows)} of the {len(reading.names)} images of {reading.folder}, and "
            f"{foreign} rows are of others; expected labels of these images, such as {reading.names[0]!r}"
        )
    return Described(rows, foreign)


def _best(path: Path, text: str, folder: Path, images: ImageNames) -> _Candidate:
    readings = _candidates(images, separated_tables(path, text))
    if not readings or not readings[0].images:
        readings = _candidates(images, blank_tables(text)) or readings
    if not readings:
        raise DatasetError(
            f"{path}: expected a row for each image with its name and its label, separated by a comma, a tab or a "
            f"blank, found {text[:40].strip()!r}"
        )
    best = readings[0]
    if not best.images:
        row = best.table.rows[min(1, len(best.table.rows) - 1)]
        raise DatasetError(
            f"{path}:{row.line}: no column names an image of {folder}, such as {images.names[0]!r}; found "
            f"{', '.join(repr(cell.strip()[:40]) for cell in row.cells[:4])}"
        )
    # Of two separators that fit alike, the first is meant: who uses tabs may have semicolons in a label.
    others = (other for other in readings[1:] if other.rank == best.rank and other.table is best.table)
    second = next((other for other in others if other.places != best.places), None)
    if second is not None:
        raise DatasetError(
            f"{path}: columns {best.column + 1} and {second.column + 1} both name images; put the header 'file,label' "
            "above them, in their order"
        )
    return best


def _candidates(images: ImageNames, tables: Iterable[Table]) -> list[_Candidate]:
    """The readings of tables, the one that fits best first."""
    found = [
        _Candidate(table, column, tuple(_found(images, row, column) for row in table.rows))
        for table in tables
        for column in range(table.columns)
    ]
    return sorted(found, key=lambda reading: reading.rank, reverse=True)


def _found(images: ImageNames, row: Row, column: int) -> Found | None:
    return images.find(row.cells[column]) if column < len(row.cells) else None


def word_of(cell: str) -> str:
    """A header's cell without case, blanks, underscores and dashes."""
    return cell.strip().lower().replace("_", "").replace(" ", "").replace("-", "")


def _is_header(reading: _Candidate, extensions: frozenset[str]) -> bool:
    """Is the first row a header? It names no image, and has words that headers have, or no extension as others do."""
    cells, named = reading.table.rows[0].cells, reading.found[0]
    if named is not None and named.how != "id":
        return False
    words = [word_of(cell) for cell in cells]
    if words[reading.column] in FILE_WORDS:
        return True
    if any(word in LABEL_WORDS for i, word in enumerate(words) if i != reading.column):
        return True
    others_are_ids = any(found is not None and found.how == "id" for found in reading.found)
    has_extension = PurePosixPath(cells[reading.column].strip()).suffix.lower() in extensions
    return named is None and not others_are_ids and not has_extension
