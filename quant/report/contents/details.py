"""What the report says besides the figures of each build: classes, images, tensors, layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quant.errors import BuildError
from quant.evaluation.accuracy import Evaluation
from quant.onnx_graph.model import OnnxModel
from quant.qdq.placement import Placement
from quant.qdq.writer import quantizable_tensors
from quant.report.contents.classes import confusion, per_class
from quant.report.contents.flips import flips
from quant.report.contents.layers import layers_from_build
from quant.report.contents.reliability import reliability
from quant.report.contents.tensors import tensor_rows
from quant.report.result import RunResult


def details_from_run(result: RunResult) -> dict[str, Any]:
    """The keys of a report about one build, `examined`: the one that was asked for, else FP16, else the last."""
    calibration = result.calibration
    wanted = (result.settings.precision, "fp16", *reversed(list(result.builds)))
    examined = next((name for name in wanted if name in result.candidates), None)
    document: dict[str, Any] = {
        "examined": examined,
        "command": result.command,
        "working_folder": result.working_folder,
        **details_from_evaluations(
            result.measured.evaluations,
            result.baseline,
            examined,
            result.data.eval_source.class_names,
            {name: build.precision for name, build in result.builds.items()},
        ),
        "tensors": [],
        "layers": None,
    }
    recovered = result.recovered
    if recovered is not None and recovered.calibration is not None and recovered.model is not None:
        own = recovered.calibration
        document["tensors"] = tensor_rows(
            own.cache.amax, own.statistics.histograms, _quantized(recovered.model, frozenset())
        )
    elif calibration is not None and isinstance(result.model, OnnxModel):
        histograms = calibration.statistics.histograms if calibration.statistics is not None else {}
        document["tensors"] = tensor_rows(calibration.amax, histograms, _quantized(result.model, result.float_nodes))
    if examined is not None:
        build = result.builds[examined]
        document["layers"] = layers_from_build(
            build.precision, build.details, build.graph, result.measured.layers.get(examined)
        )
    return document


def details_from_evaluations(
    evaluations: Mapping[str, Evaluation],
    baseline: str,
    examined: str | None,
    classes: Sequence[str] | None,
    precisions: Mapping[str, str],
) -> dict[str, Any]:
    """The keys that follow from evaluations alone.

    Args:
        evaluations: Evaluations by build.
        baseline: The build that the others are compared with.
        examined: The build to examine; None if there is only the baseline.
        classes: Class names by index, where known.
        precisions: Precisions of the builds, by name.
    """
    before = evaluations[baseline]
    after = evaluations[examined] if examined is not None else None
    pictured = [name for name in (baseline, examined) if name is not None]
    curves = [reliability(precisions[name], evaluations[name]) for name in pictured]
    return {
        "classes": None if classes is None else list(classes),
        "per_class": None if after is None else per_class(before, after, classes),
        "flips": None if after is None else flips(before, after, classes),
        "confusion": None if after is None else confusion(before, after, classes),
        "reliability": [curve for curve in curves if curve is not None],
    }


def _quantized(model: OnnxModel, float_nodes: frozenset[str]) -> set[str] | None:
    try:
        return set(quantizable_tensors(model.light, Placement(float_nodes=float_nodes)))
    except BuildError:
        return None
