"""A metric of the user's own, for any task: detection, segmentation, regression, retrieval.

`file.py:callable` is called with a batch's outputs by name and its labels, and gives one score an image, higher is
better. A third parameter called `names` is given the images' names, for annotations that lie in files of their own.
The scores are averaged; a build's drop is FP32's average minus its own, on the same images, with a paired bootstrap
interval (B. Efron, R. Tibshirani, 1993, "An Introduction to the Bootstrap", percentile method, chapter 13).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import QuantError
from quant.evaluate import EvaluationBatch
from quant.graph import ModelInterface
from quant.sample_size import images_from_width, tells
from quant.settings import RunSettings
from quant.user_code import described, load_callable

Scores = NDArray[np.float64]
RESAMPLES = 2000
_DRAWS_AT_A_TIME = 1 << 22  # image indices held at a time


@dataclass(frozen=True)
class MetricDrop:
    """A build's average score against the baseline's on the same images, in the metric's own unit.

    Attributes:
        score: This build's average.
        drop: The baseline's average minus this build's; negative when this build is better.
        low: Lower end of the 95 % bootstrap interval of the drop.
        high: Upper end.
    """

    score: float
    drop: float
    low: float
    high: float


class MetricRecorder:
    """Calls the metric on every batch of every build and keeps the scores: 8 bytes an image and build.

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
        """Score a batch; what `quant.evaluate.evaluate` calls.

        Raises:
            QuantError: The metric fails, or does not give one finite number an image.
        """
        named = dict(zip(self._outputs, outputs, strict=True))
        extra = {"names": list(batch.names)} if self._wants_names else {}
        where = f"metric {self.spec}: {build}, images '{batch.names[0]}' to '{batch.names[-1]}'"
        try:
            given = np.asarray(self._metric(named, batch.labels, **extra), np.float64)
        except Exception as error:  # whatever the user's code raises
            raise QuantError(f"{where}: {described(error, self._path)}") from error
        if given.shape != (len(batch.names),):
            raise QuantError(f"{where}: expected {len(batch.names)} scores, one an image, found shape {given.shape}")
        wrong = np.flatnonzero(~np.isfinite(given))
        if len(wrong):
            raise QuantError(f"{where}: expected finite scores, found {given[wrong[0]]} for '{batch.names[wrong[0]]}'")
        self._scores.setdefault(build, []).append(given)

    def scores(self) -> dict[str, Scores]:
        """Scores of all images by build, float64 [N]."""
        return {name: np.concatenate(parts) for name, parts in self._scores.items()}


def _takes_names(metric: Callable[..., Any]) -> bool:
    try:
        return "names" in inspect.signature(metric).parameters
    except (TypeError, ValueError):  # a callable that does not tell
        return False


def metric_drop(baseline: Scores, other: Scores, *, seed: int = 0, resamples: int = RESAMPLES) -> MetricDrop:
    """The drop between two builds that saw the same images, with its interval.

    Args:
        baseline: float64 [N], scores of the baseline.
        other: float64 [N], scores of this build, same order.
        seed: Of the resampling; the same seed gives the same interval.
        resamples: How many times N images are drawn with replacement.
    """
    differences = baseline - other
    images = len(differences)
    rng = np.random.default_rng(seed)
    at_a_time = max(1, _DRAWS_AT_A_TIME // images)
    means = []
    for start in range(0, resamples, at_a_time):
        drawn = rng.integers(0, images, (min(at_a_time, resamples - start), images))
        means.append(differences[drawn].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return MetricDrop(float(other.mean()), float(differences.mean()), float(low), float(high))


def recorder_from_settings(settings: RunSettings, model: ModelInterface) -> MetricRecorder | None:
    """What scores the builds of a model; None where no metric is asked for.

    Raises:
        QuantError: As `MetricRecorder`.
    """
    return MetricRecorder(settings.metric, [info.name for info in model.outputs]) if settings.metric else None


def section_from_scores(recorder: MetricRecorder, baseline: str, *, seed: int, max_drop: float) -> dict[str, Any]:
    """What a report's JSON holds of the metric, FP32 first.

    Args:
        recorder: After the evaluation.
        baseline: Name of the FP32 build.
        seed: Of the bootstrap.
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
