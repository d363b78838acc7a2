"""Builds beside the other work of a run, in processes of their own: one for FP32 and FP16, one for INT8.

Threads of one process will not do: a build of TensorRT 8.6 logs through Python and waits for its lock, which other
calls of the bindings hold while they wait for that build. So this process starts children and loads the engines that
they leave; for these builds it calls TensorRT for nothing else. What a child cannot do, for whatever reason, is done
again here, while no child builds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from calib.caches.cache import CalibrationCache
from calib.interrupts import interrupts_deferred
from calib.processors import usable_processors
from calib.scratch import owned_scratch
from quant.backend import Begun, Build, Found, WhenTaken
from quant.child_process import ChildProcess, GivenWork, Work, can_have_children
from quant.errors import QuantError
from quant.onnx_graph.model import OnnxModel
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.engine_build import EngineOrder

# Which child builds what, one after another. A child loads the builder's kernels once, as long as half of a build of a
# small network takes, with 3 GB of memory and 0.75 GB of the GPU's; and builds beside each other wait for the driver.
# INT8, which has to wait for scales and takes longest, has a child to itself.
CHILD_OF = {"fp32": "float", "fp16": "float", "int8": "int8"}
LEAST_PROCESSORS = 3  # one for each child and one for this process; on fewer, they would wait for each other


def can_build_ahead() -> bool:
    """Whether this machine can have builds beside other work, and gains by it."""
    return can_have_children() and usable_processors() >= LEAST_PROCESSORS


class EngineSource(Protocol):
    """The back end, as far as builds ahead need it."""

    def ordered(
        self, model: OnnxModel, precision: str, cache: CalibrationCache | None, float_nodes: frozenset[str]
    ) -> tuple[OnnxModel, EngineOrder]:
        """The model without open axes, and what to make of it."""

    def stored(self, model: OnnxModel, order: EngineOrder) -> Build | None:
        """The engine of an earlier run, if there is one that fits; a note says why one does not."""

    def times_builds(self, precision: str) -> bool:
        """Whether builds of a precision are timed, so that nothing may go on beside them."""

    def prepare_child(self) -> Callable[[], object]:
        """What a child does before it knows what to build."""

    def child_work(self, model: OnnxModel, order: EngineOrder) -> Work:
        """What a child does then."""

    def from_child(self, folder: Path, model: OnnxModel, order: EngineOrder) -> Build:
        """What a child has left in its folder.

        Raises:
            QuantError: It is not what was ordered, or cannot be loaded.
        """

    def build(
        self, model: OnnxModel, precision: str, cache: CalibrationCache | None, float_nodes: frozenset[str]
    ) -> Build:
        """See `Backend`."""


class BuildsAhead:
    """Children that build; a context manager at whose end none is left, nor what they wrote."""

    def __init__(self, source: EngineSource, folder: Path, note: Note) -> None:
        """Make a scratch folder for them.

        Args:
            source: Says what is built, and builds what no child could.
            folder: Where the scratch folder lies.
            note: Called with lines to display.

        Raises:
            OSError: The folder cannot be written to.
        """
        self._source, self._note = source, note
        self._scratch = owned_scratch(folder)
        self._children: list[ChildProcess] = []
        self._by_name: dict[str, ChildProcess] = {}
        self._failed = False

    def begin(
        self,
        model: OnnxModel,
        precision: str,
        cache: CalibrationCache | None = None,
        float_nodes: frozenset[str] = frozenset(),
    ) -> Begun:
        """Begin a build, unless its engine is there already; see `Backend.build`.

        A build that is timed is not begun: it is made when it is taken. So is any after one that failed.

        Raises:
            BuildError: What is asked for makes no sense.
        """

        def alone() -> Build:
            self._quiet()
            return self._source.build(model, precision, cache, float_nodes)

        fitted, order = self._source.ordered(model, precision, cache, float_nodes)
        try:
            found = self._source.stored(fitted, order)
        except QuantError:  # which it raises again, where a build may fail
            return WhenTaken(alone)
        if found is not None:
            return Found(found)

        def failed(reason: str) -> Build:
            self._failed = True
            self._note(f"{precision}: not built beside other work ({reason}); it is built alone")
            return alone()

        try:
            child = self._child(precision)
            if child is None:
                return WhenTaken(alone)
            given = child.give(self._source.child_work(model, order))
        except OSError as error:
            reason = str(error)
            return WhenTaken(lambda: failed(reason))

        def loaded() -> Build:
            return self._source.from_child(given.folder, fitted, order)

        return _InChild(given, loaded, failed, self._note)

    def expect(self, precision: str) -> None:
        """Let a child get ready for a build of this precision, where others are being built already."""
        if self._children:
            with contextlib.suppress(OSError):  # `begin` tries again, and says why not
                self._child(precision)

    def end(self) -> None:
        """End what has not ended; a second call does nothing."""
        for child in self._children:
            child.kill()  # all at once, then each is waited for
        while self._children:
            self._children[-1].close()
            self._children.pop()
        self._by_name.clear()

    def __enter__(self) -> BuildsAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with interrupts_deferred():
            self.end()
            self._scratch.remove()

    def _child(self, precision: str) -> ChildProcess | None:
        """The child that a build is given to, which may be getting ready; None where there is to be none.

        Raises:
            OSError: There is no memory, process or file for one.
        """
        if self._failed or self._source.times_builds(precision):
            return None
        there = self._by_name.get(CHILD_OF[precision])
        if there is not None and there.takes_more:
            return there
        with interrupts_deferred():
            folder = self._scratch.path / f"child-{len(self._children) + 1}"
            child = ChildProcess(folder, self._source.prepare_child())
            self._children.append(child)
            self._by_name[CHILD_OF[precision]] = child
        return child

    def _quiet(self) -> None:
        """Wait until no child builds, and end them all, for the memory that they hold; what they left stays."""
        for child in self._children:
            if child.work:
                child.finish()
            else:
                child.close()


class _InChild:
    """A build that a child makes."""

    reused = False

    def __init__(
        self, given: GivenWork, loaded: Callable[[], Build], failed: Callable[[str], Build], note: Note
    ) -> None:
        self.span: tuple[float, float] | None = None
        self._given, self._loaded, self._failed, self._note = given, loaded, failed, note

    def is_there(self) -> bool:
        """See `Begun`."""
        return self._given.is_over

    def take(self) -> Build:
        """See `Begun`."""
        ended = self._given.ended()
        reason = ended.error
        if not reason:
            try:
                build = self._loaded()
            except (QuantError, OSError) as error:
                reason = str(error)
            else:
                for line in ended.notes:
                    self._note(line)
                self.span = ended.begun, ended.moment
                self._given.settle()
                return build
        self._given.settle()
        return self._failed(reason)

    def drop(self) -> None:
        """See `Begun`."""
        self._given.settle()
