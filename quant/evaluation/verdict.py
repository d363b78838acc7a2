"""What a run concludes: which build to use, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quant.backend import Latency
from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import Drop, agreement_with_interval
from quant.evaluation.fidelity import OutputFidelity, worst_output
from quant.evaluation.not_numbers import nan_in_words
from quant.settings.run_settings import RunSettings

EXIT_DONE, EXIT_DROP, EXIT_INVALID = 0, 3, 4
FLOOR_DB = 10.0  # an output with a tenth of noise in it: below that, a build is unfit unless labels show otherwise
_AS_FAST = 1.02  # latencies that differ by less than this are the same
_AS_FAST_ON_CPU = 1.1  # other programs share a CPU


@dataclass(frozen=True)
class Verdict:
    """The conclusion.

    Attributes:
        verdict: pass, fail, unlabelled or invalid: does the precision that was asked for stay within `max_drop`?
            Invalid where FP32 itself is at chance, so that nothing was shown.
        chosen: Build to use: int8, fp16 or fp32.
        reason: Why, in a sentence.
        exit_code: 0; 3 when neither the precision that was asked for nor a fallback stays within `max_drop`; 4 when the
            verdict is invalid.
    """

    verdict: str
    chosen: str
    reason: str
    exit_code: int


@dataclass(frozen=True)
class Loss:
    """What a build loses against FP32, or gains, as `max_drop` counts it.

    Attributes:
        too_much: Whether it is more than allowed.
        text: How much it is, without a sign, with its unit.
        allowed: What is allowed, with its unit if that is not points of top-1.
        gains: Is the build better than FP32?
    """

    too_much: bool
    text: str
    allowed: str
    gains: bool = field(default=False, kw_only=True)

    def complaint(self, build: str) -> str:
        """Say that the loss is too much; `build` is the build's name in the sentence."""
        if self.gains:  # of a limit below zero
            return f"{build} {self._verb} only {self.text}, and the largest allowed drop is {self.allowed}"
        return f"{build} {self._verb} {self.text}, more than the allowed {self.allowed}"

    def praise(self, build: str) -> str:
        """Say that the loss is allowed; `build` is the build's name in the sentence."""
        if self.gains:
            return f"{build} {self._verb} {self.text}"
        return f"the drop of {build}, {self.text}, is within the allowed {self.allowed}"

    @property
    def _verb(self) -> str:
        return "gains" if self.gains else "loses"


@dataclass(frozen=True)
class Added(Loss):
    """What a build adds to an error, which is better the lower it is, or takes off it."""

    def praise(self, build: str) -> str:
        """Say that it is allowed."""
        if self.gains:
            return super().praise(build)
        return f"{build} adds {self.text}, which is within the allowed {self.allowed}"

    @property
    def _verb(self) -> str:
        return "takes" if self.gains else "adds"


@dataclass(frozen=True)
class Agreement(Loss):
    """How far what a build answers agrees with FP32, where no labels tell what it is worth.

    Attributes:
        what: What agrees, such as `detections`.
    """

    what: str

    def complaint(self, build: str) -> str:
        """Say that they agree too little."""
        return f"{build} is unfit: its {self.what} agree with FP32's to {self.text}, below the floor of {self.allowed}"

    def praise(self, build: str) -> str:
        """Say how far they agree."""
        return f"{build}'s {self.what} agree with FP32's to {self.text}; without labels its accuracy drop is not known"


@dataclass(frozen=True)
class Findings:
    """What was measured of a run's builds, by precision.

    Attributes:
        evaluations: FP32's among them.
        drops: Measured drops of top-1; empty without labels.
        failed: Why a precision could not be built.
        latencies: Of a batch.
        engines: Are the builds engines, whose latency here is that of their deployment? Otherwise the latency is that
            of a CPU, which is no forecast for a GPU.
        metric: The user's metric, whose drop decides in place of top-1's; None without one.
    """

    evaluations: Mapping[str, Evaluation]
    drops: Mapping[str, Drop]
    failed: Mapping[str, str]
    latencies: Mapping[str, Latency]
    engines: bool = False
    metric: Mapping[str, Any] | None = None

    @property
    def known(self) -> bool:
        """Could a drop be measured at all?"""
        if self.metric is not None:
            return self.metric.get("against") != "fp32"
        return self.evaluations["fp32"].correct is not None


