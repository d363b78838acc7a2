"""Two models on the same data: what the second costs and buys against the first, in the report of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from calib.files import Transaction, exclusive
from datasets import open_source
from quant.backend import Build
from quant.backends import onnxruntime_backend
from quant.comparison import measure_latency, paired_drop
from quant.console import Console, RecordingConsole
from quant.data import AnySource, evaluation_data
from quant.errors import QuantError
from quant.evaluate import Runnable, evaluate
from quant.graph import OnnxModel, load_model
from quant.metric import MetricRecorder, section_from_scores
from quant.pipeline import RunResult
from quant.report.command import compare_command
from quant.report.document import Document, document_from_run
from quant.report.images import thumbnails_from_source
from quant.report.markdown import markdown_from_document
from quant.report.render import flipped_files, html_from_document, json_from_document
from quant.settings import RunSettings
from quant.verdict import EXIT_DONE, EXIT_DROP, Verdict

BASELINE = "fp32"  # the report's word for what the others are held against


def compare_files(first: Path, second: Path, settings: RunSettings, console: Console | None = None) -> Document:
    """Compare two models and write the report into `settings.out`.

    Args:
        first: The baseline: an ONNX model, or a report.json, which stands for the model that its run built.
        second: What is held against it.
        settings: Data, preprocessing, metric, `max_drop` and `out`; all images of `eval`, else of `data`, are used.
        console: Where progress goes; nowhere by default.

    Raises:
        ModelError, BuildError, QuantError, DatasetError, CalibrationError: As `quant.run`.
    """
    models = [load_model(_model_path(path)) for path in (first, second)]
    path = settings.eval or settings.data
    if path is None:
        raise QuantError("data: expected a folder of images or an HDF5 pack, found nothing; give --data")
    names = [info.name for info in models[0].inputs]
    source = open_source(path, labels=settings.labels, classes=settings.classes, inputs=names)
    listener = RecordingConsole(console)
    with exclusive(settings.out):
        document = compare_models(models[0], models[1], source, settings, listener)
        document["command"] = compare_command(settings, first, second)
        document["working_folder"] = str(Path.cwd())
        write_reports(document, settings.out, source)
    return document


def write_reports(document: Document, folder: Path, source: AnySource) -> None:
    """report.json, report.md and report.html, whole or not at all; `source` gives the pictures of flipped images."""
    texts = {
        "report.json": json_from_document(document),
        "report.md": markdown_from_document(document),
        "report.html": html_from_document(document, thumbnails_from_source(source, flipped_files(document))),
    }
    with Transaction(folder) as files:
        for name, text in texts.items():
            files.stage(name).write_text(text, encoding="utf-8", errors="backslashreplace")


def _model_path(path: Path) -> Path:
    """An ONNX model itself, or the one that a report's run built: INT8 where there is one, else what was chosen."""
    if path.suffix.lower() != ".json":
        return path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        files = {build["precision"]: build.get("file") for build in document["builds"]}
        chosen = files.get("int8") or files[document["chosen"]]
        model = Path(document["model"]["path"])
    except OSError as error:
        raise QuantError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise QuantError(f"{path}: expected the report.json of a run, found something else ({error!r})") from error
    return model if not chosen or Path(chosen) == model else path.parent / str(chosen)


