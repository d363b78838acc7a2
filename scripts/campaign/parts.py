"""The parts of the campaign, in the order in which they are run."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

PARTS = (
    "caches",
    "sidecars",
    "images",
    "models",
    "packs",
    "kills",
    "interrupts",
    "disk",
    "concurrency",
    "trust",
    "memory",
)


def part_module(name: str) -> Any:
    """The module of a part; a name with a dot is that of a module elsewhere."""
    return importlib.import_module(name if "." in name else f"campaign.{name}")


def present(name: str) -> bool:
    """Whether a part is there."""
    return importlib.util.find_spec(f"campaign.{name}") is not None