def losses_from_figures(
    max_drop: float, drops: Mapping[str, Drop], metric: Mapping[str, Any] | None = None
) -> dict[str, Loss]:
    """What each build loses: in the user's metric if there is one, else in top-1.

    Args:
        max_drop: Percentage points of top-1 or mAP, or per cent of FP32's score of the metric.
        drops: Drops of top-1, by build.
        metric: As `quant.evaluation.recorder.Recorder.section` gives it.
    """
    if metric is None:
        return {
            name: Loss(drop.points > max_drop, f"{amount} points of top-1", f"{max_drop}", gains=gains)
            for name, drop in drops.items()
            for amount, gains in [_amount(drop.points, ".2f")]
        }
    rows = {row["precision"]: row for row in metric["builds"][1:]}
    if metric.get("against") == "fp32":
        return {
            name: Agreement(not row["fit"], row["told"], metric["floor"], metric["what"]) for name, row in rows.items()
        }
    if metric.get("task"):
        return {name: _loss_of_task(row, metric) for name, row in rows.items()}
    allowed = f"{metric['allowed_drop']:.4g}"
    if not metric.get("allowed_in_unit"):
        allowed += f" ({max_drop:g} % of FP32's {metric['builds'][0]['score']:.4g})"
    return {
        name: Loss(row["drop"] > metric["allowed_drop"], f"{amount} of {metric['name']}", allowed, gains=gains)
        for name, row in rows.items()
        for amount, gains in [_amount(row["drop"], ".4g")]
    }


def _amount(drop: float, form: str) -> tuple[str, bool]:
    """How much a drop is, without its sign, and whether it is a gain, as far as the shown digits tell."""
    shown = f"{abs(drop):{form}}"
    return shown, drop < 0 and float(shown) > 0


def _loss_of_task(row: Mapping[str, Any], metric: Mapping[str, Any]) -> Loss:
    """What a build loses of a task's score."""
    too_much, name = row["drop"] > metric["allowed_drop"], metric["name"]
    amount, gains = _amount(row["drop"], ".2f" if metric["unit"] == "points" else ".4g")
    amount += " points" if metric["unit"] == "points" else ""
    if metric["lower_is_better"]:
        return Added(too_much, f"{amount} {'off' if gains else 'to'} the {name}", metric["limit"], gains=gains)
    return Loss(too_much, f"{amount} of {name}", metric["limit"], gains=gains)


def decide(settings: RunSettings, found: Findings) -> Verdict:
    """Choose the build: what was asked for, else FP16, else plain FP32.

    Args:
        settings: Precision and `max_drop`.
        found: What was measured.
    """
    invalid = nothing_shown(found.evaluations["fp32"], found.metric)
    if invalid:
        return Verdict("invalid", "fp32", invalid, EXIT_INVALID)
    asked, losses = settings.precision, losses_from_figures(settings.max_drop, found.drops, found.metric)
    if asked == "fp32":
        return Verdict("pass" if found.known else "unlabelled", "fp32", "FP32 was asked for", EXIT_DONE)
    complaints: list[str] = []
    for precision in dict.fromkeys((asked, "fp16")):
        complaint = _complaint(precision, losses, found)
        if complaint is not None:
            complaints.append(complaint)
            continue
        verdict = "unlabelled" if not found.known else "pass"
        if precision != asked:
            verdict = "fail"
        outcome = _praise(precision, losses, found)
        quicker, idle = _not_worth_it(losses, found) if precision == "int8" else (None, "")
        return Verdict(verdict, quicker or precision, "; ".join(filter(None, [*complaints, outcome, idle])), EXIT_DONE)
    return Verdict("fail", "fp32", "; ".join([*complaints, "the plain FP32 model remains"]), EXIT_DROP)


def _complaint(precision: str, losses: Mapping[str, Loss], found: Findings) -> str | None:
    """What speaks against a precision; None when nothing does."""
    name = precision.upper()
    if precision in found.failed:
        return f"{name} cannot be built ({found.failed[precision]})"
    return complaint_of_build(name, losses.get(precision), found.evaluations.get(precision), found.metric)


def complaint_of_build(
    name: str, loss: Loss | None, evaluation: Evaluation | None, metric: Mapping[str, Any] | None
) -> str | None:
    """What speaks against a build: too large a loss, or noise in outputs that neither labels nor a metric judge.

    Args:
        name: The build's name in the sentence.
        loss: What it loses; None where that is not known.
        evaluation: Its outputs.
        metric: The user's metric, which judges all outputs; None without one.
    """
    if loss is not None and loss.too_much:
        return loss.complaint(name)
    if evaluation is None or (loss is not None and metric is not None):
        return None
    return unfit(name, evaluation, judged=loss is not None)


def unfit(build: str, evaluation: Evaluation, *, judged: bool = False) -> str | None:
    """Why a build whose drop is not known must not be used: the noise in its outputs; None where there is little.

    Args:
        build: The build's name in the sentence.
        evaluation: Its outputs.
        judged: Do labels judge its class scores? Then only the other outputs count.
    """
    worst = worst_output([each for each in evaluation.fidelity if not (judged and each.is_scores)])
    if worst is None or worst.floor_db >= FLOOR_DB:
        return None
    return f"{build} is unfit: {worst_text(worst)}, below the floor of {FLOOR_DB:g} dB"


