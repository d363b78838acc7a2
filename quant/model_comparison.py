"""Two models or engines on the same data: what the second costs and buys against the first, in the report of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from calib.files import Transaction, exclusive
from datasets import open_source
from quant.backend import Backend, Build
from quant.backends import backend_by_name
from quant.compared import Model, common_images, compared_from_path, comparison_settings, open_compared
from quant.comparison import Drop, MeasuredLatency, TimesItself, drops_from_evaluations, measure_latency
from quant.console import Console, RecordingConsole
from quant.data import AnySource, RunData, evaluation_data
from quant.engine_model import EngineModel
from quant.errors import QuantError
from quant.evaluate import Runnable, evaluate
from quant.graph import TensorInfo
from quant.metric import recorder_from_settings, section_from_scores
from quant.output_files import report_texts, stage_texts
from quant.pipeline import RunResult
from quant.report.command import compare_command
from quant.report.document import Document, document_from_run
from quant.settings import RunSettings
from quant.verdict import EXIT_DONE, EXIT_DROP, Verdict, losses_from_figures, unknown_loss

BASELINE = "fp32"  # the report's word for what the others are held against


def compare_files(first: Path, second: Path, options: Mapping[str, Any], console: Console | None = None) -> Document:
    """Compare two models and write the report into the folder `out`.

    Args:
        first: The baseline: an ONNX model, an engine, or a report.json or its folder, for what that run built.
        second: What is held against it.
        options: Settings of `RunSettings` by name; what is missing comes from the reports, then from `calib.toml`.
            Without data of their own, reports are compared on the images that their runs evaluated.
        console: Where progress goes; nowhere by default.

    Raises:
        ModelError, BuildError, QuantError, DatasetError, CalibrationError: As `quant.run`.
    """
    sides = [compared_from_path(path) for path in (first, second)]
    settings, taken = comparison_settings(sides, options)
    listener = RecordingConsole(console)
    with contextlib.ExitStack() as stack:
        models = [stack.enter_context(open_compared(side.path)) for side in sides]
        names = [info.name for info in models[0].inputs]
        path = settings.eval or settings.data
        assert path is not None  # settings without data are an error
        source = open_source(path, labels=settings.labels, classes=settings.classes, inputs=names)
        selection = common_images(sides, models, source, listener) if "data" in taken else None
        stack.enter_context(exclusive(settings.out))
        document = compare_models(models[0], models[1], source, settings, listener, selection)
        for row, side in zip(document["compared"], sides, strict=True):
            row["report"] = None if side.report is None else str(side.report.path)
        document["command"] = compare_command(settings, first, second, taken)
        document["working_folder"] = str(Path.cwd())
        write_reports(document, settings.out, source)
    return document


def write_reports(document: Document, folder: Path, source: AnySource) -> None:
    """report.json, report.md and report.html, whole or not at all; `source` gives the pictures of flipped images."""
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
) -> Document:
    """The report of two models on the same samples.

    Two ONNX models run on ONNX Runtime, or on TensorRT where `backend` says so; where one is an engine, the other is
    built by TensorRT too, for the same batches.

    Args:
        baseline: What the other is held against.
        candidate: The other.
        source: Samples that are open already.
        settings: Preprocessing, batch size, back end, metric, seed, `max_drop`.
        listener: Progress and warnings.
        selection: int64, indices in `source`; None for all.

    Raises:
        QuantError: The models do not take the same inputs or give the same outputs, or the back end cannot run them.
    """
    name = precision_of(candidate)
    key = name if name != BASELINE else "candidate"
    if precision_of(baseline) != BASELINE:
        listener.warn(f"{baseline.path} is {precision_of(baseline)}, not fp32: 'fp32' in this report stands for it")
    _check_inputs(baseline, candidate)
    settings = replace(settings, precision="fp32", cache_only=False)
    data = evaluation_data(source, settings, baseline, selection)
    with contextlib.closing(_backend(settings, (baseline, candidate), listener)) as backend:
        builds = {BASELINE: _build(backend, baseline, BASELINE), key: _build(backend, candidate, key)}
        result = _result(settings, data, backend, (baseline, candidate), builds, listener)
        document = document_from_run(result)
    document["builds"][1]["file"] = str(candidate.path)
    document["command"] = document["working_folder"] = None  # called from Python, there is no line to repeat
    document["compared"] = [
        {"precision": label, "path": str(model.path), "sha256": model.sha256, "found": precision_of(model)}
        for label, model in ((BASELINE, baseline), (key, candidate))
    ]
    return document


def _backend(settings: RunSettings, models: tuple[Model, Model], listener: RecordingConsole) -> Backend:
    engine = next((model for model in models if isinstance(model, EngineModel)), None)
    if engine is not None:
        if settings.backend == "onnxruntime":
            raise QuantError(
                f"{engine.path}: an engine runs on TensorRT alone, found backend onnxruntime; leave it out"
            )
        smallest, largest = engine.engine.smallest, engine.engine.largest
        sizes = "" if smallest == largest else f"{smallest}:{largest}:{largest}"
        settings = replace(settings, backend="tensorrt", batch_size=largest, dynamic=sizes)
    return backend_by_name(settings, listener)


def _build(backend: Backend, model: Model, label: str) -> Build:
    """The user's own file under its label: nothing of it is written again."""
    if isinstance(model, EngineModel):
        return Build(label, model.engine, None, model.path.suffix, model.bytes, details=model.details)
    precision = precision_of(model)
    build = backend.load(model, precision)
    # The report reads the layers of a Q/DQ model; what float and half models run in is no question.
    return replace(build, precision=label, payload=build.payload if precision == "int8" and label != BASELINE else None)


