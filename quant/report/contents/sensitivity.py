"""How sensitive a model's products are, as data: rows of reports, and the contents of `sensitivity.json`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import calib
from quant.onnx_graph.model import OnnxModel
from quant.recovery.float_choice.sensitivity import Sensitivity
from quant.report.contents.figures import rounded
from quant.settings.run_settings import RunSettings

SCHEMA = 1
Document = dict[str, Any]


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


def document_from_sensitivities(
    settings: RunSettings,
    model: OnnxModel,
    found: Sequence[Sensitivity],
    macs: Mapping[str, int],
    in_float: Collection[str],
    images: int,
    warnings: Sequence[str],
) -> Document:
    """The contents of `sensitivity.json`: the noisiest group first, shares in per cent, losses in points of top-1.

    Args:
        settings: Of the job.
        model: The FP32 model.
        found: The groups.
        macs: Multiply-accumulates of each product, for an image.
        in_float: Products that stay float whatever is found.
        images: How many images judged.
        warnings: What the user should read.
    """
    total = sum(macs.values())
    return {
        "schema": SCHEMA,
        "versions": {"calib": calib.__version__},
        "model": {"path": str(model.path), "sha256": model.sha256},
        "data": {"path": str(settings.data), "eval": str(settings.eval) if settings.eval else None},
        "algo": settings.algo,
        "images": images,
        "answers": any(item.changed is not None for item in found),
        "labelled": any(item.lost is not None for item in found),
        "macs": total,
        "products": rows_of_sensitivities(found, total),
        "in_float": sorted(in_float),
        "warnings": list(warnings),
    }
