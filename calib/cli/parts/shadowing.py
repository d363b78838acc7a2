"""Checking that `datasets` is this project's own: Hugging Face ships an import package of the same name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_MARKER = 'DISTRIBUTION = "calib-int8"'


def shadowing_datasets() -> str | None:
    """One line that says which other `datasets` is in the way and what to do; None if it is this project's own."""
    spec = importlib.util.find_spec("datasets")
    origin = spec.origin if spec else None
    if origin and Path(origin).is_file() and _MARKER in Path(origin).read_text(encoding="utf-8", errors="replace"):
        return None
    found = f"found another distribution's at {Path(origin).parent}" if origin else "found none"
    return (
        f"import package 'datasets': expected the one from calib-int8, {found}; "
        "install calib-int8 into an environment of its own (python -m venv), without the other 'datasets'"
    )
