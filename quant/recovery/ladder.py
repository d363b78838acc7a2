"""Recovering accuracy step by step, each kept only where it is better beyond chance on images it was not made from.

1. `equalize`: channels of different magnitude share a scale well (`quant.recovery.channels.equalization`).
2. `ranges`: the algorithm whose scales leave the least noise in the outputs (`quant.recovery.ranges`).
3. `bias`: shifted means are taken back (`quant.recovery.bias_correction`).
4. If the loss is still too large: `ranges` again, another algorithm for single tensors, and `weights`, rounded by what
   they do to the output (`quant.recovery.weight_rounding`).
5. `float`: the products with the most noise for the least work stay float, as few as meet the target.

Calibration images are divided: some make the steps, the others judge them. The images of the evaluation are looked at
only to tell whether the loss is within the target: after the first three steps together, after the fourth, and after
each attempt of the fifth. The first candidate that is within it is taken. That the target is met is claimed only where
the loss is within it at a level of confidence that makes up for so many looks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import onnx
from numpy.typing import NDArray

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.histograms.statistics import Statistics
from quant.errors import BuildError, ModelError
from quant.onnxruntime.session_in_parts import SessionInParts
from quant.recovery.bias_correction import with_corrected_biases
from quant.recovery.candidate import Candidate, Outlook
from quant.recovery.channels.equalization import equalize
from quant.recovery.float_choice.search import FLOAT_LOOKS, FloatSearch
from quant.recovery.float_choice.sensitivity import Sensitivity, macs_of_products
from quant.recovery.inner_values import single_images
from quant.recovery.judging import Judge, is_beyond_chance, level_db
from quant.recovery.ranges import AVERAGE, candidates_of, changed_scales
from quant.recovery.weight_rounding import with_rounded_weights

Array = NDArray[Any]
Inputs = Mapping[str, Array]

LOOKS = 2 + FLOAT_LOOKS
_EQUALIZED_FROM = 64  # images


@dataclass(frozen=True)
class Rung:
    """One step.

    Attributes:
        step: One of `RECOVERY_STEPS`.
        kept: Whether it was better beyond chance.
        before_db: SQNR of the outputs on the judging images before it, dB; see `quant.recovery.judging`.
        after_db: The same with it.
        seconds: What it took.
        detail: What it did, in words.
    """

    step: str
    kept: bool
    before_db: float
    after_db: float
    seconds: float
    detail: str


@dataclass(frozen=True)
class Recovery:
    """How far recovery came.

    Attributes:
        candidate: The last candidate.
        rungs: The steps tried, in order.
        looks: What each look at the evaluation images told.
        met: Whether the target is met beyond chance.
        sensitivities: Of the products, the noisiest first; empty where none had to stay float.
        macs: Multiply-accumulates of each product that INT8 can compute, for one image.
        evaluations: How many candidates the search of the fifth step ran.
        seconds: What all of it took.
    """

    candidate: Candidate
    rungs: tuple[Rung, ...]
    looks: tuple[str, ...]
    met: bool
    sensitivities: tuple[Sensitivity, ...] = ()
    macs: Mapping[str, int] = field(default_factory=dict)
    evaluations: int = 0
    seconds: float = 0.0

    @property
    def int8_share(self) -> float:
        """Share of the multiply-accumulates that INT8 computes, of those that it can."""
        total = sum(self.macs.values())
        left = sum(self.macs.get(name, 0) for name in self.candidate.float_nodes)
        return 1 - left / total if total else 1.0


class Ladder:
    """Climbs until the target is met or the steps are used up."""

    def __init__(
        self,
        start: Candidate,
        fit: Sequence[Inputs],
        search: Judge,
        judge: Judge,
        calibrate: Callable[[onnx.ModelProto], Statistics],
        note: Callable[[str], None],
        fixed_batch: int | None = None,
    ) -> None:
        """Begin.

        Args:
            start: The candidate that lost too much.
            fit: Inputs of the images that steps are made from.
            search: Judges by those.
            judge: Judges by others.
            calibrate: Collects the statistics of another float model.
            note: Called with a line about each step.
            fixed_batch: Batch size that the model requires; None if any will do.
        """
        self._now, self._fit, self._search, self._judge = start, fit, search, judge
        self._calibrate, self._note, self._fixed_batch = calibrate, note, fixed_batch
        self._noise = judge.noise(SessionInParts(start.quantized(), name="INT8"))
        self._rungs: list[Rung] = []
        self._looks: list[str] = []
        self._sensitivities: Sequence[Sensitivity] = ()
        self._macs: dict[str, int] = {}
        self._evaluations = 0

    def climb(self, steps: Sequence[str], begin: Outlook, look: Callable[[Candidate], Outlook]) -> Recovery:
        """Take the steps.

        Args:
            steps: Those that are allowed, of `RECOVERY_STEPS`.
            begin: What is known of the candidate at the start.
            look: Builds a candidate and evaluates it.
        """
        start = time.perf_counter()
        self._macs = macs_of_products(self._now.proto, next(single_images(self._fit, self._fixed_batch)))
        makers = {"equalize": self._equalized, "ranges": self._ranged, "bias": self._corrected}
        for step in ("equalize", "ranges", "bias"):
            if step in steps:
                self._try(step, makers[step])
        outlook = begin
        if any(rung.kept for rung in self._rungs):
            outlook = self._looked(look)
        if not outlook.within:
            dearer = (("ranges", self._single_tensors), ("weights", self._rounded))
            kept = [self._try(step, make) for step, make in dearer if step in steps]  # all of them, kept or not
            if any(kept):
                outlook = self._looked(look)
        if not outlook.within and "float" in steps:
            outlook = self._leave_float(look, outlook)
        return Recovery(
            self._now,
            tuple(self._rungs),
            tuple(self._looks),
            outlook.within and outlook.met,
            tuple(self._sensitivities),
            self._macs,
            self._evaluations,
            time.perf_counter() - start,
        )

    def _looked(self, look: Callable[[Candidate], Outlook], candidate: Candidate | None = None) -> Outlook:
        try:
            outlook = look(candidate or self._now)
        except (BuildError, ModelError) as error:  # an engine of this choice; another one may be possible
            outlook = Outlook(False, False, math.inf, f"cannot be built: {str(error)[:200]}")
        self._looks.append(outlook.text)
        return outlook

    def _try(self, step: str, make: Callable[[], tuple[Candidate, str]]) -> bool:
        """Take a step if it is better beyond chance; a step that cannot be made is not taken."""
        start, before = time.perf_counter(), level_db(self._noise)
        try:
            made, detail = make()
            found = self._judge.noise(SessionInParts(made.quantized(), name=f"INT8 ({step})"))
        except (BuildError, ModelError) as error:
            self._rungs.append(Rung(step, False, before, before, time.perf_counter() - start, str(error)[:200]))
            return False
        kept = is_beyond_chance(self._noise - found)
        rung = Rung(step, kept, before, level_db(found), time.perf_counter() - start, detail)
        self._rungs.append(rung)
        self._note(
            f"{step}: {before:.1f} to {rung.after_db:.1f} dB on images it was not made from, "
            f"{'kept' if kept else 'not kept'} ({detail})"
        )
        if kept:
            self._now, self._noise = made, found
        return kept

    def _equalized(self) -> tuple[Candidate, str]:
        images = single_images(self._fit, self._fixed_batch)
        equalized = equalize(self._now.proto, list(islice(images, -(-_EQUALIZED_FROM // (self._fixed_batch or 1)))))
        detail = f"{equalized.changed} of {len(equalized.places)} groups of channels"
        if not equalized.changed:
            return self._now, detail
        statistics = self._calibrate(equalized.proto)
        amax = amax_from_statistics(statistics, self._now.algorithm)
        made = replace(self._now, proto=equalized.proto, reference=equalized.proto, statistics=statistics, amax=amax)
        return made, detail

    def _ranged(self) -> tuple[Candidate, str]:
        candidates, now = self._candidates(), self._now.algorithm.name
        noise = {name: self._mean_noise(self._scaled(name, amax)) for name, amax in candidates.items()}
        best = min(noise, key=lambda name: noise[name])
        detail = f"{best} instead of {now}" if best != now else f"{best} is the best"
        return self._scaled(best, candidates[best]), detail

    def _single_tensors(self) -> tuple[Candidate, str]:
        candidates, now = self._candidates(), self._now
        found = changed_scales(now.proto, candidates, now.algorithm.name, self._search.halves(), now.float_nodes)
        changed = {**now.changed, **found.algorithms}
        return replace(now, amax=found.amax, changed=changed), f"{len(found.algorithms)} tensors by another algorithm"

    def _candidates(self) -> dict[str, dict[str, float]]:
        """Scales by name of the algorithm, those in use among them."""
        now = self._now
        if now.statistics is None:
            raise BuildError("the scales come from a cache without statistics")
        return candidates_of(now.proto, now.statistics, now.algorithm.name, now.amax, self._search.batches)

    def _scaled(self, name: str, amax: Mapping[str, float]) -> Candidate:
        """The candidate with the scales of an algorithm; the average is none on statistics: all tensors differ then."""
        if name == self._now.algorithm.name:
            return self._now
        if name == AVERAGE:
            return replace(self._now, amax=amax, changed=dict.fromkeys(amax, AVERAGE))
        return replace(self._now, algorithm=algorithm_from_name(name), amax=amax)

    def _corrected(self) -> tuple[Candidate, str]:
        proto = with_corrected_biases(self._now.proto, self._now.reference, self._quantize, self._fit)
        return replace(self._now, proto=proto), f"from {self._search.images} images"

    def _rounded(self) -> tuple[Candidate, str]:
        proto = with_rounded_weights(self._now.proto, self._quantize, self._fit)
        proto = with_corrected_biases(proto, self._now.reference, self._quantize, self._fit)
        return replace(self._now, proto=proto), f"from {self._search.images} images, biases corrected again"

    def _quantize(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        return replace(self._now, proto=proto).quantized()

    def _mean_noise(self, candidate: Candidate) -> float:
        return float(self._search.noise(SessionInParts(candidate.quantized(), name="INT8")).mean())

    def _leave_float(self, look: Callable[[Candidate], Outlook], outlook: Outlook) -> Outlook:
        """Leave products in float until the loss is within the target."""
        start, before = time.perf_counter(), level_db(self._noise)
        search = FloatSearch(self._now, self._search, self._macs, lambda candidate: self._looked(look, candidate))
        choice = search.run(outlook)
        self._now, self._sensitivities, self._evaluations = choice.candidate, choice.sensitivities, choice.evaluations
        self._noise = self._judge.noise(SessionInParts(self._now.quantized(), name="INT8 (float)"))
        left = sum(self._macs.get(name, 0) for name in self._now.float_nodes) / max(sum(self._macs.values()), 1)
        detail = f"{len(self._now.float_nodes)} of {len(self._macs)} products in float, {100 * left:.1f} % of the work"
        seconds, after = time.perf_counter() - start, level_db(self._noise)
        self._rungs.append(Rung("float", bool(self._now.float_nodes), before, after, seconds, detail))
        self._note(f"float: {before:.1f} to {after:.1f} dB ({detail})")
        return choice.outlook
