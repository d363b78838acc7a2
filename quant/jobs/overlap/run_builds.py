"""The builds of a run: each is started as soon as what it needs is there.

On a back end whose builds may overlap (`Backend.overlaps`), FP32 and FP16 are started at once and INT8 as soon as there
are scales; meanwhile the processor calibrates, and what is built is evaluated. Elsewhere, at present everywhere,
they follow each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from datasets import Batch
from quant.backend import Backend, Build, Runnable
from quant.calibration.obtain import CalibrationResult
from quant.errors import BuildError, ModelError
from quant.evaluation.unchanged import check_preparation
from quant.jobs.overlap.arriving import Arriving, Coming
from quant.jobs.overlap.pieces import Piece, Pieces
from quant.jobs.run_warnings import BASELINE
from quant.jobs.tasks.head_trial import OTHER_HEAD, other_head_build
from quant.jobs.tasks.task_choice import ChosenTask
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.resident import bytes_of_session, fits
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.progress import Console, RecordingConsole
from quant.settings.run_settings import RunSettings


class RunBuilds:
    """Builds FP32, and FP16 and INT8 as far as they are asked for.

    Attributes:
        failed: Why a precision cannot be built, by precision.
    """

    def __init__(
        self, settings: RunSettings, model: OnnxModel, backend: Backend, pieces: Pieces, listener: RecordingConsole
    ) -> None:
        """Start FP32, and FP16 if pieces run beside each other."""
        self._settings, self._model, self._backend = settings, model, backend
        self._pieces, self._listener = pieces, listener
        self._wanted = {"int8": ("fp16", "int8"), "fp16": ("fp16",), "fp32": ()}[settings.precision]
        self.failed: dict[str, str] = {}
        self._baseline = pieces.start(lambda: self._build(BASELINE))
        early = pieces.beside and "fp16" in self._wanted
        self._half = pieces.start(lambda: self._build("fp16")) if early else None

    def baseline(self) -> Build:
        """FP32; waits for it.

        Raises:
            BuildError: It cannot be built.
        """
        return self._baseline.result()

    def first_runnable(self, batch: Batch) -> Runnable:
        """What answers as FP32 does on the first batch: ONNX Runtime where the build would have to be waited for."""
        if self._pieces.beside and fits(bytes_of_session(self._model.light.values)):
            with contextlib.suppress(BuildError, ModelError):  # the back end may run what ONNX Runtime does not
                session = OnnxRuntimeSession(self._model.light, name=str(self._model.path))
                session.run(batch.inputs)
                return session
        return self.baseline().runnable

    def watched(self) -> Console:
        """The console, whose pieces of work end with the baseline's error as soon as there is one."""
        return _Watched(self._listener, self._baseline)

    def reduced(self, calibration: CalibrationResult | None, batch: Batch, task: ChosenTask) -> Arriving:
        """Build FP16, INT8, and INT8 with a detector's head the other way; the evaluation takes them in this order.

        Args:
            calibration: The scales; None without INT8.
            batch: The first batch of the evaluation, on which each build is tried.
            task: What the model is for.
        """
        coming = self._coming(calibration, batch, task)
        if self._pieces.beside:
            return Arriving(list(coming), self._settings.memory_limit << 20, self._pieces.wait)
        there = Arriving()
        for each in coming:  # each is tried before the next is built
            there.take(each)
        return there

    def _coming(self, calibration: CalibrationResult | None, batch: Batch, task: ChosenTask) -> Iterator[Coming]:
        """Start what is asked for, each as it is asked for."""
        if "fp16" in self._wanted:
            half = self._half or self._pieces.start(lambda: self._build("fp16"))
            yield self._tried_as_it_comes("fp16", half, batch)
        if "int8" not in self._wanted or calibration is None:
            return
        check = self._pieces.start(lambda: self._check(batch, task))

        def build() -> Build:
            if not self._pieces.beside:
                check.result()  # nothing is built for nothing
            return self._build("int8", calibration, task)

        int8 = self._pieces.start(build)
        yield self._tried_as_it_comes("int8", int8, batch, check)
        if task.head is not None:
            place = self._listener.later()

            def other() -> Build | None:
                check.result()
                return other_head_build(
                    int8.result(), task, self._model, self._backend, calibration, self._settings, place
                )

            trial = self._pieces.start(other)
            yield Coming(OTHER_HEAD, lambda: trial.done, lambda: self._tried_trial(trial, batch, place))

    def _build(
        self, precision: str, calibration: CalibrationResult | None = None, task: ChosenTask | None = None
    ) -> Build:
        with self._listener.timings.of(f"build {precision}"):
            return self._backend.build(
                self._model,
                precision,
                calibration.cache if calibration is not None else None,
                task.float_nodes if task is not None else frozenset(),
            )

    def _check(self, batch: Batch, task: ChosenTask) -> None:
        check_preparation(self._model, batch.inputs, self.baseline().runnable.run(batch.inputs), task.reader)

    def _tried_as_it_comes(
        self, precision: str, piece: Piece[Build], batch: Batch, check: Piece[None] | None = None
    ) -> Coming:
        place = self._listener.later()

        def take() -> Build | None:
            try:
                if check is not None:
                    check.result()
                return tried(piece.result(), batch, place)
            except (BuildError, ModelError) as error:  # a build that loads and does not run is none
                self.failed[precision] = str(error)
                place.warn(f"{precision} cannot be built: {error}")
                return None

        return Coming(precision, lambda: piece.done and (check is None or check.done), take)

    def _tried_trial(self, trial: Piece[Build | None], batch: Batch, place: Console) -> Build | None:
        try:
            build = trial.result()
        except (BuildError, ModelError):  # that of INT8 itself, which says so
            return None
        return None if build is None else tried(build, batch, place)


class _Watched:
    """Passes everything on to a console; its pieces of work end with the error of another piece, if that has one."""

    def __init__(self, inner: Console, other: Piece[Build]) -> None:
        self._inner, self._other = inner, other

    def note(self, line: str) -> None:
        self._inner.note(line)

    def warn(self, line: str) -> None:
        self._inner.warn(line)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        with self._inner.task(description, total) as advance:

            def watched(images: int) -> None:
                self._other.raise_error()
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
