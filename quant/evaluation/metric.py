"""The user's own metric, for any task: detection, segmentation, regression, retrieval.

`file.py:callable` is called with a batch's outputs by name and its labels, and returns one score per image; higher is
better. A third parameter called `names` receives the images' names, for annotations in separate files. The scores are
averaged; a build's drop is FP32's average minus its own, on the same images, with a paired bootstrap interval
(B. Efron, R. Tibshirani, 1993, "An Introduction to the Bootstrap", percentile method, chapter 13).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import QuantError
from quant.evaluation.accuracy import EvaluationBatch
from quant.evaluation.drop import RESAMPLES, MetricDrop, Scores, metric_drop
from quant.evaluation.sample_size import images_from_width, tells
from quant.onnx_graph.model import ModelInterface
from quant.progress import Console
from quant.settings.run_settings import RunSettings
from quant.settings.user_code import described, load_callable


class MetricRecorder:
    """Calls the metric on every batch of every build and keeps the scores: 8 bytes per image and build.

    Attributes:
        name: The callable's name.
        spec: `file.py:callable`.
    """

    def __init__(self, spec: str, outputs: Sequence[str]) -> None:
        """Load the callable.

        Args:
            spec: `file.py:callable`.
            outputs: Names of the model's outputs, in order.

        Raises:
            QuantError: There is no such callable, or the file cannot be imported.
        """
        self.spec, self.name = spec, spec.rpartition(":")[2]
        self._path = Path(spec.rpartition(":")[0])
        self._outputs = list(outputs)
        self._metric = load_callable(spec, "metric")
        self._wants_names = _takes_names(self._metric)
        self._scores: dict[str, list[Scores]] = {}

    def observe(self, build: str, outputs: Sequence[NDArray[Any]], batch: EvaluationBatch) -> None:
        """Score a batch; `quant.evaluation.accuracy.evaluate` calls this.

        Raises:
            QuantError: The metric fails, or does not give one finite number per image.
        """
        named = dict(zip(self._outputs, outputs, strict=True))
        extra = {"names": list(batch.names)} if self._wants_names else {}
        where = f"metric {self.spec}: {build}, images '{batch.names[0]}' to '{batch.names[-1]}'"
        try:
            given = np.asarray(self._metric(named, batch.labels, **extra), np.float64)
        except Exception as error:  # whatever the user's code raises
            raise QuantError(f"{where}: {described(error, self._path)}") from error
        if given.shape != (len(batch.names),):
            raise QuantError(f"{where}: expected {len(batch.names)} scores, one per image, found shape {given.shape}")
        wrong = np.flatnonzero(~np.isfinite(given))
        if len(wrong):
            raise QuantError(f"{where}: expected finite scores, found {given[wrong[0]]} for '{batch.names[wrong[0]]}'")
        self._scores.setdefault(build, []).append(given)

    @property
    def builds(self) -> Collection[str]:
        """The builds that have scores."""
        return self._scores.keys()

    def score(self, build: str) -> float:
        """A build's average over all images."""
        return float(np.concatenate(self._scores[build]).mean())

    def drop(self, baseline: str, build: str, *, seed: int) -> MetricDrop:
        """What a build loses against the baseline."""
        scores = self.scores()
        return metric_drop(scores[baseline], scores[build], seed=seed)

    def section(self, baseline: str, *, seed: int, max_drop: float) -> dict[str, Any]:
        """See `section_from_scores`."""
        return section_from_scores(self, baseline, seed=seed, max_drop=max_drop)

    def scores(self) -> dict[str, Scores]:
        """Scores of all images by build, float64 [N]."""
        return {name: np.concatenate(parts) for name, parts in self._scores.items()}


def _takes_names(metric: Callable[..., Any]) -> bool:
    try:
        return "names" in inspect.signature(metric).parameters
    except (TypeError, ValueError):  # a callable without a readable signature
        return False


def recorder_from_settings(settings: RunSettings, model: ModelInterface, console: Console) -> MetricRecorder | None:
    """The recorder that scores a model's builds, after a note of the file that is executed; None without a metric.

    Raises:
        QuantError: See `MetricRecorder`.
    """
    if settings.metric is None:
        return None
    console.note(f"metric: executes {Path(settings.metric.rpartition(':')[0]).absolute()}")
    return MetricRecorder(settings.metric, [info.name for info in model.outputs])


def section_from_scores(recorder: MetricRecorder, baseline: str, *, seed: int, max_drop: float) -> dict[str, Any]:
    """The metric's section in a report's JSON, FP32 first.

    Args:
        recorder: After the evaluation.
        baseline: Name of the FP32 build.
        seed: Seed of the bootstrap.
        max_drop: Largest accepted drop, per cent of the magnitude of FP32's score.
    """
    scores = recorder.scores()
    score, images = float(scores[baseline].mean()), len(scores[baseline])
    allowed = max_drop / 100 * abs(score)
    rows: list[dict[str, Any]] = [{"precision": baseline, "score": score}]
    for name, values in scores.items():
        if name != baseline:
            found = metric_drop(scores[baseline], values, seed=seed)
            rows.append({"precision": name, **_row(found, images, allowed)})
    return {
        "name": recorder.name,
        "spec": recorder.spec,
        "allowed_drop": allowed,
        "images": images,
        "resamples": RESAMPLES,
        "seed": seed,
        "builds": rows,
    }


def _row(found: MetricDrop, images: int, allowed: float) -> dict[str, Any]:
    enough = tells(found, allowed)
    return {
        "score": found.score,
        "drop": found.drop,
        "drop_ci95": [found.low, found.high],
        "enough_images": enough,
        "images_needed": None if enough else images_from_width(found.high - found.low, found.drop - allowed, images),
    }
