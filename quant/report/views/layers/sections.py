"""The sections on layers: each with its nodes and time, each node with its layers, and the builds that were tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quant.report.views.names import examined_name
from quant.report.views.parts import Section
from quant.report.views.tables import Cell, Column, Table, name_column, table_from_rows

_LAYERS = (
    name_column("Layer", "name"),
    name_column("Type", "type"),
    Column("Runs in", "precision"),
    Column("ms", "ms", "{:.4f}"),
)
_NODES = (
    name_column("Node", "name"),
    Column("Operator", "type"),
    Column("Runs in", "precision"),
    Column("ms", "ms", "{:.4f}"),
)
_TRIED = (
    name_column("Pairs", "pairs"),
    Column("ms", "milliseconds", "{:.4g}"),
    Column("Work in INT8", "int8_work", "{:.0%}"),
    Column("Build, s", "seconds", "{:.0f}"),
    Column("Taken", "taken"),
    name_column("Not built, because", "error"),
)
_SHOWN = 12


def layer_sections(document: dict[str, Any]) -> list[Section]:
    """Layers by precision, and with an engine: which nodes each holds, and which layers each node became."""
    found = document.get("layers")
    if not found:
        return []
    counts = ", ".join(f"{count:,} in {name.upper()}" for name, count in found["precisions"].items())
    notes = [f"In the {examined_name(document)} build, according to its {found['source']}: {counts}."]
    nodes = found.get("nodes", [])
    layers = _layer_table(found)
    if not nodes:
        return [Section("Which layers run in which precision", "layers", notes, [("", layers)])]
    if any(layer.get("ms") is not None for layer in found["layers"]):
        notes.append(
            "Times are of one execution, by TensorRT's profiler, which waits after each layer: together they are more "
            "than the latency. A node's time is that of its layers, which other nodes may share."
        )
    without = sum(not node["layers"] for node in nodes)
    notes.append(f"{len(nodes) - without:,} of {len(nodes):,} nodes have a layer; Q/DQ pairs are not listed.")
    tables = [("Layers and their nodes", layers), ("Nodes and their layers", _node_table(found))]
    return [Section("Which layers run in which precision", "layers", notes, tables)]


def tried_sections(document: dict[str, Any]) -> list[Section]:
    """The placements of Q/DQ pairs that an explicit build tried."""
    for i, build in enumerate(document["builds"]):
        tried = (build.get("tensorrt") or {}).get("explicit_builds")
        if tried:
            rows = [{**row, "error": row["error"] or None, "taken": "yes" if row["taken"] else None} for row in tried]
            table = table_from_rows(rows, f"builds.{i}.tensorrt.explicit_builds", _TRIED)
            notes = [
                "Explicit quantization is INT8 wherever a Q/DQ pair is, faster or not. So placements were built and "
                "timed, until one was as fast as TensorRT's own choice; else the fastest is taken."
            ]
            return [Section("Placements of Q/DQ pairs that were tried", "tried", notes, [("", table)])]
    return []


def _layer_table(found: dict[str, Any]) -> Table:
    """Slowest first, or where no times are known, those in float first."""
    rows, build = found["layers"], found["build"]
    table = table_from_rows(rows, "layers.layers", _LAYERS)
    titles, cells = list(table.titles), [list(row) for row in table.rows]
    if any("nodes" in row for row in rows):
        titles.append("Nodes")
        for i, row in enumerate(rows):
            cells[i].append(_names_cell(row.get("nodes", []), f"layers.layers.{i}.nodes", _instead(row)))
    timed = any(row.get("ms") is not None for row in rows)
    order = sorted(
        range(len(rows)), key=lambda i: (-(rows[i].get("ms") or 0.0) if timed else rows[i]["precision"] == build, i)
    )
    return Table(titles, [cells[i] for i in order], shown=_SHOWN, brief=10, what="layers")


def _node_table(found: dict[str, Any]) -> Table:
    """Slowest first; those without a layer last, with the reason."""
    rows, layers = found["nodes"], found["layers"]
    table = table_from_rows(rows, "layers.nodes", _NODES)
    cells = []
    for i, row in enumerate(rows):
        names = [layers[place]["name"] for place in row["layers"]]
        reason = Cell(row["reason"] or "none", f"layers.nodes.{i}.reason" if row["reason"] else "", is_name=True)
        cells.append([*table.rows[i], _names_cell(names, f"layers.nodes.{i}.layers") if names else reason])
    order = sorted(range(len(rows)), key=lambda i: (not rows[i]["layers"], -(rows[i].get("ms") or 0.0), i))
    return Table(
        [*table.titles, "Layers, or why none"], [cells[i] for i in order], shown=_SHOWN, brief=10, what="nodes"
    )


def _names_cell(names: Sequence[str], key: str, instead: str = "") -> Cell:
    """Up to three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return Cell(", ".join(names[:3]) + more, key, is_name=True) if names else Cell(instead, is_name=True)


def _instead(row: dict[str, Any]) -> str:
    return "none: it copies between formats" if row.get("copies") else "none that it names"
