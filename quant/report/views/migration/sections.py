"""The section of a migration: what became of every scale of the old cache."""

from __future__ import annotations

from typing import Any

from quant.report.views.parts import Section
from quant.report.views.tables import Column, Table, name_column, table_from_rows

_TENSORS = (
    name_column("Tensor", "tensor"),
    Column("Scale", "kind"),
    Column("Before", "before", "{:.6g}"),
    Column("After", "after", "{:.6g}"),
    name_column("Why", "why"),
)
_FORECAST = (
    "The old build is a forecast in exact arithmetic of an engine that computes in INT8 whatever has INT8 kernels and "
    "scales: its accuracy counts, its time and size do not. On a GPU with TensorRT 8.6 or 10 it is the engine itself."
)
_NAMED = 12  # products that a note names
_ENGINE = "The old build is the engine that TensorRT builds from the cache."


def migration_sections(document: dict[str, Any]) -> list[Section]:
    """Every tensor, those first whose scale is not simply kept; nothing but for a migration."""
    found = document.get("migration")
    if not found:
        return []
    notes = [f"{found['text']}.", _FORECAST if found["forecast"] else _ENGINE]
    for products, why in (
        (found["float_products"], "because the cache has no scale of what they read"),
        (found["ran_float"], "as TensorRT ran them in the old engine"),
    ):
        if products:
            named = f"{', '.join(products[:_NAMED])}{', ...' * (len(products) > _NAMED)}"
            notes.append(f"{len(products):,} products stay in float, {why}: {named}.")
    notes[0] = notes[0][0].upper() + notes[0][1:]
    rows = found["tensors"]
    table = table_from_rows(rows, "migration.tensors", _TENSORS)
    order = sorted(range(len(rows)), key=lambda i: _INTEREST.index(rows[i]["kind"]))  # stable: else the cache's order
    ordered = Table(table.titles, [table.rows[i] for i in order], what="tensors")
    return [Section("What became of the old scales", "migration", notes, [("", ordered)])]


# What differs comes first.
_INTEREST = ("had none", "unknown", "of its source", "needs none", "TensorRT's own", "kept")
