"""What became of an old cache's scales, and how the new build did against the old one, as data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quant.evaluation.drop import Drop
from quant.qdq.migration import HAD_NONE, KEPT, MOVED, NEEDS_NONE, TENSORRT_S, UNKNOWN
from quant.report.contents.figures import rounded
from quant.report.result import MigrationResult

_TOLD = {
    KEPT: "keep their scale",
    MOVED: "take that of their source",
    NEEDS_NONE: "need none",
    HAD_NONE: "had none and stay float",
    TENSORRT_S: "are TensorRT's own",
    UNKNOWN: "are not the model's",
}


def migration_from_result(result: MigrationResult | None) -> dict[str, Any] | None:
    """The key `migration` of a report; None but for `calib migrate`."""
    if result is None:
        return None
    drop, metric, same = result.drop, result.metric_drop, result.agreement
    return {
        "cache": result.cache,
        "header": result.header,
        "model": result.model,
        "forecast": result.forecast,
        "text": migration_in_words(result),
        "counts": result.migration.counts,
        "float_products": list(result.migration.float_products),
        "ran_float": list(result.migration.ran_float),
        "drop_top1": None if drop is None else rounded(drop.points, 4),
        "drop_ci95": None if drop is None else [rounded(drop.low, 4), rounded(drop.high, 4)],
        "metric_drop": None if metric is None else rounded(metric.drop, 6),
        "metric_drop_ci95": None if metric is None else [rounded(metric.low, 6), rounded(metric.high, 6)],
        "agreement": None if same is None else rounded(same[0], 4),
        "agreement_ci95": None if same is None else [rounded(end, 4) for end in same[1:]],
        "tensors": [asdict(account) for account in result.migration.tensors],
    }


def migration_in_words(result: MigrationResult) -> str:
    """How many scales went where, and what the new build loses against the old one, in a sentence."""
    counts = ", ".join(f"{count:,} {_TOLD[kind]}" for kind, count in result.migration.counts.items() if count)
    text = f"of {len(result.migration.tensors):,} tensors {counts}"
    if result.migration.ran_float:
        text += f"; {len(result.migration.ran_float):,} products stay float, as TensorRT ran them"
    found = result.metric_drop if result.metric_drop is not None else result.drop
    if found is not None:
        drop, of, form = (
            (found.points, "points of top-1", ".2f") if isinstance(found, Drop) else (found.drop, "", ".4g")
        )
        verb, low, high = (
            ("loses", found.low, found.high) if drop >= 0 else ("gains", 0.0 - found.high, 0.0 - found.low)
        )
        amount = f"{abs(drop):{form}} {of or 'of the score'}"
        text += f"; the new build {verb} {amount} (95 % CI {low:{form}} to {high:{form}}) against the old"
    if result.agreement is not None:
        same, low, high = result.agreement
        text += f"; both give the same class on {same:.2f} % (95 % CI {low:.2f} to {high:.2f})"
    return text
