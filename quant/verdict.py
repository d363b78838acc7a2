"""What a run concludes: which build to use, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from quant.comparison import Drop, Latency
from quant.settings import RunSettings

EXIT_DONE, EXIT_DROP = 0, 3
_AS_FAST = 1.02  # latencies that differ by less than this are the same


@dataclass(frozen=True)
class Verdict:
    """The conclusion.

    Attributes:
        verdict: pass, fail or unlabelled: does the precision that was asked for stay within `max_drop`?
        chosen: Build to use: int8, fp16 or fp32.
        reason: Why, in a sentence.
        exit_code: 0, or 3 when neither the precision that was asked for nor a fallback stays within `max_drop`.
    """

    verdict: str
    chosen: str
    reason: str
    exit_code: int


def decide(
    settings: RunSettings,
    drops: Mapping[str, Drop],
    failed: Mapping[str, str],
    latencies: Mapping[str, Latency] | None = None,
    *,
    labelled: bool,
) -> Verdict:
    """Choose the build: what was asked for, else FP16, else plain FP32.

    Args:
        settings: Precision and `max_drop`.
        drops: Measured drops by precision.
        failed: Why a precision could not be built.
        latencies: By precision, where FP16 competes with INT8 in speed; None on a CPU, where FP16 never does.
        labelled: Could a drop be measured at all?
    """
    asked = settings.precision
    if asked == "fp32":
        return Verdict("pass" if labelled else "unlabelled", "fp32", "FP32 was asked for", EXIT_DONE)
    complaints: list[str] = []
    for precision in dict.fromkeys((asked, "fp16")):
        complaint = _complaint(precision, settings.max_drop, drops, failed)
        if complaint is None:
            verdict = ("pass" if precision == asked else "fail") if labelled else "unlabelled"
            if asked in failed:
                verdict = "fail"
            outcome = _praise(precision, settings.max_drop, drops)
            idle = _not_worth_it(settings.max_drop, drops, failed, latencies) if precision == "int8" else None
            if idle is not None:
                return Verdict(verdict, "fp16", f"{outcome}; {idle}", EXIT_DONE)
            return Verdict(verdict, precision, "; ".join([*complaints, outcome]), EXIT_DONE)
        complaints.append(complaint)
    return Verdict("fail", "fp32", "; ".join([*complaints, "the plain FP32 model remains"]), EXIT_DROP)


def _complaint(precision: str, max_drop: float, drops: Mapping[str, Drop], failed: Mapping[str, str]) -> str | None:
    """What speaks against a precision; None when nothing does."""
    if precision in failed:
        return f"{precision.upper()} cannot be built ({failed[precision]})"
    drop = drops.get(precision)
    if drop is not None and drop.points > max_drop:
        return f"{precision.upper()} loses {drop.points:.2f} points of top-1, more than the allowed {max_drop:g}"
    return None


def _not_worth_it(
    max_drop: float, drops: Mapping[str, Drop], failed: Mapping[str, str], latencies: Mapping[str, Latency] | None
) -> str | None:
    """Why FP16 is the better choice though INT8 keeps within the limit; None when it is not."""
    if latencies is None or not {"int8", "fp16"} <= set(latencies) or _complaint("fp16", max_drop, drops, failed):
        return None
    int8, fp16 = latencies["int8"], latencies["fp16"]
    # By image, since a full GPU may have halved the batch of one of them.
    if fp16.milliseconds / fp16.batch > _AS_FAST * int8.milliseconds / int8.batch:
        return None
    return (
        f"but INT8 is not worth it: FP16 is as fast ({fp16.milliseconds:.3f} ms against {int8.milliseconds:.3f} ms "
        f"a batch of {int8.batch})"
    )


def _praise(precision: str, max_drop: float, drops: Mapping[str, Drop]) -> str:
    drop = drops.get(precision)
    if drop is None:
        return f"{precision.upper()} is built; without labels its drop is not known"
    return f"the drop of {precision.upper()}, {drop.points:.2f} points of top-1, is within the allowed {max_drop:g}"


def is_near_chance(top1: float, classes: int, images: int) -> bool:
    """Is this accuracy what guessing gives?

    Args:
        top1: Accuracy, per cent.
        classes: Number of classes.
        images: Number of images it was measured on.

    Returns:
        True up to three standard errors above 1 / classes, or a tenth of the way from there to 100 %.
    """
    chance = 1 / classes
    error = math.sqrt(chance * (1 - chance) / max(images, 1))
    return top1 / 100 <= chance + max(3 * error, 0.1 * (1 - chance))
