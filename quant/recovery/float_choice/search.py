"""The fewest products left in float that meet a target; on engines, those that make the fastest build that meets it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from quant.onnxruntime.session_in_parts import SessionInParts
from quant.qdq.preparation import prepared_for_quantization
from quant.recovery.candidate import Candidate, Outlook
from quant.recovery.float_choice.neighbours import product_neighbours, with_islands
from quant.recovery.float_choice.product_groups import ProductGroup
from quant.recovery.float_choice.sensitivity import Sensitivity, in_order_of_worth, sensitivities
from quant.recovery.judging import Judge

FLOAT_LOOKS = 3  # at the evaluation images
_EVALUATIONS = 20  # looks, and runs of candidates on the images that the steps are made from
_FURTHER = 0.4  # of the noise, for the next attempt
_HALF = 0.5


@dataclass(frozen=True)
class FloatChoice:
    """What the search found.

    Attributes:
        candidate: The best that is within the target, or the nearest to it.
        outlook: What its look told.
        sensitivities: Of the groups of products, the noisiest first.
        evaluations: How many candidates were run.
    """

    candidate: Candidate
    outlook: Outlook
    sensitivities: tuple[Sensitivity, ...]
    evaluations: int


@dataclass(frozen=True)
class _Attempt:
    """How many groups stay float, and the noise that is left."""

    groups: int
    noise: float


class FloatSearch:
    """Groups of products go to float in the order of noise for work, until a look says that the loss is allowed.

    The noise on the images that steps are made from tells how many a target takes; each look at the evaluation images
    tells how far the target was off. Between what was too few and what was enough, fewer are tried. Engines that are
    enough are tried once more with the islands filled up: a product in INT8 between products in float costs two changes
    of format. The fastest that is enough is taken then.
    """

    def __init__(
        self,
        base: Candidate,
        search: Judge,
        macs: Mapping[str, int],
        look: Callable[[Candidate], Outlook],
    ) -> None:
        """Begin.

        Args:
            base: The candidate that lost too much.
            search: Judges by images that steps are made from.
            macs: Of each product, see `quant.recovery.float_choice.sensitivity`.
            look: Builds a candidate and evaluates it.
        """
        self._base, self._search, self._look = base, search, look
        self._sensitivities = sensitivities(base.proto, base.amax, search, macs, base.float_nodes)
        self._order = in_order_of_worth(self._sensitivities)
        self._found: list[tuple[Candidate, Outlook]] = []
        self._evaluations = 0

    def run(self, begin: Outlook) -> FloatChoice:
        """Search.

        Args:
            begin: What is known of the base.
        """
        noise = self._noise_of(0)
        too_few, enough = _Attempt(0, noise), None
        target, outlook = noise * _HALF / (begin.excess if math.isfinite(begin.excess) else 1.0), begin
        for _ in range(2 * FLOAT_LOOKS):
            if len(self._found) >= FLOAT_LOOKS:
                break
            tried = self._fewest(target, too_few.groups, enough.groups if enough else len(self._order))
            if tried.groups in (too_few.groups, enough.groups if enough else None):
                break
            if tried.groups == len(self._order):  # nothing would be left in INT8: aim lower
                target = math.sqrt(too_few.noise * target)
                continue
            outlook = self._looked(self._with(tried.groups))
            if outlook.within:
                enough = tried
                self._fill_islands(self._found[-1])
            else:
                too_few = tried
            # Between what was too few and what was enough, or as far again as the loss asks for.
            further = _FURTHER / outlook.excess if math.isfinite(outlook.excess) else _FURTHER
            target = math.sqrt(too_few.noise * enough.noise) if enough else target * further
        candidate, outlook = self._best() or (self._base, begin)
        return FloatChoice(candidate, outlook, tuple(self._sensitivities), self._evaluations)

    def _with(self, groups: int) -> Candidate:
        return replace(self._base, float_nodes=self._base.float_nodes.union(_nodes(self._order[:groups])))

    def _looked(self, candidate: Candidate) -> Outlook:
        outlook = self._look(candidate)
        self._found.append((candidate, outlook))
        return outlook

    def _fill_islands(self, found: tuple[Candidate, Outlook]) -> None:
        """Try an engine again without products in INT8 that stand between products in float."""
        candidate, outlook = found
        if outlook.milliseconds is None or len(self._found) >= FLOAT_LOOKS:
            return
        neighbours = product_neighbours(prepared_for_quantization(candidate.proto))
        filled = with_islands(candidate.float_nodes, neighbours)
        if filled != candidate.float_nodes and not filled >= _nodes(self._order):
            self._looked(replace(candidate, float_nodes=filled))

    def _best(self) -> tuple[Candidate, Outlook] | None:
        """The fastest that is within the target, or the one with the least in float; else the nearest to the target."""
        within = [found for found in self._found if found[1].within]
        if within:
            return min(within, key=lambda found: (found[1].milliseconds or 0.0, len(found[0].float_nodes)))
        return min(self._found, key=lambda found: found[1].excess, default=None)

    def _fewest(self, target: float, too_few: int, enough: int) -> _Attempt:
        """How many groups, the worthiest first, have to stay float so that the noise is within a target."""
        low, high, reached = too_few, enough, 0.0  # `enough` meets it: at the end nothing is quantized
        looks_left = FLOAT_LOOKS - len(self._found)
        while high - low > 1 and self._evaluations + len(self._found) + looks_left < _EVALUATIONS:
            middle = (low + high) // 2
            noise = self._noise_of(middle)
            if noise <= target:
                high, reached = middle, noise
            else:
                low = middle
        return _Attempt(high, reached)

    def _noise_of(self, groups: int) -> float:
        self._evaluations += groups > 0
        return float(self._search.noise(SessionInParts(self._with(groups).quantized(), name="INT8")).mean())


def _nodes(groups: Sequence[ProductGroup]) -> set[str]:
    return {name for group in groups for name in group.nodes}
