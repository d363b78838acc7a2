"""Names from outside (of tensors, images, classes, files) as text that does nothing where it is shown.

A name may hold escape sequences that set a terminal's title, marks that turn the direction of writing, line breaks that
forge a second line, or half of a character, which no file can hold.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

_JOINERS = "\u200c\u200d"  # invisible too, but scripts and emoji need them
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats such as those of direction, halves of characters, breaks


def plain_text(text: str, keep: str = "") -> str:
    r"""The text with every character that is a command or cannot be seen as its escape: `\x1b`, `\u202e`.

    Args:
        text: From outside.
        keep: Characters that stay, such as a line break that is meant.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or c in _JOINERS or not _is_unseen(c) else _escape(c) for c in text)


def plain_lines(text: str) -> str:
    """The same for a text of several lines, whose line breaks and tabs are meant."""
    return plain_text(text, keep="\n\t")


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def whole_characters(value: Any) -> Any:  # noqa: ANN401 - JSON holds several types
    """A JSON value whose texts hold no halves of characters: bytes of a file's name that are not UTF-8 are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [whole_characters(item) for item in value]
    return value


def wrapped(sentence: str, width: int | None, indent: int = 2) -> list[str]:
    """A sentence in lines that are broken between words, all but the first indented; None leaves it on one line."""
    if width is None:
        return [sentence]
    return textwrap.wrap(
        sentence, max(width, 20), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def table_of_names(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], width: int | None) -> list[str]:
    """A table of figures by name, in lines of `width` columns; no name is cut.

    A name that leaves no room for its figures has a line of its own above theirs.

    Args:
        titles: Of all columns, that of the names first.
        rows: Each name with its figures.
        width: Of the terminal; None for any.
    """
    sizes = [max(map(len, column)) for column in zip(titles[1:], *(cells for _, cells in rows), strict=True)]
    widest = max(len(name) for name in (titles[0], *(name for name, _ in rows)))
    if width is not None:
        widest = max(len(titles[0]), min(widest, width - sum(size + 2 for size in sizes)))
    lines = []
    for name, cells in ((titles[0], titles[1:]), *rows):
        figures = "".join(f"  {cell:>{size}}" for cell, size in zip(cells, sizes, strict=True))
        lines += [f"{name:<{widest}}{figures}"] if len(name) <= widest else [name, " " * widest + figures]
    return lines
