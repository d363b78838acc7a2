"""The main job: calibrate, build, compare, report. `calib run` is a thin shell around `run`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from calib.caches.provenance import stage_calibration
from calib.files import Transaction, exclusive
from calib.regular_files import resolved
from datasets import Batch
from quant.backend import Backend, Build
from quant.calibration.obtain import CalibrationResult, obtain_calibration
from quant.calibration.preset_trial import told_trial
from quant.calibration.run_data import RunData, open_data
from quant.calibration.told import model_line
from quant.errors import BuildError, ModelError, SettingsError
from quant.evaluation.fidelity import worst_output
from quant.evaluation.metric import recorder_from_settings
from quant.evaluation.outputs import OutputReader
from quant.evaluation.unchanged import check_preparation
from quant.evaluation.verdict import Findings, decide, nothing_shown
from quant.jobs.backend_choice import backend_from_settings, collector_from_settings
from quant.jobs.measurement import first_batch, measured, sample_shapes
from quant.jobs.output_files import report_texts, stage_build, stage_texts
from quant.jobs.recovering.float_rules import GivenPrecisions, given_precisions
from quant.jobs.recovering.recovery_job import RecoveryJob
from quant.jobs.run_warnings import (
    BASELINE,
    warn_near_chance,
    warn_of_deployment,
    warn_of_implausible_scales,
    warn_of_quarantined,
    warn_of_the_graph,
    warn_of_zeros,
)
from quant.jobs.tasks.head_trial import OTHER_HEAD, other_head_build, split_trial
from quant.jobs.tasks.task_choice import ChosenTask, chosen_task, usable_recorder
from quant.onnx_graph.model import OnnxModel, load_model, refuse_quantized
from quant.progress import Console, RecordingConsole
from quant.report.contents.document import Document, document_from_run
from quant.report.result import Measurement, Recovered, RunResult
from quant.report.views.notebook.shown import ShownReport
from quant.search.algorithms import GOOD_DB, BetterAlgorithm, better_algorithm
from quant.settings.command_line import command_from_settings
from quant.settings.output_names import (
    PRECISIONS,
    RECOVERED,
    RECOVERED_CACHE,
    RECOVERED_MODEL,
    build_name,
    names_of_builds,
)
from quant.settings.run_settings import RunSettings


def run(
    settings: RunSettings,
    console: Console | None = None,
    *,
    data: object | None = None,
    evaluation: object | None = None,
) -> Document:
    """Do the main job and write its files into `settings.out`.

    Args:
        settings: What to do; `model` is given, and `data` if it is not given here.
        console: Where progress goes; nowhere by default.
        data: Data from Python in place of `settings.data`, see docs/python.md.
        evaluation: Data from Python in place of `settings.eval`.

    Returns:
        The report.

    Raises:
        ModelError, BuildError, QuantError: The model cannot be used, or what was asked of it is impossible.
        DatasetError: The images cannot be used.
        CalibrationError: Calibration failed, the cache may not be used, or files could not be written.
        TypeError: Data from Python is nothing that data can be taken from; the message says what is.
    """
    listener = RecordingConsole(console)
    with contextlib.ExitStack() as stack:
        if settings.model is None:
            raise SettingsError("model: expected an ONNX file, found nothing; give --model")
        model = load_model(settings.model)
        refuse_quantized(model)
        listener.note(model_line(model))
        given = given_precisions(settings, model)
        opened = open_data(settings, model, listener, data, evaluation)
        for folder in _folders_to_hold(settings):
            stack.enter_context(exclusive(folder))
        backend = backend_from_settings(settings, listener, lambda _: sample_shapes(opened, settings))
        stack.callback(backend.close)
        result = _result(settings, model, opened, backend, listener, given)
        if data is not None or evaluation is not None:
            result = replace(result, command=None)  # no command line repeats it
        document = document_from_run(result)
        _write(result, document)
    return ShownReport(document)


def _folders_to_hold(settings: RunSettings) -> list[Path]:
    """The folders to write to, each once however it is spelled, in an order that all runs share."""
    folders = [settings.out]
    if settings.precision == "int8" and not settings.trust_cache:
        folders.append(settings.cache_path.parent)
    return [folder for _, folder in sorted({resolved(folder): folder for folder in folders}.items())]


def _result(
    settings: RunSettings,
    model: OnnxModel,
    data: RunData,
    backend: Backend,
    listener: RecordingConsole,
    given: GivenPrecisions,
) -> RunResult:
    metric = recorder_from_settings(settings, model, listener)
    collector = collector_from_settings(settings, listener)
    timings = listener.timings
    with timings.of(f"build {BASELINE}"):
        builds = {BASELINE: backend.build(model, BASELINE)}
    batch = first_batch(data, settings)
    task = chosen_task(model, builds[BASELINE].runnable, batch, data, settings, listener, metric)
    task = task.with_float(given.float_nodes)
    presets = told_trial(data, settings, model, builds[BASELINE].runnable, task.reader, listener)
    reader, settings = task.reader, settings.with_algorithm(detects=task.head is not None)
    calibration = None
    if settings.precision == "int8":
        with timings.of("calibration"):
            calibration = obtain_calibration(settings, model, data, backend, collector, listener)
        for stage, seconds in collector.seconds.items() if calibration.how == "calibrated" else ():
            timings.add(f"calibration: {stage}", seconds)
        warn_of_zeros(calibration, listener)
        warn_of_the_graph(model, listener)
    failed = _add_reduced(builds, settings, model, backend, calibration, batch, task, listener)
    trial = other_head_build(builds, task, model, backend, calibration, settings, listener)
    tried = builds if trial is None else {**builds, OTHER_HEAD: _tried(trial, batch, listener)}

    def usable() -> bool:
        return usable_recorder(task, listener) is not None

    with timings.of("evaluation"):
        together = measured(tried, BASELINE, data, settings, listener, reader, task.recorder, usable, timings)
    found, head = split_trial(together, task, settings)
    recovered = None
    if calibration is not None and "int8" in builds and _shows_something(found, settings):
        job = RecoveryJob(settings, model, data, backend, collector, task, listener)
        with timings.of("recovery"):
            outcome = job.run(calibration, builds, found, task.float_nodes, given.file)
        if outcome is not None:
            recovered, found = outcome
            head = None if recovered.used else head  # what was compared is no longer the build
            builds |= {"int8": recovered.build} if recovered.build is not None else {}
    quarantined = _quarantined(data, calibration, found.quarantined)
    warn_of_quarantined(quarantined, listener)
    warn_near_chance(found, listener)
    warn_of_deployment(found.evaluations, listener)
    warn_of_implausible_scales(calibration, model, data, settings, collector, listener)
    outdated = _outdated_files(settings, failed, recovered, listener)
    verdict = decide(settings, _findings(found, builds, failed))
    better = None
    if not recovered:
        better = _better_algorithm(settings, model, data, calibration, found, reader, task.float_nodes)
    if better is not None:
        listener.warn(better.text)
    return RunResult(
        settings=settings,
        model=model,
        data=data,
        backend=backend,
        calibration=calibration,
        builds=builds,
        failed=failed,
        measured=found,
        verdict=verdict,
        quarantined=quarantined,
        warnings=tuple(listener.warnings),
        timings=timings.seconds(),
        recovered=recovered,
        better=better,
        presets=presets,
        head=head,
        float_nodes=task.float_nodes,
        precisions=given.file,
        files=_kept_files(settings, builds, (settings.precision, verdict.chosen)),
        outdated=outdated,
        command=command_from_settings(settings),
        working_folder=str(Path.cwd()),
    )


def _findings(found: Measurement, builds: Mapping[str, Build], failed: Mapping[str, str]) -> Findings:
    """What the verdict is decided from."""
    return Findings(
        found.evaluations,
        found.drops,
        failed,
        found.latencies,
        engines=all(build.is_engine for build in builds.values()),
        metric=found.metric,
    )


def _add_reduced(
    builds: dict[str, Build],
    settings: RunSettings,
    model: OnnxModel,
    backend: Backend,
    calibration: CalibrationResult | None,
    batch: Batch,
    task: ChosenTask,
    listener: RecordingConsole,
) -> dict[str, str]:
    """Build FP16 and INT8 as far as they are asked for; gives the reasons of those that cannot be built."""
    failed: dict[str, str] = {}
    for precision in _reduced_precisions(settings):
        try:
            if precision == "int8":
                check_preparation(model, batch.inputs, builds[BASELINE].runnable.run(batch.inputs), task.reader)
            with listener.timings.of(f"build {precision}"):
                build = backend.build(model, precision, calibration.cache if calibration else None, task.float_nodes)
            builds[precision] = _tried(build, batch, listener)
        except (BuildError, ModelError) as error:  # a build that loads and does not run is none
            failed[precision] = str(error)
            listener.warn(f"{precision} cannot be built: {error}")
    return failed


def _tried(build: Build, batch: Batch, listener: RecordingConsole) -> Build:
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
        listener.warn(
            f"{build.precision}: as ONNX Runtime deploys it, it does not run ({error}); it runs with "
            "session.disable_quant_qdq = 1, and is timed so"
        )
        return replace(build, deployed=None)
    return build


def _kept_files(settings: RunSettings, builds: Mapping[str, Build], wanted: Collection[str]) -> dict[str, str]:
    """Names of the built files that are kept, by precision: the one that was asked for and the one that was chosen.

    Engines are all kept, because the next run reuses them. So is a build that replaces an earlier run's file.
    """
    files = {name: build_name(name, build.suffix) for name, build in builds.items() if build.payload is not None}
    return {
        name: file
        for name, file in files.items()
        if name in wanted or builds[name].is_engine or (settings.out / file).is_file()
    }


def _quarantined(data: RunData, calibration: CalibrationResult | None, evaluated: Mapping[str, str]) -> dict[str, str]:
    """Unreadable images and why, each once; with the folder if calibration and evaluation have one each."""
    folders = ("", "") if data.eval_source is data.source else (f"{data.source.path}/", f"{data.eval_source.path}/")
    reasons = {f"{folders[0]}{file}": reason for file, reason in (calibration.quarantined if calibration else ())}
    return reasons | {f"{folders[1]}{file}": reason for file, reason in evaluated.items()}


def _reduced_precisions(settings: RunSettings) -> tuple[str, ...]:
    return {"int8": ("fp16", "int8"), "fp16": ("fp16",), "fp32": ()}[settings.precision]


def _outdated_files(
    settings: RunSettings, failed: Iterable[str], recovered: Recovered | None, listener: RecordingConsole
) -> tuple[str, ...]:
    """What an earlier run left that could be taken for this run's: builds that failed now, a recovered model."""
    outdated: list[str] = []
    for precision in failed:
        found = [name for name in names_of_builds(precision) if (settings.out / name).is_file()]
        if found:
            listener.warn(
                f"{settings.out}: {', '.join(found)} of an earlier run is removed, because {precision} cannot be built"
            )
        outdated.extend(found)
    kept = _recovered_files(recovered)
    outdated.extend(name for name in RECOVERED if name not in kept and (settings.out / name).is_file())
    return tuple(outdated)


