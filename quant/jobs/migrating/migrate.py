"""Turns an old TensorRT cache into a Q/DQ model, and measures the old build and the new one on the same images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from calib.caches.cache import CalibrationCache
from calib.errors import CacheError
from calib.files import Transaction, exclusive, sha256_of_files
from calib.regular_files import resolved
from quant.backend import Backend, Build, SampleShapes
from quant.calibration.run_data import evaluation_data
from quant.calibration.told import model_line
from quant.errors import QuantError, SettingsError
from quant.evaluation.accuracy import Evaluation
from quant.evaluation.drop import MetricDrop, agreement_with_interval, drops_from_evaluations
from quant.evaluation.metric import recorder_from_settings
from quant.evaluation.recorder import Recorder
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
from quant.jobs.backend_choice import backend_from_settings
from quant.jobs.cache_convert import read_cache_file
from quant.jobs.compare import open_evaluated
from quant.jobs.measurement import check_model, first_batch, measured, sample_shapes
from quant.jobs.output_files import report_texts, stage_texts
from quant.jobs.report_file import read_report
from quant.jobs.tasks.task_choice import chosen_task, usable_recorder
from quant.onnx_graph.light_model import LightModel
from quant.onnx_graph.model import OnnxModel, load_model, refuse_quantized
from quant.onnx_graph.model_file import sha256_of_model, stage_model
from quant.onnxruntime.backend import OnnxRuntimeBackend
from quant.progress import Console, RecordingConsole
from quant.qdq.implicit import implicit_model
from quant.qdq.migration import HAD_NONE, UNKNOWN, Migration, OldEngine, migrated
from quant.qdq.reader import ReadScales
from quant.report.contents.document import Document, document_from_run
from quant.report.result import ComparedModel, Measurement, MigrationResult, RunResult
from quant.report.views.notebook.shown import ShownReport
from quant.settings.command_line import migrate_command
from quant.settings.output_names import MODEL_SUFFIX, REPORT_JSON, build_name, data_name
from quant.settings.run_settings import RunSettings
from quant.tensorrt.building.mask_scales import scales_of_masks, without_scales_of

FP32, OLD, NEW = "fp32", "old", "new"


@dataclass(frozen=True)
class _Builds:
    """FP32, the old build and the new one.

    Attributes:
        builds: By name, FP32 first.
        taken: What the new one was made of.
        new: Its model.
        forecast: Is the old one no engine?
    """

    builds: Mapping[str, Build]
    taken: Migration
    new: OnnxModel
    forecast: bool


def migrate(path: Path, settings: RunSettings, console: Console | None = None) -> Document:
    """Write the Q/DQ model of an old cache and the reports into `settings.out`.

    Args:
        path: The cache: TensorRT's text, JSON, or a Q/DQ model.
        settings: Model, images, preprocessing, batch size, back end, metric, `max_drop`.
        console: Where progress goes; nowhere by default.

    Returns:
        The report; its key `migration` accounts for every tensor.

    Raises:
        CacheError: The cache cannot be read, or belongs to another model.
        ModelError, BuildError, QuantError: The model cannot be used.
        DatasetError: The images cannot be used.
    """
    listener = RecordingConsole(console)
    found, model = _read(path, settings, listener)
    taken = migrated(model.light, found.cache, str(path), str(model.path))
    source = open_evaluated(settings, model, listener)
    settings = replace(settings, precision="int8", explicit=False)
    if resolved(path) in {resolved(_new_file(settings, precision)) for precision in ("int8", "fp16")}:
        raise CacheError(f"{path}: would be overwritten by the new model; choose another --out")
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive(settings.out))
        data = evaluation_data(source, settings, model, None, listener)
        backend = _backend(settings, listener, lambda _: sample_shapes(data, settings))
        stack.callback(backend.close)
        made = _built(backend, model, found.cache, taken, path, settings, listener)
        taken, new = made.taken, made.new
        _say_what_is_missing(taken, path, listener)
        outdated = _of_earlier_migration(settings, new.path, listener)
        batch = first_batch(data, settings)
        metric = recorder_from_settings(settings, model, listener)
        baseline = made.builds[FP32].runnable
        task = chosen_task(model, baseline, batch, data, settings, listener, metric)
        check_model(model, backend, lambda: baseline, batch, task.reader)

        def usable() -> bool:
            return usable_recorder(task, listener) is not None

        together = measured(made.builds, FP32, data, settings, listener, task.reader, task.recorder, usable)
        outcome = _outcome(path, found.cache, new.path, taken, made.forecast, together, task.recorder, settings)
        document = document_from_run(
            RunResult(
                settings=settings,
                model=model,
                data=data,
                backend=backend,
                builds=made.builds,
                baseline=FP32,
                measured=together,
                verdict=_verdict(settings, together, outcome),
                quarantined=together.quarantined,
                warnings=tuple(listener.warnings),
                files={FP32: str(model.path), OLD: str(path), NEW: str(new.path)},
                compared=_compared(model, path, new, taken.precision),
                migration=outcome,
                command=migrate_command(settings, path),
                working_folder=str(Path.cwd()),
            )
        )
        texts = report_texts(document, source)
        with Transaction(settings.out) as files:
            for name in outdated:
                files.discard(name)
            stage_model(files, new.path.name, taken.model)
            stage_texts(files, texts)
    return ShownReport(document)


def _new_file(settings: RunSettings, precision: str) -> Path:
    return settings.out / build_name(precision, MODEL_SUFFIX)


def _of_earlier_migration(settings: RunSettings, new: Path, console: Console) -> tuple[str, ...]:
    """The model of the migration whose report is replaced, and its weights, if it has another name than the new one."""
    try:
        earlier = read_report(settings.out / REPORT_JSON)
    except QuantError:
        return ()
    name = Path(str((earlier.migration or {}).get("model", ""))).name
    others = {file.name for precision in ("int8", "fp16") if (file := _new_file(settings, precision)) != new}
    found = settings.out / name
    if name not in others or not found.is_file() or resolved(found) == resolved(Path(str(settings.model))):
        return ()
    console.warn(f"{settings.out}: {name} of an earlier migration is removed, because the new model is {new.name}")
    return name, data_name(name)


def _read(path: Path, settings: RunSettings, listener: RecordingConsole) -> tuple[ReadScales, OnnxModel]:
    """The cache and the model."""
    if settings.model is None:
        raise SettingsError("model: expected an ONNX file, found nothing; give --model")
    found = read_cache_file(path)
    model = load_model(settings.model)
    refuse_quantized(model)
    listener.note(model_line(model))
    for note in found.notes:
        listener.warn(f"{path}: {note}")
    return found, model


def _compared(model: OnnxModel, path: Path, new: OnnxModel, precision: str) -> dict[str, ComparedModel]:
    return {
        FP32: ComparedModel(path=str(model.path), sha256=model.sha256, precision="fp32"),
        OLD: ComparedModel(path=str(path), sha256=sha256_of_files(path), precision="int8"),
        NEW: ComparedModel(path=str(new.path), sha256=new.sha256, precision=precision),
    }


def _say_what_is_missing(taken: Migration, path: Path, console: Console) -> None:
    missing = [account for account in taken.tensors if account.kind == HAD_NONE]
    if missing:
        console.warn(
            f"{path}: {len(missing)} tensors that need a scale have none, '{missing[0].tensor}' first; "
            f"{len(taken.float_products)} products stay in float for that, as TensorRT ran them"
        )
    unknown = [account for account in taken.tensors if account.kind == UNKNOWN]
    if unknown:
        console.warn(
            f"{path}: {len(unknown)} scales are left out, of no tensor of the model: '{unknown[0].tensor}' first"
        )


def _backend(settings: RunSettings, console: Console, shapes: SampleShapes) -> Backend:
    """TensorRT where it builds engines from caches, else ONNX Runtime, which gives the forecast."""
    backend = backend_from_settings(settings, console, shapes)
    if backend.name != "tensorrt":
        return backend
    from quant.tensorrt.bindings import load_tensorrt

    if load_tensorrt().has_calibrators:
        return backend
    backend.close()
    console.warn(
        f"TensorRT {backend.version} takes no calibration caches, so old and new are compared in exact arithmetic on "
        "the CPU; calib compare --backend tensorrt measures the new model on the GPU"
    )
    return OnnxRuntimeBackend()


def _built(
    backend: Backend,
    model: OnnxModel,
    cache: CalibrationCache,
    taken: Migration,
    path: Path,
    settings: RunSettings,
    console: Console,
) -> _Builds:
    """Build FP32, the old build and the new one, which follows the old engine where there is one."""
    builds = {FP32: backend.build(model, "fp32")}
    forecast = backend.name != "tensorrt"
    if forecast:
        masks = scales_of_masks(model.proto, cache)
        if masks:
            console.warn(
                f"{path}: {len(masks)} scales are of tensors that hold a mask, '{masks[0]}' first; the old build is "
                "forecast without them, as builds here leave them out"
            )
        amax = without_scales_of(cache, masks).amax
        builds[OLD] = backend.load(_unnamed(implicit_model(model.light, amax), path), "int8")
    else:
        builds[OLD] = backend.build(model, "int8", cache)
        followed = migrated(model.light, cache, str(path), str(model.path), _old_engine(builds[OLD]))
        if followed.precision == "int8" or not settings.strict_int8:
            taken = followed
        if taken.precision == "fp16":
            console.warn(
                f"{path}: on this GPU, at this batch size, TensorRT computes no product in INT8; so the new model is "
                "FP16 as well, and needs no scales"
            )
    file = _new_file(settings, taken.precision)
    new = OnnxModel(file, taken.model, sha256_of_model(taken.model, file.name))
    builds[NEW] = backend.load(new, taken.precision)
    # None is written by the measurement: the new model is staged by itself, and an engine is of this machine only.
    unwritten = {name: replace(build, payload=None, files={}) for name, build in builds.items()}
    return _Builds(unwritten, taken, new, forecast)


def _old_engine(build: Build) -> OldEngine:
    graph = build.details["graph"]
    in_int8 = frozenset(node for layer in graph["layers"] if layer["precision"] == "int8" for node in layer["nodes"])
    return OldEngine(in_int8, frozenset(graph.get("int8_tensors", ())))  # an older description lacks them


def _unnamed(model: LightModel, path: Path) -> OnnxModel:
    """A model that goes by the name of the cache that it was made from, and has no file."""
    return OnnxModel(path, model, "")


def _outcome(
    path: Path,
    cache: CalibrationCache,
    file: Path,
    taken: Migration,
    forecast: bool,
    found: Measurement,
    recorder: Recorder | None,
    settings: RunSettings,
) -> MigrationResult:
    old, new = found.evaluations[OLD], found.evaluations[NEW]
    drop = None if found.metric is not None else drops_from_evaluations({OLD: old, NEW: new}, OLD).get(NEW)
    return MigrationResult(
        cache=str(path),
        header=cache.header,
        model=str(file),
        migration=taken,
        forecast=forecast,
        drop=drop,
        metric_drop=_metric_drop(found, recorder, settings),
        agreement=_agreement(old, new),
    )


def _metric_drop(found: Measurement, recorder: Recorder | None, settings: RunSettings) -> MetricDrop | None:
    """What the new build loses against the old one in what scores in place of top-1, if labels or a metric do."""
    if recorder is None or found.metric is None or found.metric.get("against") == "fp32":
        return None
    return recorder.drop(OLD, NEW, seed=settings.seed)


def _agreement(old: Evaluation, new: Evaluation) -> tuple[float, float, float] | None:
    if old.predicted is None or new.predicted is None:
        return None
    return agreement_with_interval(old.predicted, new.predicted)


def _verdict(settings: RunSettings, found: Measurement, outcome: MigrationResult) -> Verdict:
    """Does the new build keep within what is allowed, against FP32 and against the old build?"""
    invalid = nothing_shown(found.evaluations[FP32], found.metric)
    if invalid:
        return Verdict("invalid", FP32, invalid, EXIT_INVALID)
    losses = losses_from_figures(settings.max_drop, found.drops, found.metric)
    new, old = Path(outcome.model).name, Path(outcome.cache).name
    complaints = {
        build: complaint_of_build(name, losses.get(build), found.evaluations[build], found.metric)
        for build, name in ((NEW, new), (OLD, old))
    }
    against_old = _loss_against_old(settings, found, outcome, new, old)
    if complaints[NEW] is not None:
        kept = f"the old build does no better ({complaints[OLD]}): the scales are at fault, so calibrate with calib run"
        reason = kept if complaints[OLD] is not None else against_old or f"{old} keeps within the limit"
        return Verdict("fail", FP32, f"{complaints[NEW]}; {reason}", EXIT_DROP)
    if against_old is not None:
        return Verdict("fail", FP32, against_old, EXIT_DROP)
    loss = losses.get(NEW)
    if loss is None or isinstance(loss, Agreement):
        baseline, candidate = found.evaluations[FP32], found.evaluations[NEW]
        said = closeness(new, baseline, candidate) if loss is None else loss.praise(new)
        return Verdict("unlabelled", NEW, said, EXIT_DONE)
    return Verdict("pass", NEW, loss.praise(new), EXIT_DONE)


def _loss_against_old(
    settings: RunSettings, found: Measurement, outcome: MigrationResult, new: str, old: str
) -> str | None:
    """Why the new build is worse than the old one by more than is allowed; None where it is not."""
    if outcome.metric_drop is not None and found.metric is not None:
        allowed = found.metric["allowed_drop"]
        if outcome.metric_drop.drop > allowed:
            name = found.metric["name"]
            lost = f"{outcome.metric_drop.drop:.4g} of {name}"
            return f"{new} loses {lost} against {old}, more than the allowed {allowed:.4g}"
    elif outcome.drop is not None and outcome.drop.points > settings.max_drop:
        lost = f"{outcome.drop.points:.2f} points of top-1"
        return f"{new} loses {lost} against {old}, more than the allowed {settings.max_drop}"
    return None
