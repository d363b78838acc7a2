"""What the report says beyond the figures of each build: classes, images, tensors, layers, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant.errors import BuildError
from quant.evaluate import Evaluation
from quant.graph import OnnxModel
from quant.qdq import quantizable_tensors
from quant.report.classes import confusion, per_class
from quant.report.command import command_from_settings
from quant.report.flips import flips
from quant.report.layers import layers_from_build
from quant.report.reliability import reliability
from quant.report.tensors import tensor_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.pipeline import RunResult


def details_from_run(result: RunResult) -> dict[str, Any]:
    """The keys of a run's report that look into one build, `examined`: what was asked for, else FP16, else the last."""
    settings, calibration = result.settings, result.calibration
    wanted = (settings.precision, "fp16", *reversed(result.builds))
    examined = next((name for name in wanted if name in result.builds and name != "fp32"), None)
    classes = result.data.eval_source.class_names
    document: dict[str, Any] = {
        "examined": examined,
        "command": command_from_settings(settings),
        "working_folder": str(Path.cwd()),
        **details_from_evaluations(result.evaluations, examined, classes),
        "tensors": [],
        "layers": None,
    }
    if calibration is not None and isinstance(result.model, OnnxModel):
        histograms = calibration.statistics.histograms if calibration.statistics is not None else {}
        document["tensors"] = tensor_rows(calibration.amax, histograms, _quantized(result.model))
    if examined is not None:
        build = result.builds[examined]
        details: Mapping[str, Any] = getattr(build, "details", {})
        document["layers"] = layers_from_build(examined, details, build.payload, build.suffix)
    return document


def details_from_evaluations(
    evaluations: Mapping[str, Evaluation], examined: str | None, classes: Sequence[str] | None
) -> dict[str, Any]:
    """The keys that follow from evaluations alone.

    Args:
        evaluations: By build; `fp32` is the baseline.
        examined: The build that is looked into; None when there is the baseline alone.
        classes: Class names by index, where known.
    """
    baseline = evaluations["fp32"]
    build = evaluations[examined] if examined is not None else None
    pictured = [name for name in ("fp32", examined) if name is not None]
    curves = [curve for name in pictured if (curve := reliability(name, evaluations[name])) is not None]
    return {
        "classes": None if classes is None else list(classes),
        "per_class": None if build is None else per_class(baseline, build, classes),
        "flips": None if build is None else flips(baseline, build, classes),
        "confusion": None if build is None else confusion(baseline, build, classes),
        "reliability": curves,
    }


def _quantized(model: OnnxModel) -> set[str] | None:
    try:
        return set(quantizable_tensors(model.proto))
    except BuildError:
        return None
