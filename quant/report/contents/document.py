"""The report as data: the contents of `report.json`, from which the other forms are made."""

from __future__ import annotations

import datetime
import hashlib
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import calib
from quant.backend import Build
from quant.calibration.obtain import CalibrationResult
from quant.evaluation.drop import Drop, agreement_with_interval
from quant.evaluation.sample_size import images_needed, tells
from quant.onnx_graph.made_model import MadeModel
from quant.onnx_graph.model_file import sha256_of_model
from quant.report.contents.details import details_from_run
from quant.report.contents.figures import rounded
from quant.report.contents.guidance.convergence import convergence_from_run
from quant.report.contents.guidance.next_step import next_step, step_after_migration
from quant.report.contents.migration import migration_from_result
from quant.report.contents.outputs import deployed_from_evaluation, outputs_from_evaluation
from quant.report.contents.recovery import recovery_from_result
from quant.report.contents.tasks.detection import detection_from_run
from quant.report.contents.tasks.figures import figures_of_build, judged_by_labels
from quant.report.contents.tasks.scores import scores_from_run
from quant.report.contents.tasks.segmentation import segmentation_from_run
from quant.report.result import RunResult
from quant.settings.command_line import values_from_settings

SCHEMA = 1
Document = dict[str, Any]


def document_from_run(result: RunResult) -> Document:
    """The report of a run or of a comparison.

    Accuracies and agreement are in per cent, drops in percentage points, latencies in milliseconds per batch, sizes in
    bytes. A figure that does not exist (accuracy without labels, the SQNR of equal outputs) is null.
    """
    settings, data, verdict, backend = result.settings, result.data, result.verdict, result.backend
    measured, calibration = result.measured, result.calibration
    details = details_from_run(result)
    document = {
        "schema": SCHEMA,
        "verdict": verdict.verdict,
        "chosen": verdict.chosen,
        "reason": verdict.reason,
        "exit_code": verdict.exit_code,
        "max_drop": float(settings.max_drop),
        "decided_by": _decided_by(result),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {"calib": calib.__version__, backend.name: backend.version, "python": platform.python_version()},
        "model": {"path": str(result.model.path), "sha256": result.model.sha256},
        "backend": {"name": backend.name, "version": backend.version, "device": backend.device},
        "data": _data(result),
        "preprocessing": data.preprocessing.to_dict() if data.preprocessing is not None else {},
        "preprocessing_origin": data.preprocessing_origin or None,
        "quarantined": [{"file": file, "reason": reason} for file, reason in result.quarantined.items()],
        "warnings": list(result.warnings),
        "calibration": None if calibration is None else _calibration(result, calibration),
        "builds": [_build(result, name) for name in _in_order(result)],
        "failed_builds": [{"precision": name, "reason": reason} for name, reason in result.failed.items()],
        "metric": _metric(result, measured.metric),
        "detection": detection_from_run(result, details["examined"]),
        "segmentation": segmentation_from_run(result, details["examined"]),
        "scores": scores_from_run(result, details["examined"]),
        "peak_rss_mb": _peak_rss_mb(),
        "timings": {stage: round(seconds, 3) for stage, seconds in result.timings.items()},
        "timeline": {stage: [round(moment, 3) for moment in span] for stage, span in result.timeline.items()},
        **details,
        "precisions": _precisions(result),
        "recovery": recovery_from_result(result.recovered),
        "migration": migration_from_result(result.migration),
        "better_algorithm": None if result.better is None else asdict(result.better),
        "preprocessing_trial": None if result.presets is None else asdict(result.presets),
        "convergence": convergence_from_run(result),
        "settings": values_from_settings(settings),
    }
    if result.compared:
        document["compared"] = _compared(result)
    document["next"] = _next(document, result)
    return document


def _next(document: Document, result: RunResult) -> dict[str, str] | None:
    """The next step; a comparison of finished models is one itself."""
    if result.migration is not None:
        precision = result.migration.migration.precision
        return step_after_migration(document, result.settings, result.files[document["examined"]], precision)
    return None if result.compared else next_step(document, result.settings)


def _data(result: RunResult) -> Document:
    """Where calibration and evaluation images come from, and how many there are."""
    settings, data, calibration = result.settings, result.data, result.calibration
    evaluation = result.measured.evaluations[result.baseline]
    return {
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
            "labelled": evaluation.correct is not None or judged_by_labels(result.measured.metric),
        },
    }


def _compared(result: RunResult) -> list[Document]:
    """The models of a comparison."""
    return [
        {
            "role": role,
            "precision": model.precision,
            "path": model.path,
            "sha256": model.sha256,
            "found": model.precision,
            "report": model.report,
        }
        for role, model in result.compared.items()
    ]


