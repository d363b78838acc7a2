"""Errors as one line of bounded length, those that nobody foresaw too."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

MOST = 500  # characters; a name in a file may have any number of them
_TRACEBACK = "CALIB_TRACEBACK"


def one_line(message: str, most: int = MOST) -> str:
    """A message on one line; of a long one its beginning, which says where, and its end, which says what to do."""
    text = " ".join((message if len(message) <= 100 * most else _ends(message, 100 * most)).split())
    return text if len(text) <= most else _ends(text, most)


def _ends(text: str, most: int) -> str:
    """The beginning and the end of a text, `most` characters together."""
    first = most * 3 // 5
    return f"{text[:first]} ... {text[first + 5 - most :]}"


def unforeseen(error: Exception) -> str:
    """What to say of an error that no package raises on purpose: a fault of this program, whatever the input.

    Raises:
        Exception: The error itself, if the user asked for tracebacks.
    """
    if os.environ.get(_TRACEBACK):
        raise error
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return (
        f"unforeseen {type(error).__name__}{place}: {str(error)[:300]}; this is a fault of calib, please report it "
        f"with what {_TRACEBACK}=1 shows"
    )
