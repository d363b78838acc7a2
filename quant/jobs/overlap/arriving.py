"""An evaluation that begins before all builds are there.

Each image is decoded once. What later builds still have to see is held in memory; once that is full, the evaluation
waits for them. Every build sees the same batches in the same order, with the same outputs of the baseline beside its
own, so the figures are those of an evaluation that began with all builds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from quant.backend import Build, Runnable
from quant.evaluation.accuracy import Evaluating, Evaluation, EvaluationBatch

Forms = Callable[[Build, str], tuple[Runnable, Runnable | None]]


@dataclass(frozen=True)
class Coming:
    """A build that is on its way.

    Attributes:
        name: Its name.
        is_there: Would `take` give it without waiting?
        take: Waits for it; gives None where it cannot be built, after saying so.
    """

    name: str
    is_there: Callable[[], bool]
    take: Callable[[], Build | None]


class Arriving:
    """Builds that join an evaluation as they come, always in the same order.

    Attributes:
        builds: Those that have come.
    """

    def __init__(self, coming: Iterable[Coming] = (), room: int = 0, settle: Callable[[], None] = lambda: None) -> None:
        """Keep what comes.

        Args:
            coming: The builds in their order.
            room: Bytes of inputs and outputs that are held for those that come later.
            settle: Waits until nothing else runs, so that builds can be timed.
        """
        self.builds: dict[str, Build] = {}
        self.settle = settle
        self._coming, self._room = deque(coming), room
        self._held: list[tuple[EvaluationBatch, Sequence[NDArray[Any]]]] = []
        self._bytes = 0

    @property
    def all_there(self) -> bool:
        """Whether none is still to come."""
        return not self._coming

    def take(self, coming: Coming) -> Build | None:
        """Take one, which may have to be waited for; None where it cannot be built."""
        build = coming.take()
        if build is not None:
            self.builds[coming.name] = build
        return build

    def evaluate(
        self,
        running: Evaluating,
        batches: Iterable[EvaluationBatch],
        advance: Callable[[int], None],
        forms: Forms = lambda build, name: (build.runnable, build.deployed),
    ) -> dict[str, Evaluation]:
        """Evaluate; gives the evaluations of the builds that were there and of those that came.

        Args:
            running: Holds the builds that are there, the baseline among them.
            batches: The images.
            advance: Called with the number of images done.
            forms: Gives what runs a build that has come, of this name: as it is written, and as deployed.
        """
        for batch in batches:
            size = sum(array.nbytes for array in batch.inputs.values())
            while self._coming and (self._coming[0].is_there() or self._bytes + size > self._room):
                self._join(running, forms)
            reference = running.take(batch)
            if self._coming:
                self._held.append((batch, reference))
                self._bytes += size + sum(array.nbytes for array in reference)
            advance(len(batch.names))
        while self._coming:
            self._join(running, forms)
        return running.results()

    def _join(self, running: Evaluating, forms: Forms) -> None:
        """Let the next build run what the others have run."""
        coming = self._coming.popleft()
        build = self.take(coming)
        if build is not None:
            running.add(coming.name, *forms(build, coming.name), self._held)
        if not self._coming:
            self._held, self._bytes = [], 0
