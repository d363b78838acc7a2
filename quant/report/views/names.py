"""What a report calls its builds: by their precision, or by their files after a migration or if two have the same."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any


def build_names(document: dict[str, Any]) -> list[str]:
    """A name for each row of `builds`, the baseline's first."""
    rows = document["builds"]
    precisions = [row["precision"].upper() for row in rows]
    if len(set(precisions)) == len(rows) and not document.get("migration"):
        return precisions
    paths = [row.get("file") or row["precision"] for row in rows]
    names = [PurePath(path).name for path in paths]
    return names if len(set(names)) == len(rows) else paths


def baseline_name(document: dict[str, Any]) -> str:
    """The build that the others are compared with."""
    return build_names(document)[0]


def examined_name(document: dict[str, Any]) -> str:
    """The build that is examined; empty if there is only the baseline."""
    place = examined_place(document)
    return "" if place is None else build_names(document)[place]


def examined_place(document: dict[str, Any]) -> int | None:
    """The place of the build that is examined among the rows of `builds`; None if there is only the baseline.

    A comparison names its builds by their roles, which no row has: the last is the one that is examined.
    """
    if document.get("examined") is None:
        return None
    places = [i for i, row in enumerate(document["builds"]) if row["precision"] == document["examined"]]
    return places[-1] if places else len(document["builds"]) - 1


def chosen_name(document: dict[str, Any]) -> str:
    """The build to use."""
    roles = [row["role"] for row in document.get("compared") or ()]
    chosen: str = document["chosen"]
    return build_names(document)[roles.index(chosen)] if chosen in roles else chosen.upper()
