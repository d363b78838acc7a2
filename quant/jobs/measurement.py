"""Measures builds against their baseline, in the same way for runs, comparisons and sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from datasets import Batch
from quant.backend import Runnable
from quant.calibration.run_data import RunData
from quant.evaluation.accuracy import Evaluation, EvaluationBatch, evaluate
from quant.evaluation.drop import drops_from_evaluations
from quant.evaluation.latency import measure_latency
from quant.evaluation.metric import MetricRecorder, section_from_scores
from quant.progress import Console
from quant.report.result import Measurement
from quant.settings.run_settings import RunSettings

Observe = Callable[[str, Sequence[NDArray[Any]], EvaluationBatch], None]


def measured(
    runnables: Mapping[str, Runnable],
    baseline: str,
    data: RunData,
    settings: RunSettings,
    console: Console,
    recorder: MetricRecorder | None = None,
) -> Measurement:
    """Evaluate builds on the evaluation images, and time them.

    Args:
        runnables: Builds by name.
        baseline: Name of the build that the others are compared with.
        data: The images.
        settings: Batch size, seed, `max_drop`.
        console: Where progress goes.
        recorder: The user's metric, with no scores yet; None if there is none.
    """
    evaluations, quarantined = evaluated(
        runnables, baseline, data, settings, console, recorder.observe if recorder else None
    )
    latencies = measure_latency(runnables, first_batch(data, settings).inputs)
    metric = (
        section_from_scores(recorder, baseline, seed=settings.seed, max_drop=settings.max_drop) if recorder else None
    )
    return Measurement(evaluations, drops_from_evaluations(evaluations, baseline), latencies, metric, quarantined)


def evaluated(
    runnables: Mapping[str, Runnable],
    baseline: str,
    data: RunData,
    settings: RunSettings,
    console: Console,
    observe: Observe | None = None,
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Evaluations by build, and the unreadable images with the reasons; each image is read once."""
    stream = data.evaluation_stream(settings)
    with console.task("Evaluating", stream.images) as advance:
        evaluations = evaluate(runnables, baseline, stream, advance, observe)
    return evaluations, {item.file: item.reason for item in stream.quarantined}


def first_batch(data: RunData, settings: RunSettings) -> Batch:
    """The first batch of the evaluation."""
    return next(iter(islice(data.evaluation_stream(settings), 1)))
