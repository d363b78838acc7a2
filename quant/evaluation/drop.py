"""What a build loses against a baseline on the same images, with a confidence interval, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant.evaluation.accuracy import Evaluation

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Drop:
    """Accuracy lost against a baseline on the same images.

    Attributes:
        points: Baseline's accuracy minus this build's, percentage points; negative when this build is better.
        low: Lower end of the 95 % confidence interval, percentage points.
        high: Upper end.
        lost: Images right in the baseline and wrong here.
        won: Images wrong in the baseline and right here.
    """

    points: float
    low: float
    high: float
    lost: int
    won: int


def paired_drop(baseline: NDArray[np.bool_], other: NDArray[np.bool_]) -> Drop:
    """The drop between two builds that saw the same images.

    The interval is the adjusted Wald interval for a difference of paired proportions (D. Bonett, R. Price, 2012,
    "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data", Journal of
    Educational and Behavioral Statistics 37): one image is added to each of the two discordant cells, which keeps its
    coverage near 95 % for few images and for few flips.

    Args:
        baseline: bool [N], image right in the baseline.
        other: bool [N], image right in this build, same order.
    """
    images = len(baseline)
    lost = int((baseline & ~other).sum())
    won = int((~baseline & other).sum())
    middle, error = adjusted_wald(lost, won, images)
    half = Z95 * error
    return Drop(
        points=100 * (lost - won) / images,
        low=100 * max(middle - half, -1.0),
        high=100 * min(middle + half, 1.0),
        lost=lost,
        won=won,
    )


def adjusted_wald(lost: float, won: float, images: int) -> tuple[float, float]:
    """Middle and standard error of the interval of `paired_drop`, as shares of the images."""
    p_lost, p_won = (lost + 1) / (images + 2), (won + 1) / (images + 2)
    return p_lost - p_won, math.sqrt((p_lost + p_won - (p_lost - p_won) ** 2) / (images + 2))


def agreement(baseline: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Share of images with the same top-1 class in both, per cent."""
    return 100 * float((baseline == other).mean())


def agreement_with_interval(baseline: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[float, float, float]:
    """The agreement and its 95 % interval, per cent.

    The interval is Wilson's score interval (E. Wilson, 1927, "Probable inference, the law of succession, and
    statistical inference", Journal of the American Statistical Association 22), which holds near 100 % too.
    """
    images, share = len(baseline), float((baseline == other).mean())
    squared = Z95 * Z95 / images
    middle = (share + squared / 2) / (1 + squared)
    half = Z95 * math.sqrt(share * (1 - share) / images + squared / (4 * images)) / (1 + squared)
    return 100 * share, 100 * max(middle - half, 0.0), 100 * min(middle + half, 1.0)


def drops_from_evaluations(evaluations: Mapping[str, Evaluation], baseline: str = "fp32") -> dict[str, Drop]:
    """The drop of each build against the baseline on the same images, by name; none without labels."""
    right = evaluations[baseline].correct
    if right is None:
        return {}
    return {
        name: paired_drop(right, evaluation.correct)
        for name, evaluation in evaluations.items()
        if name != baseline and evaluation.correct is not None
    }


Scores = NDArray[np.float64]
RESAMPLES = 2000
SET_RESAMPLES = 1000  # of a score that is no mean over the images, and so is computed anew for each draw
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


def metric_drop(baseline: Scores, other: Scores, *, seed: int = 0, resamples: int = RESAMPLES) -> MetricDrop:
    """The drop between two builds that saw the same images, with its interval.

    Args:
        baseline: float64 [N], scores of the baseline.
        other: float64 [N], scores of this build, same order.
        seed: Seed of the resampling; the same seed gives the same interval.
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


def drawn_weights(images: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each image is drawn, in draws of as many images as there are: int64 [resamples, images]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), resamples)


def scores_of_draws(
    score: Callable[[NDArray[np.int64]], Scores], images: int, *, seed: int = 0, resamples: int = SET_RESAMPLES
) -> Scores:
    """A score of all images, then that of each draw of images with replacement: float64 [1 + resamples].

    The same seed draws the same images for every build.

    Args:
        score: Gives the scores float64 [D] of draws, from how often each image was drawn: int64 [D, images].
        images: How many images there are.
        seed: Seed of the draws.
        resamples: How many draws.
    """
    weights = np.concatenate([np.ones((1, images), np.int64), drawn_weights(images, resamples, seed)])
    at_a_time = max(1, _DRAWS_AT_A_TIME // images)
    return np.concatenate([score(weights[start : start + at_a_time]) for start in range(0, len(weights), at_a_time)])


def drop_from_draws(baseline: Scores, other: Scores, *, lower_is_better: bool = False) -> MetricDrop:
    """What a build loses of a score, with a paired bootstrap over images.

    The same images are drawn for both builds (B. Efron, R. Tibshirani, 1993, "An Introduction to the Bootstrap",
    percentile method, chapter 13).

    Args:
        baseline: The baseline's `scores_of_draws`.
        other: The build's, of the same images and seed. Draws in which a score does not exist are NaN.
        lower_is_better: Is the score an error? Then the drop is what the build adds to it.
    """
    drops = other - baseline if lower_is_better else baseline - other
    drawn = drops[1:][np.isfinite(drops[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (float("nan"), float("nan"))
    return MetricDrop(float(other[0]), float(drops[0]), float(low), float(high))
