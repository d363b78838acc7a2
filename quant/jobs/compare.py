"""Compares two models or engines on the same data: what the second loses and gains, in a report like that of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from calib.files import Transaction, exclusive
from datasets import open_source
from datasets.source import AnySource
from quant.backend import Backend, Build, Latency, Runnable, SampleShapes, TimesItself, TimesLayers
from quant.calibration.run_data import data_inputs, evaluation_data, tell
from quant.errors import QuantError, SettingsError
from quant.evaluation.metric import recorder_from_settings
from quant.evaluation.verdict import (
    EXIT_DONE,
    EXIT_DROP,
    EXIT_INVALID,
    Agreement,
    Verdict,
    closeness,
    complaint_of_build,
    losses_from_figures,
    nothing_shown,
)
from quant.jobs.backend_choice import backend_by_name
from quant.jobs.compare_sides import (
    Model,
    check_described,
    compared_from_path,
    comparison_settings,
    open_compared,
    uncalibrated_images,
)
from quant.jobs.measurement import first_batch, measured, sample_shapes
from quant.jobs.output_files import report_texts, stage_texts
from quant.jobs.tasks.task_choice import chosen_task, usable_recorder
from quant.onnx_graph.model import OnnxModel, TensorInfo
from quant.progress import Console, RecordingConsole
from quant.report.contents.document import Document, document_from_run
from quant.report.result import ComparedModel, Measurement, RunResult
from quant.report.views.notebook.shown import ShownReport
from quant.settings.command_line import compare_command
from quant.settings.run_settings import RunSettings
from quant.tensorrt.engines.engine_model import EngineModel

BASELINE, CANDIDATE = "baseline", "candidate"


def compare_files(
    first: Path,
    second: Path,
    options: Mapping[str, Any],
    console: Console | None = None,
    *,
    allow_code: bool = False,
) -> Document:
    """Compare two models and write the report into the folder `out`.

    Args:
        first: The baseline: an ONNX model, an engine, or a report.json or its folder, for what that run built.
        second: The candidate, which is compared with it.
        options: Settings of `RunSettings` by name; what is missing comes from the reports, then from `calib.toml`. If
            no data is given, reports are compared on the images that their runs evaluated.
        console: Where progress goes; nowhere by default.
        allow_code: See `quant.settings.calib_toml.settings_from_options`.

    Raises:
        QuantError: A build is not the one that its report describes.
        ModelError, BuildError, QuantError, DatasetError, CalibrationError: See `quant.run`.
    """
    sides = [compared_from_path(path) for path in (first, second)]
    settings, taken = comparison_settings(sides, options, allow_code=allow_code)
    listener = RecordingConsole(console)
    with contextlib.ExitStack() as stack:
        models = [stack.enter_context(open_compared(side.path)) for side in sides]
        for side, model in zip(sides, models, strict=True):
            check_described(side, model, listener)
        source = open_evaluated(settings, models[0], listener)
        selection = uncalibrated_images(sides, source, listener, of_reports="data" in taken)
        stack.enter_context(exclusive(settings.out))
        document = compare_models(
            models[0],
            models[1],
            source,
            settings,
            listener,
            selection,
            reports=(sides[0].report_path, sides[1].report_path),
            command=compare_command(settings, first, second, taken),
        )
        write_reports(document, settings.out, source)
    return ShownReport(document)


def open_evaluated(settings: RunSettings, model: Model, console: Console) -> AnySource:
    """The images to compare on: those of `eval`, else those of `data`, all of them; says how they are read.

    Raises:
        SettingsError: There are none.
        DatasetError: They cannot be used.
    """
    forms = data_inputs(settings, model)
    path = settings.eval or settings.data
    if path is None:
        raise SettingsError("data: expected a folder of images or an HDF5 pack, found nothing; give --data")
    source = open_source(
        path,
        labels=settings.labels,
        classes=settings.classes,
        inputs=[info.name for info in forms],
        task=settings.task,
        split="val",
        forms=forms,
    )
    tell(source, console)
    return source


def write_reports(document: Document, folder: Path, source: AnySource) -> None:
    """Write the three reports, whole or not at all; `source` provides the pictures of flipped images."""
    texts = report_texts(document, source)
    with Transaction(folder) as files:
        stage_texts(files, texts)


def compare_models(
    baseline: Model,
    candidate: Model,
    source: AnySource,
    settings: RunSettings,
    listener: RecordingConsole,
    selection: NDArray[Any] | None = None,
    *,
    reports: tuple[Path | None, Path | None] = (None, None),
    command: str | None = None,
) -> Document:
    """The report of two models on the same samples.

    Two ONNX models run on ONNX Runtime, or on TensorRT if `backend` says so. If one is an engine, TensorRT builds the
    other too, for the same batches.

    Args:
        baseline: The model that the candidate is compared with.
        candidate: The other model.
        source: An open source of samples.
        settings: Preprocessing, batch size, back end, metric, seed, `max_drop`.
        listener: Progress and warnings.
        selection: int64, indices in `source`; None for all.
        reports: The reports that were given instead of the models.
        command: The command line that repeats this in the current folder; None if there is none.

    Raises:
        QuantError: The models do not take the same inputs or give the same outputs, or the back end cannot run them.
    """
    _check_inputs(baseline, candidate)
    settings = replace(settings, precision="fp32", cache_only=False)
    data = evaluation_data(source, settings, baseline, selection, listener)
    models = {BASELINE: baseline, CANDIDATE: candidate}

    def shapes(model: OnnxModel) -> dict[str, tuple[int, ...]]:
        given = sample_shapes(data, settings)
        return {theirs.name: given[ours.name] for theirs, ours in _paired(model.inputs, baseline.inputs)}

    with contextlib.closing(_backend(settings, models.values(), listener, shapes)) as backend:
        builds = {name: _build(backend, model) for name, model in models.items()}
        batch = first_batch(data, settings)
        metric = recorder_from_settings(settings, baseline, listener)
        task = chosen_task(baseline, builds[BASELINE].runnable, batch, data, settings, listener, metric)
        adapted = {**builds, CANDIDATE: _adapted_build(builds[CANDIDATE], baseline, candidate)}

        def usable() -> bool:
            return usable_recorder(task, listener) is not None

        found = measured(adapted, BASELINE, data, settings, listener, task.reader, task.recorder, usable)
        result = RunResult(
            settings=settings,
            model=baseline,
            data=data,
            backend=backend,
            builds=builds,
            baseline=BASELINE,
            measured=found,
            verdict=_verdict(settings, found),
            quarantined=found.quarantined,
            warnings=tuple(listener.warnings),
            files={name: str(model.path) for name, model in models.items()},
            compared={
                name: _compared(model, report) for (name, model), report in zip(models.items(), reports, strict=True)
            },
            command=command,
            working_folder=None if command is None else str(Path.cwd()),
        )
        return document_from_run(result)


def _compared(model: Model, report: Path | None) -> ComparedModel:
    return ComparedModel(
        path=str(model.path),
        sha256=model.sha256,
        precision=precision_of(model),
        report=None if report is None else str(report),
    )


def _backend(
    settings: RunSettings, models: Iterable[Model], listener: RecordingConsole, shapes: SampleShapes
) -> Backend:
    engine = next((model for model in models if isinstance(model, EngineModel)), None)
    if engine is not None:
        if settings.backend == "onnxruntime":
            raise QuantError(f"{engine.path}: an engine runs only on TensorRT, found backend onnxruntime; leave it out")
        smallest, largest = engine.engine.smallest, engine.engine.largest
        sizes = "" if smallest == largest else f"{smallest}:{largest}:{largest}"
        settings = replace(settings, backend="tensorrt", batch_size=largest, dynamic=sizes)
    return backend_by_name(settings, listener, shapes)


def _build(backend: Backend, model: Model) -> Build:
    """A build of the user's own file, which is not written again."""
    precision = precision_of(model)
    if isinstance(model, EngineModel):
        return Build(precision, model.engine, None, model.path.suffix, model.bytes, details=model.details)
    return replace(backend.load(model, precision), payload=None)


