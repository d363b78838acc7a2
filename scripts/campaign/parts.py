"""The parts of the campaign, in the order in which they are run."""

from __future__ import annotations

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
