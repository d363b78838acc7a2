"""The builds of a run: each is begun as soon as what it needs is there.

Where a back end builds ahead (`Backend.ahead`), FP32 and FP16 are begun at once and INT8 as soon as there are scales;
meanwhile this process calibrates, and evaluates what is built. Elsewhere they follow each other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from datasets import Batch
from quant.backend import Ahead, Backend, Begun, Build, Runnable, WhenTaken
from quant.calibration.obtain import CalibrationResult
from quant.errors import BuildError, ModelError
from quant.jobs.measurement import check_model
from quant.jobs.overlap.arriving import Arriving, Coming
from quant.jobs.run_warnings import BASELINE
from quant.jobs.tasks.head_trial import OTHER_HEAD, other_head_nodes, warn_of_other_head
from quant.jobs.tasks.task_choice import ChosenTask
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.resident import bytes_of_session, fits
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.progress import Console, RecordingConsole
from quant.settings.run_settings import RunSettings


def builds_ahead(settings: RunSettings, backend: Backend) -> contextlib.AbstractContextManager[Ahead | None]:
    """What builds beside calibration and evaluation; not beside TensorRT's own calibration, a build itself."""
    ahead = backend.ahead() if settings.precision != "fp32" and settings.calibrator == "toolkit" else None
    return contextlib.nullcontext() if ahead is None else ahead