def worst_text(worst: OutputFidelity) -> str:
    """An output's worst part in words."""
    if math.isinf(worst.floor_db):
        return f"output '{worst.name}' has no noise at all"
    if not worst.groups or worst.sqnr_db <= worst.groups[0].sqnr_db:
        return f"output '{worst.name}' has an SQNR of {worst.sqnr_db:.1f} dB"
    group = worst.groups[0]
    return (
        f"output '{worst.name}', {group.text}, has an SQNR of {group.sqnr_db:.1f} dB "
        f"({worst.sqnr_db:.1f} dB over the whole output, which louder channels lead)"
    )


def _not_worth_it(losses: Mapping[str, Loss], found: Findings) -> tuple[str | None, str]:
    """The build that is quicker than INT8 though that keeps within the limit, and a sentence; None when there is none.

    Engines compete with FP16 and FP32; on a CPU, FP16 is no competitor, since it computes in FP32 between casts.
    """
    rivals = [
        name
        for name in (("fp16", "fp32") if found.engines else ("fp32",))
        if name in found.latencies and (name == "fp32" or _complaint(name, losses, found) is None)
    ]
    if "int8" not in found.latencies or not rivals:
        return None, ""
    int8 = found.latencies["int8"]
    # By image, since a full GPU may have halved the batch of one of them.
    best = min(rivals, key=lambda name: found.latencies[name].milliseconds / found.latencies[name].batch)
    rival = found.latencies[best]
    ratio = (int8.milliseconds / int8.batch) / (rival.milliseconds / rival.batch)
    ours, theirs = f"{int8.milliseconds:.3f} ms", f"{rival.milliseconds:.3f} ms"
    if not found.engines:
        if ratio <= _AS_FAST_ON_CPU:
            return None, ""
        return best, (
            f"but on this CPU INT8 is {ratio:.1f} times slower than {best.upper()} ({theirs} against {ours} per "
            f"batch of {int8.batch}), so {best.upper()} is to be preferred here; that is no forecast for a GPU"
        )
    if ratio * _AS_FAST < 1:
        return None, ""
    return best, (
        f"but INT8 is not worth it: {best.upper()} is as fast ({theirs} against {ours} per batch of {int8.batch})"
    )


def _praise(precision: str, losses: Mapping[str, Loss], found: Findings) -> str:
    loss = losses.get(precision)
    if loss is not None:
        return loss.praise(precision.upper())
    return closeness(precision.upper(), found.evaluations["fp32"], found.evaluations.get(precision))


def closeness(build: str, baseline: Evaluation, evaluation: Evaluation | None, against: str = "FP32") -> str:
    """What images without labels tell of a build: how often it gives the same answer, and its worst output."""
    told = []
    if evaluation is not None and baseline.predicted is not None and evaluation.predicted is not None:
        same, low, high = agreement_with_interval(baseline.predicted, evaluation.predicted)
        told.append(
            f"{build} agrees with {against} on {same:.2f} % (95 % CI {low:.2f} to {high:.2f}) of "
            f"{evaluation.images:,} images"
        )
    worst = worst_output(evaluation.fidelity) if evaluation is not None else None
    if worst is not None:
        told.append(f"at worst, {worst_text(worst)}" if told else f"{build} against {against}: {worst_text(worst)}")
    return "; ".join([*told, "without labels or a metric its accuracy drop is not known"])


def nothing_shown(baseline: Evaluation, metric: Mapping[str, Any] | None = None) -> str:
    """Why the images show nothing: NaN, a baseline at chance, a detector that finds nothing. Empty where they do.

    Args:
        baseline: The baseline's evaluation; without labels it has no chance to be at.
        metric: The section of what scores in place of top-1. Of a metric of the user's own, chance is not known.
    """
    if baseline.not_numbers:
        return nan_in_words(baseline.not_numbers)
    if metric is not None:
        return str(metric.get("nothing_shown") or "")
    if baseline.top1 is None or baseline.labels is None:
        return ""
    classes = baseline.classes or len(np.unique(baseline.labels))  # the number of a class does not tell how many
    if classes < 2 or not is_near_chance(baseline.top1, classes, baseline.images):
        return ""
    return (
        f"FP32 top-1 is {baseline.top1:.2f} %, near chance ({100 / classes:.2f} %): the preprocessing is "
        "probably wrong (--preprocess), or the labels are not in the model's order (--classes)"
    )


def is_near_chance(top1: float, classes: int, images: int) -> bool:
    """Whether this accuracy is no better than guessing.

    Args:
        top1: Accuracy, per cent.
        classes: Number of classes.
        images: Number of images it was measured on.

    Returns:
        True up to three standard errors above 1 / classes, or a tenth of the way from there to 100 %; of few images, at
        most two fifths of the way.
    """
    chance = 1 / classes
    error = math.sqrt(chance * (1 - chance) / max(images, 1))
    return top1 / 100 <= chance + min(max(3 * error, 0.1 * (1 - chance)), 0.4 * (1 - chance))
