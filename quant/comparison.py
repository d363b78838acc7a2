"""Comparing builds on the same images: the drop with its confidence interval, agreement, latency."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quant.evaluate import Evaluation, Runnable

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
_LATENCY_SECONDS = 2.0  # per build
_LATENCY_RUNS = (5, 50)  # at least, at most


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


@dataclass(frozen=True)
class Latency:
    """Time of one run.

    Attributes:
        milliseconds: Median of a batch.
        batch: Images in it.
        runs: How many were timed.
        p99: 99th percentile of a batch; None where runs are too few for one.
    """

    milliseconds: float
    batch: int
    runs: int
    p99: float | None = None

    @property
    def images_per_second(self) -> float:
        """Throughput at that batch size."""
        return 1000 * self.batch / self.milliseconds


class MeasuredLatency(Protocol):
    """A latency that a build measured by itself; the fields are those of `Latency`."""

    @property
    def milliseconds(self) -> float: ...  # noqa: D102 - see the class
    @property
    def batch(self) -> int: ...  # noqa: D102 - see the class
    @property
    def runs(self) -> int: ...  # noqa: D102 - see the class
    @property
    def p99(self) -> float: ...  # noqa: D102 - see the class


@runtime_checkable
class TimesItself(Protocol):
    """A build with a better clock than the host's: an engine, by the GPU's events."""

    def latency(self, inputs: Mapping[str, NDArray[Any]]) -> MeasuredLatency: ...  # noqa: D102 - see the class


def measure_latency(
    builds: Mapping[str, Runnable], inputs: Mapping[str, NDArray[Any]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, Latency]:
    """Time all builds on the same batch, in turn, so that a drifting machine meets them alike.

    One run of each warms it up. Builds are then timed for about two seconds each, at least 5 and at most 50 times.
    Builds that time themselves do.

    Args:
        builds: Builds by name.
        inputs: One batch by input name.
        clock: Seconds, monotonic.
    """
    if builds and all(isinstance(build, TimesItself) for build in builds.values()):
        measured = {name: build.latency(inputs) for name, build in builds.items() if isinstance(build, TimesItself)}
        return {name: Latency(m.milliseconds, m.batch, m.runs, m.p99) for name, m in measured.items()}
    batch = len(next(iter(inputs.values())))
    seconds: dict[str, list[float]] = {name: [] for name in builds}
    for build in builds.values():
        build.run(inputs)
    while True:
        waiting = [name for name, times in seconds.items() if not _timed_enough(times)]
        if not waiting:
            break
        for name in waiting:
            start = clock()
            builds[name].run(inputs)
            seconds[name].append(clock() - start)
    return {name: Latency(1000 * statistics.median(times), batch, len(times)) for name, times in seconds.items()}


def _timed_enough(times: list[float]) -> bool:
    least, most = _LATENCY_RUNS
    return len(times) >= most or (len(times) >= least and sum(times) >= _LATENCY_SECONDS)


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
