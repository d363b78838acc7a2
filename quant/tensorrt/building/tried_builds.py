"""Builds that are tried one after the other: what each took and gave, and which one is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx

from quant.cuda.device import DeviceError
from quant.errors import BuildError, ModelError, QuantError
from quant.qdq.placement import Placement
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.building.builder import BuiltEngine

MOST_TRIED = 4  # placements that are built, besides the implicit build
_AS_FAST = 1.05  # builds of the same kernels differ by up to 4 %, so up to this ratio, more INT8 is preferred


@dataclass(frozen=True)
class TriedBuild:
    """What a build that was tried took and gave.

    Attributes:
        pairs: Where the pairs are, in words.
        seconds: To build it.
        milliseconds: Of a batch, at the size that the engine is tuned for; None where it was not built or not timed.
        int8_work: Share of the products' multiply-accumulates that run in INT8, by the engine inspector, 0 to 1; None
            where it is not known.
        error: Why it could not be built; empty if it was.
        taken: Whether it is the engine that is used.
    """

    pairs: str
    seconds: float
    milliseconds: float | None = None
    int8_work: float | None = None
    error: str = ""
    taken: bool = False

    @property
    def text(self) -> str:
        """For people."""
        if self.error:
            return f"pairs {self.pairs}: not built ({self.error}), {self.seconds:.0f} s"
        timed = "" if self.milliseconds is None else f"{self.milliseconds:.4g} ms, "
        work = "" if self.int8_work is None else f"{100 * self.int8_work:.0f} % of the work in INT8, "
        return f"pairs {self.pairs}: {timed}{work}built in {self.seconds:.0f} s"

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class MadeEngine:
    """An engine, and what it was made from.

    Attributes:
        proto: The model that was built.
        built: The engine.
        tried: If it is explicit: all builds, in their order; the first may be TensorRT's own choice, without pairs.
    """

    proto: onnx.ModelProto
    built: BuiltEngine
    tried: tuple[TriedBuild, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """A placement to try.

    Attributes:
        pairs: Where the pairs are, in words.
        placement: The same; None for the float engine.
        apart: Whether normalisations are split into simple nodes.
        half: Whether what has no pair is typed as FP16, where the model says all types.
    """

    pairs: str
    placement: Placement | None
    apart: bool = False
    half: bool = False


def first_as_fast(
    attempts: Sequence[Attempt],
    timed: Callable[[Attempt], tuple[MadeEngine, TriedBuild]],
    goal: float | None,
    note: Note,
    *,
    before: Sequence[TriedBuild] = (),
) -> MadeEngine:
    """Build one after the other until one is about as fast as the goal; else take the fastest.

    Args:
        attempts: What to try; of those about as fast as each other, the first is taken.
        timed: Builds and times one.
        goal: Milliseconds of TensorRT's own choice; None to try all.
        note: Called with lines to display.
        before: Builds that were made before, to tell of.

    Raises:
        QuantError: None could be built; the error is the first one's.
    """
    first: QuantError | None = None
    found: list[tuple[MadeEngine, int]] = []
    tried = list(before)
    for attempt in attempts[:MOST_TRIED]:
        start = time.perf_counter()
        try:
            engine, told = timed(attempt)
        except (BuildError, ModelError, DeviceError) as error:
            first = first or error
            tried.append(TriedBuild(attempt.pairs, time.perf_counter() - start, error=str(error)))
            note(f"explicit: {tried[-1].text}")
            continue
        found.append((engine, len(tried)))
        tried.append(told)
        note(f"explicit: {told.text}")
        if goal is not None and told.milliseconds is not None and is_as_fast(told.milliseconds, goal):
            break
    if not found:
        assert first is not None
        raise first
    best = fastest([tried[i].milliseconds or 0.0 for _, i in found])
    engine, index = found[best]
    tried[index] = replace(tried[index], taken=True)
    if len(tried) > 1:
        note(f"explicit: taken: pairs {tried[index].pairs}")
    return replace(engine, tried=tuple(tried))


def is_as_fast(milliseconds: float, goal: float) -> bool:
    """Whether a build is about as fast as another."""
    return milliseconds <= _AS_FAST * goal


def fastest(milliseconds: Sequence[float]) -> int:
    """Index of the engine to take, from engines with less and less INT8: the first about as fast as the fastest."""
    return next(i for i, found in enumerate(milliseconds) if is_as_fast(found, min(milliseconds)))