def compare_models(
    baseline: OnnxModel,
    candidate: OnnxModel,
    source: AnySource,
    settings: RunSettings,
    listener: RecordingConsole,
    selection: NDArray[Any] | None = None,
) -> Document:
    """The report of two models on the same samples.

    Args:
        baseline: What the other is held against.
        candidate: The other.
        source: Samples that are open already.
        settings: Preprocessing, batch size, metric, seed, `max_drop`.
        listener: Progress and warnings.
        selection: int64, indices in `source`; None for all.

    Raises:
        QuantError: The models do not take the same inputs or give the same outputs.
    """
    name = precision_of(candidate.proto)
    key = name if name != BASELINE else "candidate"
    if precision_of(baseline.proto) != BASELINE:
        listener.warn(
            f"{baseline.path} is {precision_of(baseline.proto)}, not fp32: 'fp32' in this report stands for it"
        )
    _check_inputs(baseline, candidate)
    settings = replace(settings, precision="fp32", cache_only=False)
    backend = onnxruntime_backend(settings, listener)
    data = evaluation_data(source, settings, baseline, selection)
    recorder = MetricRecorder(settings.metric, [info.name for info in baseline.outputs]) if settings.metric else None
    builds = {
        BASELINE: backend.build(baseline, "fp32"),
        key: _renamed(backend.build(candidate, "fp32"), candidate, key),
    }
    runnables: dict[str, Runnable] = {
        BASELINE: builds[BASELINE].runnable,
        key: _Renamed(builds[key].runnable, baseline, candidate),
    }
    stream = data.evaluation_stream(settings)
    with listener.task("Evaluating", stream.images) as advance:
        evaluations = evaluate(runnables, BASELINE, stream, advance, recorder.observe if recorder else None)
    right = evaluations[BASELINE].correct, evaluations[key].correct
    drops = {} if right[0] is None or right[1] is None else {key: paired_drop(right[0], right[1])}
    latencies = measure_latency(runnables, next(iter(islice(data.evaluation_stream(settings), 1))).inputs)
    result = RunResult(
        settings,
        baseline,
        data,
        backend,
        None,
        builds,
        {},
        evaluations,
        drops,
        latencies,
        _verdict(settings, key, drops[key].points if drops else None),
        tuple((item.file, item.reason) for item in stream.quarantined),
        tuple(listener.warnings),
        section_from_scores(recorder, BASELINE, seed=settings.seed) if recorder else None,
    )
    document = document_from_run(result)
    document["builds"][1]["file"] = str(candidate.path)
    document["command"] = document["working_folder"] = None  # called from Python, there is no line to repeat
    document["compared"] = [
        {"precision": label, "path": str(model.path), "sha256": model.sha256, "found": precision_of(model.proto)}
        for label, model in ((BASELINE, baseline), (key, candidate))
    ]
    return document


def precision_of(proto: onnx.ModelProto) -> str:
    """int8 for a model with quantized tensors, fp16 for one with half-precision weights, else fp32."""
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in proto.graph.node):
        return "int8"
    kinds = {tensor.data_type for tensor in proto.graph.initializer}
    return "fp16" if onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds else "fp32"


def _check_inputs(baseline: OnnxModel, candidate: OnnxModel) -> None:
    if [info.dtype for info in baseline.inputs] != [info.dtype for info in candidate.inputs]:
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


class _Renamed:
    """A model that takes the baseline's inputs by their order."""

    def __init__(self, runnable: Runnable, baseline: OnnxModel, candidate: OnnxModel) -> None:
        self._runnable = runnable
        pairs = zip(baseline.inputs, candidate.inputs, strict=True)
        self._names = {theirs.name: ours.name for theirs, ours in pairs}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return self._runnable.run({self._names[name]: array for name, array in inputs.items()})


def _renamed(build: Build, model: OnnxModel, precision: str) -> Build:
    """The user's own file under its precision: nothing of it is written again."""
    return replace(build, precision=precision, payload=None, bytes=model.proto.ByteSize())


def _verdict(settings: RunSettings, key: str, points: float | None) -> Verdict:
    if points is None:
        return Verdict("unlabelled", key, f"{key.upper()} is compared; without labels its drop is not known", EXIT_DONE)
    if points <= settings.max_drop:
        return Verdict(
            "pass",
            key,
            f"the drop of {key.upper()}, {points:.2f} points of top-1, is within the allowed {settings.max_drop:g}",
            EXIT_DONE,
        )
    return Verdict(
        "fail",
        BASELINE,
        f"{key.upper()} loses {points:.2f} points of top-1, more than the allowed {settings.max_drop:g}",
        EXIT_DROP,
    )