def precision_of(model: Model) -> str:
    """int8 for a model with quantized tensors, fp16 for one with half-precision weights, else fp32.

    For an engine, what its description says; `quant.tensorrt.engines.engine_model.UNKNOWN` if it has none.
    """
    if isinstance(model, EngineModel):
        return model.precision
    graph = model.graph.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in graph.node):
        return "int8"
    kinds = {tensor.data_type for tensor in graph.initializer}
    return "fp16" if onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds else "fp32"


def _check_inputs(baseline: Model, candidate: Model) -> None:
    pairs = _paired(candidate.inputs, baseline.inputs)
    if len(baseline.inputs) != len(candidate.inputs) or any(a.dtype != b.dtype for a, b in pairs):
        shown = [", ".join(f"{info.name} {info.dtype}" for info in model.inputs) for model in (baseline, candidate)]
        raise QuantError(
            f"{candidate.path}: expected the inputs of {baseline.path} ({shown[0]}), found {shown[1]}; "
            "models are compared on the same data"
        )
    if len(baseline.outputs) != len(candidate.outputs):
        raise QuantError(
            f"{candidate.path}: expected {len(baseline.outputs)} outputs as {baseline.path} has, "
            f"found {len(candidate.outputs)}"
        )


def _paired(ours: tuple[TensorInfo, ...], theirs: tuple[TensorInfo, ...]) -> list[tuple[TensorInfo, TensorInfo]]:
    """Pair the tensors of two models: by name if all names are the same, else by order."""
    named = {info.name: info for info in theirs}
    if set(named) == {info.name for info in ours}:
        return [(info, named[info.name]) for info in ours]
    return list(zip(ours, theirs, strict=False))


