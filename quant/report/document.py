"""The report as data: what `report.json` holds, and what the other forms are made from."""

from __future__ import annotations

import datetime
import math
import platform
import resource
import sys
from typing import TYPE_CHECKING, Any

import calib
from quant.comparison import Drop, agreement
from quant.report.details import details_from_run
from quant.sample_size import images_needed, tells

if TYPE_CHECKING:
    from quant.pipeline import RunResult

SCHEMA = 1
Document = dict[str, Any]


def document_from_run(result: RunResult) -> Document:
    """The report of a run.

    Accuracies and agreement are per cent, drops percentage points, latencies milliseconds of a batch, sizes bytes. A
    figure that does not exist (accuracy without labels, the SQNR of equal outputs) is null.
    """
    settings, data, verdict = result.settings, result.data, result.verdict
    calibration = result.calibration
    evaluation = result.evaluations["fp32"]
    return {
        "schema": SCHEMA,
        "verdict": verdict.verdict,
        "chosen": verdict.chosen,
        "reason": verdict.reason,
        "exit_code": verdict.exit_code,
        "max_drop": float(settings.max_drop),
        "decided_by": "metric" if result.metric else "top1" if result.drops else None,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "calib": calib.__version__,
            result.backend.name: result.backend.version,
            "python": platform.python_version(),
        },
        "model": {"path": str(result.model.path), "sha256": result.model.sha256},
        "backend": {
            "name": result.backend.name,
            "version": result.backend.version,
            "device": result.backend.device,
        },
        "data": {
            "calibration": None
            if calibration is None
            else {
                "path": str(data.source.path),
                "images": calibration.images,
                "sha256": calibration.data_sha256,
                "sampling": settings.sampling,
                "seed": settings.seed,
            },
            "evaluation": {
                "path": str(data.eval_source.path),
                "images": evaluation.images,
                "labelled": evaluation.correct is not None,
            },
        },
        "preprocessing": data.preprocessing.to_dict() if data.preprocessing is not None else {},
        "quarantined": [{"file": file, "reason": reason} for file, reason in result.quarantined],
        "warnings": list(result.warnings),
        "calibration": None if calibration is None else _calibration(result),
        "builds": [_build(result, precision) for precision in _in_order(result)],
        "failed_builds": [{"precision": name, "reason": reason} for name, reason in result.failed.items()],
        "metric": result.metric,
        "peak_rss_mb": _peak_rss_mb(),
        **details_from_run(result),
    }


def _in_order(result: RunResult) -> list[str]:
    """FP32 first, INT8 last; what a comparison calls otherwise after that."""
    usual = [precision for precision in ("fp32", "fp16", "int8") if precision in result.builds]
    return [*usual, *(name for name in result.builds if name not in usual)]


def _calibration(result: RunResult) -> Document:
    calibration = result.calibration
    assert calibration is not None
    images, seconds = calibration.images, calibration.seconds
    ran = calibration.how == "calibrated"
    return {
        "algo": result.settings.algo,
        "parameters": {"percentile": result.settings.percentile} if result.settings.algo == "percentile" else {},
        "images": images,
        "tensors": len(calibration.cache.scales),
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1) if ran and images else None,
        "reused": calibration.how != "calibrated",
        "how": calibration.how,
        "cache": str(calibration.path),
        "zero_tensors": list(calibration.zero_tensors),
    }


def _build(result: RunResult, precision: str) -> Document:
    build, evaluation = result.builds[precision], result.evaluations[precision]
    baseline, latency = result.evaluations["fp32"], result.latencies[precision]
    row: Document = {
        "precision": precision,
        "file": result.files.get(precision, str(result.model.path) if precision == "fp32" else None),
        "top1": _rounded(evaluation.top1, 4),
        "top5": _rounded(evaluation.top5, 4),
        "latency_ms": _rounded(latency.milliseconds, 4),
        "latency_p99_ms": _rounded(latency.p99, 4),
        "latency_batch": latency.batch,
        "latency_runs": latency.runs,
        "images_per_second": _rounded(latency.images_per_second, 1),
        "bytes": build.bytes,
    }
    if build.details:
        row[result.backend.name] = dict(build.details)
    if precision == "fp32":
        return row
    drop = result.drops.get(precision)
    same = None
    if baseline.predicted is not None and evaluation.predicted is not None:
        same = agreement(baseline.predicted, evaluation.predicted)
    row |= {
        "drop_top1": None if drop is None else _rounded(drop.points, 4),
        "drop_ci95": None if drop is None else [_rounded(drop.low, 4), _rounded(drop.high, 4)],
        "lost": None if drop is None else drop.lost,
        "won": None if drop is None else drop.won,
        "enough_images": None if drop is None else tells(drop, result.settings.max_drop),
        "images_needed": None if drop is None else _images_needed(drop, evaluation.images, result.settings.max_drop),
        "agreement": _rounded(same, 4),
        "cosine": _rounded(evaluation.cosine, 6),
        "sqnr_db": _rounded(evaluation.sqnr_db, 3),
        "speedup": _rounded(latency.images_per_second / result.latencies["fp32"].images_per_second, 3),
        "size_ratio": _rounded(result.builds["fp32"].bytes / build.bytes, 3) if build.bytes else None,
    }
    return row


def _images_needed(drop: Drop, images: int, max_drop: float) -> int | None:
    """How many images would tell; null where these do."""
    return None if tells(drop, max_drop) else images_needed(drop, images, max_drop)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3 / 1.024), 1)