def _recovered_files(recovered: Recovered | None) -> tuple[str, ...]:
    """Names of the files that recovery writes in this run."""
    if recovered is None or not recovered.used:
        return ()
    return tuple(name for name in RECOVERED if name != PRECISIONS or recovered.precisions)


def _shows_something(found: Measurement, settings: RunSettings) -> bool:
    """Can a loss be told at all? Not where FP32 itself is at chance."""
    return settings.metric is not None or not nothing_shown(found.evaluations[BASELINE])


def _better_algorithm(
    settings: RunSettings,
    model: OnnxModel,
    data: RunData,
    calibration: CalibrationResult | None,
    found: Measurement,
    reader: OutputReader,
    float_nodes: frozenset[str],
) -> BetterAlgorithm | None:
    """Another algorithm that serves the outputs better on the same statistics, where INT8 leaves much noise in them."""
    evaluation = found.evaluations.get("int8")
    if calibration is None or evaluation is None or calibration.statistics is None:
        return None
    worst = worst_output(evaluation.fidelity)
    if worst is None or worst.floor_db >= GOOD_DB:
        return None
    return better_algorithm(
        model,
        calibration.statistics,
        settings.algo,
        calibration.amax,
        first_batch(data, settings),
        reader,
        float_nodes,
    )


def _write(result: RunResult, document: Document) -> None:
    texts = report_texts(document, result.data.eval_source)
    recovered = result.recovered
    with Transaction(result.settings.out) as files:
        for name in result.outdated:
            files.discard(name)
        for precision, name in result.files.items():
            stage_build(files, name, result.builds[precision])
        if recovered is not None and recovered.model is not None:
            files.stage(RECOVERED_MODEL).write_bytes(recovered.model.proto.SerializeToString())
        if recovered is not None and recovered.calibration is not None:
            stage_calibration(files, recovered.calibration, RECOVERED_CACHE)
        if recovered is not None and recovered.precisions:
            files.stage(PRECISIONS).write_text(recovered.precisions, encoding="utf-8")
        stage_texts(files, texts)