def _in_order(result: RunResult) -> list[str]:
    """The baseline first; in a run, FP16 follows and INT8 is last."""
    usual = [precision for precision in ("fp32", "fp16", "int8") if precision in result.builds]
    return [*usual, *(name for name in result.builds if name not in usual)]


def _calibration(result: RunResult, calibration: CalibrationResult) -> Document:
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


def _build(result: RunResult, name: str) -> Document:
    measured = result.measured
    build, evaluation, latency = result.builds[name], measured.evaluations[name], measured.latencies[name]
    row: Document = {
        "precision": build.precision,
        "file": result.files.get(name, str(result.model.path) if name == result.baseline else None),
        "sha256": _sha256(result, name),
        "top1": rounded(evaluation.top1, 4),
        "top5": rounded(evaluation.top5, 4),
        "latency_ms": rounded(latency.milliseconds, 4),
        "latency_p99_ms": rounded(latency.p99, 4),
        "latency_batch": latency.batch,
        "latency_runs": latency.runs,
        "images_per_second": rounded(latency.images_per_second, 1),
        "bytes": build.bytes,
    }
    row |= figures_of_build(measured.metric, name)
    if build.details:
        row[result.backend.name] = dict(build.details)
    return row if name == result.baseline else row | _beside_baseline(result, name)


def _sha256(result: RunResult, name: str) -> str | None:
    """Hash of the file that a build's row names, and of the weights beside it; null if it has none."""
    if name in result.compared:
        return result.compared[name].sha256
    build = result.builds[name]
    if build.payload is not None and name in result.files:
        return sha256_of_build(build, result.files[name])
    return result.model.sha256 if name == result.baseline else None


def sha256_of_build(build: Build, file: str) -> str:
    """Hash of the file, and of the weights beside it, that a build is written to under this name."""
    if isinstance(build.payload, MadeModel):
        return sha256_of_model(build.payload.model(), file)
    return hashlib.sha256(build.payload or b"").hexdigest()


def _beside_baseline(result: RunResult, name: str) -> Document:
    """What a build loses and gains against the baseline."""
    measured, limit = result.measured, result.settings.max_drop
    evaluation, baseline = measured.evaluations[name], measured.evaluations[result.baseline]
    build, drop = result.builds[name], measured.drops.get(name)
    same = None
    if baseline.predicted is not None and evaluation.predicted is not None:
        same = agreement_with_interval(baseline.predicted, evaluation.predicted)
    speeds = [measured.latencies[each].images_per_second for each in (name, result.baseline)]
    return {
        "drop_top1": None if drop is None else rounded(drop.points, 4),
        "drop_ci95": None if drop is None else [rounded(drop.low, 4), rounded(drop.high, 4)],
        "lost": None if drop is None else drop.lost,
        "won": None if drop is None else drop.won,
        "enough_images": None if drop is None else tells(drop, limit),
        "images_needed": None if drop is None else _images_needed(drop, evaluation.images, limit),
        "agreement": rounded(same[0], 4) if same else None,
        "agreement_ci95": [rounded(end, 4) for end in same[1:]] if same else None,
        "cosine": rounded(evaluation.cosine, 6),
        "sqnr_db": rounded(evaluation.sqnr_db, 3),
        "outputs": outputs_from_evaluation(evaluation),
        "deployed": deployed_from_evaluation(evaluation),
        "speedup": rounded(speeds[0] / speeds[1], 3),
        "size_ratio": rounded(result.builds[result.baseline].bytes / build.bytes, 3) if build.bytes else None,
    }


def _precisions(result: RunResult) -> Document | None:
    """The file that says which products stay float, and which they are; null without one."""
    file = result.precisions
    if file is None:
        return None
    return {"path": str(file.path), "sha256": file.sha256, "float_nodes": sorted(result.float_nodes)}


def _images_needed(drop: Drop, images: int, max_drop: float) -> int | None:
    """How many images would be enough; null if these are."""
    return None if tells(drop, max_drop) else images_needed(drop, images, max_drop)


def _metric(result: RunResult, section: Mapping[str, Any] | None) -> Document | None:
    """The metric's section, with each build's precision instead of its name."""
    if section is None:
        return None
    rows = [{**row, "precision": result.builds[row["precision"]].precision} for row in section["builds"]]
    return {**{key: value for key, value in section.items() if key != section.get("part")}, "builds": rows}


def _decided_by(result: RunResult) -> str | None:
    metric = result.measured.metric
    if metric is not None and "task" in metric:
        return str(metric["decides"]) if judged_by_labels(metric) else None
    return "metric" if metric else "top1" if result.measured.drops else None


def _peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3 / 1.024), 1)
