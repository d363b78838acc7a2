"""The result of a sweep as data: the contents of `sweep.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import calib
from quant.report.contents.document import sha256_of_build
from quant.report.contents.figures import rounded
from quant.report.result import SweepResult, SweepRow
from quant.settings.command_line import values_from_settings
from quant.settings.run_settings import RunSettings

SCHEMA = 1
Document = dict[str, Any]


def document_from_sweep(result: SweepResult) -> Document:
    """The contents of `sweep.json`: accuracies and agreement in per cent, drops in percentage points, best first.

    What a run's report says of its data and of the build that was kept, this says under the same keys, so that
    `calib compare` takes a sweep where it takes a run.
    """
    settings = result.settings
    choice, data, calibration = result.choice, result.data, result.calibration
    return {
        "schema": SCHEMA,
        "versions": {"calib": calib.__version__, result.backend.name: result.backend.version},
        "model": {"path": str(result.model.path), "sha256": result.model.sha256},
        "backend": {
            "name": result.backend.name,
            "version": result.backend.version,
            "device": result.backend.device,
        },
        "data": {
            "path": str(settings.data),
            "eval": str(settings.eval) if settings.eval else None,
            "calibration": {"images": calibration.images, "sha256": calibration.data_sha256},
            "evaluation": {"path": str(data.eval_source.path), "images": result.baseline.images},
        },
        "preprocessing": data.preprocessing.to_dict() if data.preprocessing is not None else {},
        "calibration": {"cache": str(calibration.path), "images": calibration.images},
        "chosen": "int8",
        "builds": [{"precision": "int8", "file": result.kept, "sha256": sha256_of_build(result.build, result.kept)}],
        "settings": values_from_settings(settings),
        "working_folder": str(Path.cwd()),
        "images": result.baseline.images,
        "fp32_top1": rounded(result.baseline.top1, 4),
        "metric": {"name": result.metric[0], "fp32": result.metric[1]} if result.metric else None,
        "rows": [_row(row) for row in result.rows],
        "best": result.rows[0].name,
        "kept": result.kept,
        "worst": result.rows[-1].name,
        "decided_by": "metric" if result.metric else "top1" if result.rows[0].drop else "sqnr",
        "per_tensor": None
        if choice is None
        else {
            "start": choice.start,
            "start_sqnr_db": rounded(choice.start_sqnr_db, 3),
            "sqnr_db": rounded(choice.sqnr_db, 3),
            "confirmed_start_sqnr_db": rounded(choice.confirmed_start_sqnr_db, 3),
            "confirmed_sqnr_db": rounded(choice.confirmed_sqnr_db, 3),
            "changed": choice.changed,
            "as_good_as_best": _is_as_good_as_best(result),
            "algorithms": dict(choice.algorithms),
        },
        "again": _command(result.rows[0], settings),
        "warnings": list(result.warnings),
    }


def _is_as_good_as_best(result: SweepResult) -> bool:
    """Whether the choice by tensor loses no more than the best single algorithm, by SQNR if no drop is known."""
    mixture = next(row for row in result.rows if row.algorithm is None)
    single = next(row for row in result.rows if row.algorithm is not None)
    if mixture.drop is None and mixture.metric is None:
        return mixture.rank <= single.rank
    return mixture.rank[0] <= single.rank[0]


def _row(row: SweepRow) -> Document:
    drop, metric = row.drop, row.metric
    return {
        "name": row.name,
        "top1": rounded(row.evaluation.top1, 4),
        "drop_top1": None if drop is None else rounded(drop.points, 4),
        "drop_ci95": None if drop is None else [rounded(drop.low, 4), rounded(drop.high, 4)],
        "metric": None if metric is None else metric.score,
        "metric_drop": None if metric is None else metric.drop,
        "metric_ci95": None if metric is None else [metric.low, metric.high],
        "agreement": rounded(row.agreement, 4),
        "sqnr_db": rounded(row.evaluation.sqnr_db, 3),
    }


def _command(best: SweepRow, settings: RunSettings) -> str:
    """The `calib run` command that uses what was kept."""
    run = "calib run --backend tensorrt" if settings.backend == "tensorrt" else "calib run"
    if best.algorithm is None:
        return f"{run} --algo entropy --cache {settings.cache_path} --trust-cache"
    percentile = getattr(best.algorithm, "percentile", None)
    return f"{run} --algo {best.algorithm.name}" + (f" --percentile {percentile:g}" if percentile else "")