def _result(
    settings: RunSettings,
    data: RunData,
    backend: Backend,
    models: tuple[Model, Model],
    builds: dict[str, Build],
    listener: RecordingConsole,
) -> RunResult:
    baseline, candidate = models
    key = next(name for name in builds if name != BASELINE)
    recorder = recorder_from_settings(settings, baseline)
    runnables: dict[str, Runnable] = {
        BASELINE: builds[BASELINE].runnable,
        key: _adapted(builds[key].runnable, baseline, candidate),
    }
    stream = data.evaluation_stream(settings)
    with listener.task("Evaluating", stream.images) as advance:
        evaluations = evaluate(runnables, BASELINE, stream, advance, recorder.observe if recorder else None)
    drops = drops_from_evaluations(evaluations, BASELINE)
    metric = (
        section_from_scores(recorder, BASELINE, seed=settings.seed, max_drop=settings.max_drop) if recorder else None
    )
    return RunResult(
        settings,
        baseline,
        data,
        backend,
        None,
        builds,
        {},
        evaluations,
        drops,
        measure_latency(runnables, next(iter(islice(data.evaluation_stream(settings), 1))).inputs),
        _verdict(settings, key, drops, metric),
        tuple((item.file, item.reason) for item in stream.quarantined),
        tuple(listener.warnings),
        metric,
    )


def precision_of(model: Model) -> str:
    """int8 for a model with quantized tensors, fp16 for one with half-precision weights, else fp32.

    Of an engine, what its description says; `quant.engine_model.UNKNOWN` without one.
    """
    if isinstance(model, EngineModel):
        return model.precision
    graph = model.proto.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in graph.node):
        return "int8"
    kinds = {tensor.data_type for tensor in graph.initializer}
    return "fp16" if onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds else BASELINE


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
    """Which tensor of the other model each is: of the same name where all names are the same, else by their order."""
    named = {info.name: info for info in theirs}
    if set(named) == {info.name for info in ours}:
        return [(info, named[info.name]) for info in ours]
    return list(zip(ours, theirs, strict=False))


class _Adapted:
    """A model that takes the baseline's inputs, and gives outputs in the baseline's order."""

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
    """The same of an engine, which times itself."""

    def latency(self, inputs: Mapping[str, NDArray[Any]]) -> MeasuredLatency:
        assert isinstance(self._runnable, TimesItself)
        return self._runnable.latency(self._renamed(inputs))


def _adapted(runnable: Runnable, baseline: Model, candidate: Model) -> Runnable:
    kind = _AdaptedEngine if isinstance(runnable, TimesItself) else _Adapted
    return kind(runnable, baseline, candidate)


def _verdict(settings: RunSettings, key: str, drops: Mapping[str, Drop], metric: Mapping[str, Any] | None) -> Verdict:
    loss = losses_from_figures(settings.max_drop, drops, metric).get(key)
    if loss is None:
        return Verdict("unlabelled", key, unknown_loss(key), EXIT_DONE)
    if loss.too_much:
        return Verdict("fail", BASELINE, loss.complaint(key), EXIT_DROP)
    return Verdict("pass", key, loss.praise(key), EXIT_DONE)
