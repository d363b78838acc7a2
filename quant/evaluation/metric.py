"""The user's own metric, for any task: detection, segmentation, regression, retrieval.

`file.py:callable` is called with a batch's outputs by name and its labels, and returns one score per image; higher is
better. A third parameter called `names` receives the images' names, for annotations in separate files. The scores are
averaged; a build's drop is FP32's average minus its own, on the same images, with a paired bootstrap interval
(B. Efron, R. Tibshirani, 1993, "An Introduction to the Bootstrap", percentile method, chapter 13).

A score that is no mean over images, such as mean average precision, is an object with two methods instead, or a class
of it: `per_image` is called in the same way and returns a list with anything that is to be kept of each image, and
`score` gets such a list of all images, or of a draw of them, and returns one number.
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
from quant.evaluation.drop import RESAMPLES, MetricDrop, Scores, drop_from_draws, metric_drop, scores_of_draws
from quant.evaluation.recorder import Outputs
from quant.evaluation.sample_size import images_from_width, tells
from quant.onnx_graph.model import ModelInterface
from quant.progress import Console
from quant.settings.run_settings import RunSettings
from quant.settings.user_code import OF_USER_CODE, described, load_callable


class MetricRecorder:
    """Calls the metric on every batch of every build and keeps the scores: 8 bytes per image and build.

    Attributes:
        name: The callable's name.
        spec: `file.py:callable`.
        texts: What the labels' numbers stand for, where the metric is to get that instead; None where it is not.
        resamples: How many draws the interval of a drop is made from.
        allowed: Largest accepted drop in the metric's own unit; None where it is a share of FP32's score.
    """

    resamples = RESAMPLES
    allowed: float | None = None

    def __init__(
        self,
        spec: str,
        outputs: Sequence[str],
        texts: Sequence[str] | None = None,
        loaded: Callable[..., Any] | None = None,
    ) -> None:
        """Load the callable.

        Args:
            spec: `file.py:callable`.
            outputs: Names of the model's outputs, in order.
            texts: See above.
            loaded: The callable, where it was loaded before.

        Raises:
            QuantError: There is no such callable, or the file cannot be imported.
        """
        self.spec, self.name, self.texts = spec, spec.rpartition(":")[2], texts
        self._path = Path(spec.rpartition(":")[0])
        self._outputs = list(outputs)
        self._metric = load_callable(spec, "metric") if loaded is None else loaded
        self._wants_names = _takes_names(self._metric)
        self._scores: dict[str, list[Scores]] = {}

    def observe(self, build: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs = ()) -> None:
        """Score a batch; `quant.evaluation.accuracy.evaluate` calls this.

        Raises:
            QuantError: The metric fails, or does not give one finite number per image.
        """
        where = self._where(build, batch)
        try:
            given = np.asarray(self._called(self._metric, outputs, batch), np.float64)
        except OF_USER_CODE as error:
            raise QuantError(f"{where}: {described(error, self._path)}") from error
        if given.shape != (len(batch.names),):
            raise QuantError(
                f"{where}: expected {len(batch.names)} scores, one per image, found shape {given.shape}; for a score "
                "of all images together give a class with the methods per_image and score"
            )
        wrong = np.flatnonzero(~np.isfinite(given))
        if len(wrong):
            raise QuantError(f"{where}: expected finite scores, found {given[wrong[0]]} for '{batch.names[wrong[0]]}'")
        self._scores.setdefault(build, []).append(given)

    def _where(self, build: str, batch: EvaluationBatch) -> str:
        return f"metric {self.spec}: {build}, images '{batch.names[0]}' to '{batch.names[-1]}'"

    def _called(self, metric: Callable[..., Any], outputs: Outputs, batch: EvaluationBatch) -> Any:  # noqa: ANN401
        """What the metric gives for a batch."""
        named = dict(zip(self._outputs, outputs, strict=True))
        extra = {"names": list(batch.names)} if self._wants_names else {}
        labels: NDArray[Any] | None = batch.labels
        if labels is not None and self.texts is not None:
            labels = np.array(self.texts)[labels]
        return metric(named, labels, **extra)

    @property
    def builds(self) -> Collection[str]:
        """The builds that have scores."""
        return self._scores.keys()

    def images(self, build: str) -> int:
        """How many images were scored."""
        return sum(len(part) for part in self._scores[build])

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


class SetMetricRecorder(MetricRecorder):
    """Keeps what a metric wants of each image, and has it score all of them together, or draws of them."""

    resamples = 200  # the metric is called for each draw, and its time is not known

    def __init__(
        self,
        spec: str,
        outputs: Sequence[str],
        texts: Sequence[str] | None = None,
        loaded: Callable[..., Any] | None = None,
    ) -> None:
        """Load the metric; see `MetricRecorder`."""
        super().__init__(spec, outputs, texts, loaded)
        self._whole = _made(self._metric, spec, self._path)
        asked = getattr(self._whole, "resamples", self.resamples)
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise QuantError(f"metric {spec}: resamples: expected a whole number of at least 1, found {asked!r:.40}")
        self.resamples = asked
        self._wants_names = _takes_names(self._whole.per_image)
        self._records: dict[str, list[Any]] = {}
        self._drawn: dict[tuple[str, int], Scores] = {}

    def observe(self, build: str, outputs: Outputs, batch: EvaluationBatch, reference: Outputs = ()) -> None:
        """Keep what the metric wants of a batch.

        Raises:
            QuantError: The metric fails, or does not give something for each image.
        """
        where = self._where(build, batch)
        try:
            given = list(self._called(self._whole.per_image, outputs, batch))
        except OF_USER_CODE as error:
            raise QuantError(f"{where}: {described(error, self._path)}") from error
        if len(given) != len(batch.names):
            raise QuantError(f"{where}: expected a list of {len(batch.names)}, one for each image, found {len(given)}")
        self._records.setdefault(build, []).extend(given)
        self._drawn = {key: scores for key, scores in self._drawn.items() if key[0] != build}

    @property
    def builds(self) -> Collection[str]:
        """The builds of which something was kept."""
        return self._records.keys()

    def images(self, build: str) -> int:
        """Of how many images something was kept."""
        return len(self._records[build])

    def score(self, build: str) -> float:
        """A build's score of all images."""
        return self._scored(build, self._records[build])

    def _scored(self, build: str, records: Sequence[Any]) -> float:
        where = f"metric {self.spec}: {build}, {len(records)} images together"
        try:
            given = np.asarray(self._whole.score(list(records)), np.float64)
        except OF_USER_CODE as error:
            raise QuantError(f"{where}: {described(error, self._path)}") from error
        if given.shape != () or not np.isfinite(given):
            raise QuantError(f"{where}: expected one finite number, found {given!r:.80}")
        return float(given)

    def drop(self, baseline: str, build: str, *, seed: int) -> MetricDrop:
        """What a build loses against the baseline, with the same draws for both."""
        return drop_from_draws(self._draws(baseline, seed), self._draws(build, seed))

    def _draws(self, build: str, seed: int) -> Scores:
        if (build, seed) not in self._drawn:
            records = self._records[build]

            def scores(weights: NDArray[np.int64]) -> Scores:
                draws = (np.repeat(np.arange(len(records)), weight) for weight in weights)
                return np.array([self._scored(build, [records[i] for i in draw]) for draw in draws])

            self._drawn[build, seed] = scores_of_draws(scores, len(records), seed=seed, resamples=self.resamples)
        return self._drawn[build, seed]