class _Adapted:
    """A model that takes the baseline's inputs and gives outputs in the baseline's order."""

    def __init__(self, runnable: Runnable, baseline: Model, candidate: Model) -> None:
        self._runnable = runnable
        self._names = {theirs.name: ours.name for ours, theirs in _paired(candidate.inputs, baseline.inputs)}
        places = {info.name: i for i, info in enumerate(candidate.outputs)}
        self._order = [places[ours.name] for _, ours in _paired(baseline.outputs, candidate.outputs)]

    def _renamed(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {self._names[name]: array for name, array in inputs.items()}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        outputs = self._runnable.run(self._renamed(inputs))
        return [outputs[place] for place in self._order]


class _AdaptedEngine(_Adapted):
    """The same for an engine, which times itself."""

    def __init__(self, engine: TimesItself, runnable: Runnable, baseline: Model, candidate: Model) -> None:
        super().__init__(runnable, baseline, candidate)
        self._engine = engine

    def latency(self, inputs: Mapping[str, NDArray[Any]]) -> Latency:
        return self._engine.latency(self._renamed(inputs))

    def layer_seconds(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, float]:
        return self._engine.layer_seconds(self._renamed(inputs)) if isinstance(self._engine, TimesLayers) else {}


def _adapted_build(build: Build, baseline: Model, candidate: Model) -> Build:
    """The candidate's build, which takes the baseline's inputs and gives outputs in the baseline's order."""
    deployed = None if build.deployed is None else _adapted(build.deployed, baseline, candidate)
    return replace(build, runnable=_adapted(build.runnable, baseline, candidate), deployed=deployed)


def _adapted(runnable: Runnable, baseline: Model, candidate: Model) -> Runnable:
    if isinstance(runnable, TimesItself):
        return _AdaptedEngine(runnable, runnable, baseline, candidate)
    return _Adapted(runnable, baseline, candidate)


def _verdict(settings: RunSettings, found: Measurement) -> Verdict:
    """Does the candidate stay within what is allowed? Its speed is told, and decides nothing."""
    name = "the candidate"
    baseline, candidate = found.evaluations[BASELINE], found.evaluations[CANDIDATE]
    invalid = nothing_shown(baseline, found.metric)
    if invalid:
        return Verdict("invalid", BASELINE, invalid, EXIT_INVALID)
    loss = losses_from_figures(settings.max_drop, found.drops, found.metric).get(CANDIDATE)
    complaint = complaint_of_build(name, loss, candidate, found.metric)
    if complaint is not None:
        return Verdict("fail", BASELINE, complaint, EXIT_DROP)
    if loss is None:
        return Verdict("unlabelled", CANDIDATE, closeness(name, baseline, candidate, "the baseline"), EXIT_DONE)
    if isinstance(loss, Agreement):
        return Verdict("unlabelled", CANDIDATE, loss.praise(name), EXIT_DONE)
    return Verdict("pass", CANDIDATE, loss.praise(name), EXIT_DONE)
