"""Whether a candidate is within what is allowed, and how sure that is after several looks."""

from __future__ import annotations

import math
from statistics import NormalDist

from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import Z95, Drop, MetricDrop, adjusted_wald
from quant.evaluation.fidelity import worst_output
from quant.evaluation.verdict import FLOOR_DB
from quant.recovery.candidate import Outlook
from quant.recovery.ladder import LOOKS

LEVEL = 0.05  # of a false claim in a whole search
_QUANTILE = NormalDist().inv_cdf(1 - LEVEL / LOOKS)
AIM_DB = 20.0  # where only the noise in the outputs is known: a hundredth


def outlook_of_drop(drop: Drop, images: int, max_drop: float) -> Outlook:
    """From a drop of top-1.

    Args:
        drop: Measured against FP32.
        images: On so many images.
        max_drop: What is allowed, percentage points.
    """
    middle, error = adjusted_wald(drop.lost, drop.won, images)
    high = 100 * (middle + _QUANTILE * error)
    text = f"{drop.points:.2f} points of top-1, at most {high:.2f}"
    return Outlook(drop.points <= max_drop, high <= max_drop, _excess(drop.points, max_drop), text)


def outlook_of_metric(drop: MetricDrop, allowed: float, name: str) -> Outlook:
    """From a drop of the user's metric; the error is read off its bootstrap interval.

    Args:
        drop: Measured against FP32.
        allowed: What is allowed, in the metric's unit.
        name: The metric's.
    """
    high = drop.drop + _QUANTILE * (drop.high - drop.low) / (2 * Z95)
    text = f"{drop.drop:.4g} of {name}, at most {high:.4g}"
    return Outlook(drop.drop <= allowed, high <= allowed, _excess(drop.drop, allowed), text)


def outlook_of_noise(evaluation: Evaluation) -> Outlook:
    """From the noise in the outputs, where neither labels nor a metric tell more: nothing is claimed then."""
    worst = worst_output(evaluation.fidelity)
    level = worst.floor_db if worst is not None else math.inf
    text = f"worst output at {level:.1f} dB, {AIM_DB:g} aimed at and {FLOOR_DB:g} needed"
    return Outlook(level >= AIM_DB, False, max(10 ** ((AIM_DB - level) / 10), 1.0), text)


def _excess(loss: float, allowed: float) -> float:
    """By what factor a loss is above what is allowed; an allowed loss of nothing counts as a little."""
    return max(loss / max(allowed, 0.1 * abs(loss)), 1.0) if loss > 0 else 1.0