class RunBuilds:
    """Builds FP32, and FP16 and INT8 as far as they are asked for.

    Attributes:
        failed: Why a precision cannot be built, by precision.
    """

    def __init__(
        self, settings: RunSettings, model: OnnxModel, backend: Backend, ahead: Ahead | None, listener: RecordingConsole
    ) -> None:
        """Build FP32; where builds go ahead, only begin it, and FP16 too.

        Raises:
            BuildError: FP32 cannot be built.
        """
        self._settings, self._model, self._backend = settings, model, backend
        self._ahead, self._listener = ahead, listener
        self._wanted = {"int8": ("fp16", "int8"), "fp16": ("fp16",), "fp32": ()}[settings.precision]
        self.failed: dict[str, str] = {}
        self._built: Build | None = None
        self._half: Begun | None = None
        self._baseline = self._begun(BASELINE)
        if ahead is None:
            self.baseline()
            return
        if "fp16" in self._wanted:
            self._half = self._begun("fp16")
        if "int8" in self._wanted:
            ahead.expect("int8")

    @property
    def baseline_is_there(self) -> bool:
        """Whether `baseline` would not wait."""
        return self._built is not None or self._baseline.is_there()

    def baseline(self) -> Build:
        """FP32; waits for it.

        Raises:
            BuildError: It cannot be built.
        """
        if self._built is None:
            self._built = self._taken(self._baseline, BASELINE)
        return self._built

    def first_runnable(self, batch: Batch) -> Runnable:
        """What answers as FP32 does on the first batch: ONNX Runtime where the build would have to be waited for."""
        if not self.baseline_is_there and fits(bytes_of_session(self._model.light.values)):
            with contextlib.suppress(BuildError, ModelError):  # the back end may run what ONNX Runtime does not
                session = OnnxRuntimeSession(self._model.light, name=str(self._model.path))
                session.run(batch.inputs)
                return session
        return self.baseline().runnable

    def watched(self) -> Console:
        """The console, whose pieces of work take FP32 once it is there, and end where it cannot be built."""
        return _Watched(self._listener, self._take_baseline)

    def _take_baseline(self) -> None:
        if self.baseline_is_there:
            self.baseline()

    def reduced(self, calibration: CalibrationResult | None, batch: Batch, task: ChosenTask) -> Arriving:
        """Build FP16, INT8, and INT8 with a detector's head the other way; the evaluation takes them in this order.

        Args:
            calibration: The scales; None without INT8.
            batch: The first batch of the evaluation, on which each build is tried.
            task: What the model is for.
        """
        coming = self._coming(calibration, batch, task)
        if self._ahead is not None:
            return Arriving(list(coming), self._settings.memory_limit << 20, self._ahead.end)
        there = Arriving()
        for each in coming:  # each is tried before the next is built
            there.take(each)
        return there

    def _coming(self, calibration: CalibrationResult | None, batch: Batch, task: ChosenTask) -> Iterator[Coming]:
        """Begin what is asked for, each as it is asked for."""
        if "fp16" in self._wanted:
            half = self._half or self._begun("fp16")
            yield self._tried_as_it_comes("fp16", half, batch)
        if "int8" not in self._wanted or calibration is None:
            return
        int8 = self._begun("int8", calibration, task.float_nodes)
        found: list[Build] = []
        yield self._tried_as_it_comes("int8", int8, batch, lambda: self._check(batch, task), found.append)
        nodes = other_head_nodes(task, self._model, self._settings)
        if nodes is None or int8.reused:
            return
        other = self._begun("int8", calibration, nodes, OTHER_HEAD)
        yield self._tried_beside_int8(other, batch, found)

    def _begun(
        self,
        precision: str,
        calibration: CalibrationResult | None = None,
        float_nodes: frozenset[str] = frozenset(),
        name: str = "",
    ) -> Begun:
        cache = calibration.cache if calibration is not None else None
        if self._ahead is None:
            return WhenTaken(lambda: self._backend.build(self._model, precision, cache, float_nodes))
        with self._listener.timings.of(_stage(name or precision)):  # one that is there already is loaded
            return self._ahead.begin(self._model, precision, cache, float_nodes)

    def _taken(self, begun: Begun, name: str) -> Build:
        """The build, whose time counts, also that of another process."""
        timings, stage, start = self._listener.timings, _stage(name), time.perf_counter()
        if begun.reused:
            return begun.take()
        timings.add(stage, 0.0)  # stages within it come after it
        try:
            return begun.take()
        finally:
            end = time.perf_counter()
            if begun.span is None:
                timings.between(stage, start, end)
            else:
                timings.between(stage, *begun.span)
                timings.add(stage, end - max(start, begun.span[1]))  # its loading

    def _check(self, batch: Batch, task: ChosenTask) -> None:
        check_model(self._model, self._backend, lambda: self.baseline().runnable, batch, task.reader)

    def _tried_as_it_comes(
        self,
        precision: str,
        begun: Begun,
        batch: Batch,
        check: Callable[[], None] = lambda: None,
        keep: Callable[[Build], None] = lambda build: None,
    ) -> Coming:
        place = self._listener.later()

        def take() -> Build | None:
            try:
                check()  # before it is built, where nothing was begun
                build = tried(self._taken(begun, precision), batch, place)
            except (BuildError, ModelError) as error:  # a build that loads and does not run is none
                begun.drop()
                self.failed[precision] = str(error)
                place.warn(f"{precision} cannot be built: {error}")
                return None
            keep(build)
            return build

        return Coming(precision, begun.is_there, take)

    def _tried_beside_int8(self, begun: Begun, batch: Batch, int8: list[Build]) -> Coming:
        """INT8 with the head the other way; it is not needed where there is no INT8 beside it, or an older engine."""
        place = self._listener.later()

        def take() -> Build | None:
            if not int8 or getattr(int8[0], "reused", False):  # that of an earlier run, which measured both
                begun.drop()
                return None
            try:
                return tried(self._taken(begun, OTHER_HEAD), batch, place)
            except (BuildError, ModelError) as error:
                warn_of_other_head(error, self._settings, place)
                return None

        return Coming(OTHER_HEAD, begun.is_there, take)


def _stage(name: str) -> str:
    return f"build {name}"


class _Watched:
    """Passes everything on to a console; its pieces of work look after something else now and then."""

    def __init__(self, inner: Console, look: Callable[[], None]) -> None:
        self._inner, self._look = inner, look

    def note(self, line: str) -> None:
        self._inner.note(line)

    def warn(self, line: str) -> None:
        self._inner.warn(line)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        with self._inner.task(description, total) as advance:

            def watched(images: int) -> None:
                self._look()
                advance(images)

            yield watched


def tried(build: Build, batch: Batch, console: Console) -> Build:
    """The build, after it ran; without its deployed form where that does not run.

    Raises:
        ModelError: It does not run.
    """
    build.runnable.run(batch.inputs)
    if build.deployed is None:
        return build
    try:
        build.deployed.run(batch.inputs)
    except ModelError as error:
        console.warn(
            f"{build.precision}: as ONNX Runtime deploys it, it does not run ({error}); it runs with "
            "session.disable_quant_qdq = 1, and is timed so"
        )
        return replace(build, deployed=None)
    return build
