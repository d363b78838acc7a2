"""What a run warns of, besides what its parts say themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from calib.caches.plausibility import ENOUGH_IMAGES, plausibility
from calib.calibrator import MinMaxCalibrator
from quant.calibration.obtain import CalibrationResult
from quant.calibration.run_data import RunData
from quant.collectors.collector import Collector
from quant.errors import BuildError
from quant.evaluation.accuracy import Evaluation
from quant.evaluation.deployment import deployment_line
from quant.evaluation.verdict import nothing_shown
from quant.jobs.measurement import first_batches
from quant.onnx_graph.batch_norm import is_in_training
from quant.onnx_graph.model import OnnxModel
from quant.onnx_graph.tracing import nodes_within
from quant.progress import RecordingConsole
from quant.qdq.float_products import products_left_float
from quant.qdq.preparation import prepared_for_quantization
from quant.report.result import Measurement
from quant.settings.run_settings import RunSettings

BASELINE = "fp32"


def warn_of_the_graph(model: OnnxModel, listener: RecordingConsole) -> None:
    """Say which products stay float, and that a model is in training mode."""
    nodes = nodes_within(model.graph.graph)
    training = sum(node.op_type == "BatchNormalization" and is_in_training(node) for node in nodes)
    if training:
        listener.warn(
            f"{training} BatchNormalization nodes are in training mode: the model computes with the statistics of each "
            "batch, not with those it learned; export it after model.eval()"
        )
    with contextlib.suppress(BuildError):  # the build says what is wrong
        left = products_left_float(prepared_for_quantization(model.light))
        if left:
            listener.warn(f"{left.text}; INT8 buys nothing there")


def warn_of_quarantined(quarantined: Mapping[str, str], listener: RecordingConsole) -> None:
    """Say how many images could not be read, and why the first could not."""
    if quarantined:
        first = next(iter(quarantined))
        listener.warn(f"{len(quarantined)} unreadable images were left out, {first} first: {quarantined[first]}")


def warn_of_zeros(calibration: CalibrationResult, listener: RecordingConsole) -> None:
    """Say which tensors were zero throughout."""
    zeros = calibration.zero_tensors
    if zeros:
        listener.warn(
            f"{len(zeros)} tensors were zero for all calibration images, '{zeros[0]}' first; they get amax 1 (any "
            "positive value represents zeros)"
        )


def warn_of_implausible_scales(
    calibration: CalibrationResult | None,
    model: OnnxModel,
    data: RunData,
    settings: RunSettings,
    collector: Collector,
    listener: RecordingConsole,
) -> None:
    """Check a trusted cache, which says nothing about its data, with a few images: can its scales be right?"""
    if calibration is None or calibration.how != "trusted":
        return
    few = MinMaxCalibrator(first_batches(data, settings, ENOUGH_IMAGES))
    collector.collect(model, few)
    found = plausibility(calibration.cache, few.statistics)
    if found.text:
        listener.warn(f"{calibration.path}: {found.text}; recalibrate without --trust-cache")


def warn_near_chance(found: Measurement, listener: RecordingConsole) -> None:
    """Say where FP32 itself shows nothing."""
    baseline = found.evaluations[BASELINE]
    of_task = found.metric if found.metric is not None and "task" in found.metric else None
    problem = nothing_shown(baseline, of_task)
    if problem and not baseline.not_numbers:  # these were told where they were found
        listener.warn(problem)


def warn_of_deployment(evaluations: Mapping[str, Evaluation], listener: RecordingConsole) -> None:
    """Say where what a user would run gives other answers than the build as it is written."""
    for name, evaluation in evaluations.items():
        line = deployment_line(name, evaluation)
        if line is not None:
            listener.warn(line)
