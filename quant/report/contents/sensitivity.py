"""How sensitive a model's products are, as data: rows of reports, and the contents of `sensitivity.json`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from quant.recovery.float_choice.sensitivity import Sensitivity
from quant.report.contents.figures import rounded


def rows_of_sensitivities(
    found: Sequence[Sensitivity], macs: int, in_float: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Rows of groups of products, in the order in which they come.

    Args:
        found: The groups.
        macs: Multiply-accumulates of all products.
        in_float: Products that stay float.
    """
    return [
        {
            "node": item.group.name,
            "nodes": list(item.group.nodes),
            "op_type": " + ".join(item.group.op_types),
            "sqnr_db": rounded(item.sqnr_db, 2),
            "macs_share": rounded(100 * item.macs / macs, 3) if macs else None,
            "changed": None if item.changed is None else item.changed[0],
            "lost": rounded(item.lost, 4),
            "precision": "float" if set(item.group.nodes) <= set(in_float) else "int8",
        }
        for item in found
    ]