def _scores_a_set(metric: Any) -> bool:  # noqa: ANN401 - the user's
    return callable(getattr(metric, "per_image", None)) and callable(getattr(metric, "score", None))


def _made(metric: Any, spec: str, path: Path) -> Any:  # noqa: ANN401 - the user's
    """The object of a class, which is made without arguments."""
    if not inspect.isclass(metric):
        return metric
    try:
        return metric()
    except OF_USER_CODE as error:
        raise QuantError(f"metric {spec}: {described(error, path)}") from error


def _takes_names(metric: Callable[..., Any]) -> bool:
    try:
        return "names" in inspect.signature(metric).parameters
    except (TypeError, ValueError):  # a callable without a readable signature
        return False


def recorder_from_settings(
    settings: RunSettings, model: ModelInterface, console: Console, texts: Sequence[str] | None = None
) -> MetricRecorder | None:
    """The recorder that scores a model's builds, after a note of the file that is executed; None without a metric.

    Raises:
        QuantError: See `MetricRecorder`.
    """
    if settings.metric is None:
        return None
    console.note(f"metric: executes {Path(settings.metric.rpartition(':')[0]).absolute()}")
    loaded = load_callable(settings.metric, "metric")
    kind = SetMetricRecorder if _scores_a_set(loaded) else MetricRecorder
    recorder = kind(settings.metric, [info.name for info in model.outputs], texts, loaded)
    recorder.allowed = settings.max_metric_drop
    return recorder


def section_from_scores(recorder: MetricRecorder, baseline: str, *, seed: int, max_drop: float) -> dict[str, Any]:
    """The metric's section in a report's JSON, FP32 first.

    Args:
        recorder: After the evaluation.
        baseline: Name of the FP32 build.
        seed: Seed of the bootstrap.
        max_drop: Largest accepted drop, per cent of the magnitude of FP32's score, unless the recorder has another.
    """
    score, images = recorder.score(baseline), recorder.images(baseline)
    share = max_drop / 100 * abs(score)
    allowed = share if recorder.allowed is None else recorder.allowed
    rows: list[dict[str, Any]] = [{"precision": baseline, "score": score}]
    for name in recorder.builds:
        if name != baseline:
            rows.append({"precision": name, **_row(recorder.drop(baseline, name, seed=seed), images, allowed)})
    return {
        "name": recorder.name,
        "spec": recorder.spec,
        "allowed_drop": allowed,
        "allowed_in_unit": recorder.allowed is not None,
        "images": images,
        "resamples": recorder.resamples,
        "seed": seed,
        "of_all": isinstance(recorder, SetMetricRecorder),
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
