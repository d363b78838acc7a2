"""What a run concludes: which build to use, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quant.backend import Latency
from quant.evaluation.drop import Drop
from quant.settings.run_settings import RunSettings

EXIT_DONE, EXIT_DROP = 0, 3
_AS_FAST = 1.02  # latencies that differ by less than this are the same


@dataclass(frozen=True)
class Verdict:
    """The conclusion.

    Attributes:
        verdict: pass, fail or unlabelled: whether the precision that was asked for stays within `max_drop`.
        chosen: Build to use: int8, fp16 or fp32.
        reason: Why, in a sentence.
        exit_code: 0, or 3 when neither the precision that was asked for nor a fallback stays within `max_drop`.
    """

    verdict: str
    chosen: str
    reason: str
    exit_code: int


@dataclass(frozen=True)
class Loss:
    """What a build loses against FP32, as `max_drop` counts it.

    Attributes:
        too_much: Whether it is more than allowed.
        text: How much it is, with its unit.
        allowed: What is allowed, with its unit if that is not points of top-1.
    """

    too_much: bool
    text: str
    allowed: str

    def complaint(self, build: str) -> str:
        """Say that the loss is too much; `build` is the build's name in the sentence."""
        return f"{build} loses {self.text}, more than the allowed {self.allowed}"

    def praise(self, build: str) -> str:
        """Say that the loss is allowed; `build` is the build's name in the sentence."""
        return f"the drop of {build}, {self.text}, is within the allowed {self.allowed}"


def losses_from_figures(
    max_drop: float, drops: Mapping[str, Drop], metric: Mapping[str, Any] | None = None
) -> dict[str, Loss]:
    """What each build loses: in the user's metric if there is one, else in top-1.

    Args:
        max_drop: Percentage points of top-1, or per cent of FP32's score of the metric.
        drops: Drops of top-1, by build.
        metric: As `quant.evaluation.metric.section_from_scores` gives it.
    """
    if metric is None:
        return {
            name: Loss(drop.points > max_drop, f"{drop.points:.2f} points of top-1", f"{max_drop}")
            for name, drop in drops.items()
        }
    allowed = f"{metric['allowed_drop']:.4g} ({max_drop:g} % of FP32's {metric['builds'][0]['score']:.4g})"
    return {
        row["precision"]: Loss(row["drop"] > metric["allowed_drop"], f"{row['drop']:.4g} of {metric['name']}", allowed)
        for row in metric["builds"][1:]
    }


def decide(
    settings: RunSettings,
    drops: Mapping[str, Drop],
    failed: Mapping[str, str],
    latencies: Mapping[str, Latency] | None = None,
    *,
    labelled: bool,
    metric: Mapping[str, Any] | None = None,
) -> Verdict:
    """Choose the build: what was asked for, else FP16, else plain FP32.

    Args:
        settings: Precision and `max_drop`.
        drops: Measured drops of top-1 by precision.
        failed: Why a precision could not be built.
        latencies: Latencies by precision, if FP16 competes with INT8 in speed; None on a CPU, where it never does.
        labelled: Whether a drop of top-1 could be measured at all.
        metric: The user's metric, whose drop decides instead of top-1's; None if there is none.
    """
    asked, losses = settings.precision, losses_from_figures(settings.max_drop, drops, metric)
    known = labelled or metric is not None
    if asked == "fp32":
        return Verdict("pass" if known else "unlabelled", "fp32", "FP32 was asked for", EXIT_DONE)
    complaints: list[str] = []
    for precision in dict.fromkeys((asked, "fp16")):
        complaint = _complaint(precision, losses, failed)
        if complaint is None:
            verdict = ("pass" if precision == asked else "fail") if known else "unlabelled"
            if asked in failed:
                verdict = "fail"
            outcome = _praise(precision, losses)
            idle = _not_worth_it(losses, failed, latencies) if precision == "int8" else None
            if idle is not None:
                return Verdict(verdict, "fp16", f"{outcome}; {idle}", EXIT_DONE)
            return Verdict(verdict, precision, "; ".join([*complaints, outcome]), EXIT_DONE)
        complaints.append(complaint)
    return Verdict("fail", "fp32", "; ".join([*complaints, "the plain FP32 model remains"]), EXIT_DROP)


def _complaint(precision: str, losses: Mapping[str, Loss], failed: Mapping[str, str]) -> str | None:
    """The objection to a precision; None if there is none."""
    if precision in failed:
        return f"{precision.upper()} cannot be built ({failed[precision]})"
    loss = losses.get(precision)
    return loss.complaint(precision.upper()) if loss is not None and loss.too_much else None


def _not_worth_it(
    losses: Mapping[str, Loss], failed: Mapping[str, str], latencies: Mapping[str, Latency] | None
) -> str | None:
    """Why FP16 is the better choice although INT8 stays within the limit; None if it is not."""
    if latencies is None or not {"int8", "fp16"} <= set(latencies) or _complaint("fp16", losses, failed):
        return None
    int8, fp16 = latencies["int8"], latencies["fp16"]
    # Per image, because a full GPU may have halved the batch of one of them.
    if fp16.milliseconds / fp16.batch > _AS_FAST * int8.milliseconds / int8.batch:
        return None
    return (
        f"but INT8 is not worth it: FP16 is as fast ({fp16.milliseconds:.3f} ms against {int8.milliseconds:.3f} ms "
        f"per batch of {int8.batch})"
    )


def _praise(precision: str, losses: Mapping[str, Loss]) -> str:
    loss = losses.get(precision)
    return loss.praise(precision.upper()) if loss is not None else unknown_loss(precision.upper())


def unknown_loss(build: str) -> str:
    """What to say about a build whose drop cannot be measured."""
    return f"{build} runs; without labels or a metric its drop is not known"


def is_near_chance(top1: float, classes: int, images: int) -> bool:
    """Whether this accuracy is no better than guessing.

    Args:
        top1: Accuracy, per cent.
        classes: Number of classes.
        images: Number of images it was measured on.

    Returns:
        True up to three standard errors above 1 / classes, or up to a tenth of the way from there to 100 %.
    """
    chance = 1 / classes
    error = math.sqrt(chance * (1 - chance) / max(images, 1))
    return top1 / 100 <= chance + max(3 * error, 0.1 * (1 - chance))
