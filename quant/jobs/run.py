"""The main job: calibrate, build, compare, report. `calib run` is a thin shell around `run`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from calib.caches.provenance import stage_calibration
from calib.files import Transaction, exclusive
from calib.histograms.loading import begin_loading
from calib.regular_files import resolved
from quant.backend import Ahead, Backend, Build
from quant.calibration.obtain import CalibrationResult, obtain_calibration
from quant.calibration.preset_trial import PresetTrial, told_trial
from quant.calibration.run_data import RunData, open_data
from quant.calibration.told import model_line
from quant.collectors.collector import Collector
from quant.errors import SettingsError
from quant.evaluation.fidelity import worst_output
from quant.evaluation.metric import recorder_from_settings
from quant.evaluation.outputs import OutputReader
from quant.evaluation.verdict import Findings, decide, nothing_shown
from quant.jobs.backend_choice import backend_from_settings, collector_from_settings
from quant.jobs.measurement import first_batch, measured, sample_shapes
from quant.jobs.output_files import report_texts, stage_build, stage_texts
from quant.jobs.overlap.run_builds import RunBuilds, builds_ahead
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
from quant.jobs.tasks.head_trial import OTHER_HEAD, split_trial
from quant.jobs.tasks.task_choice import chosen_task, usable_recorder
from quant.onnx_graph.model import OnnxModel, load_model, refuse_quantized
from quant.progress import Console, RecordingConsole
from quant.report.contents.document import Document, document_from_run
from quant.report.result import Measurement, Recovered, RunResult
from quant.report.views.notebook.shown import ShownReport
from quant.report.views.svg import load_matplotlib
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
        if settings.precision == "int8" and not settings.cache_path.exists():
            begin_loading()
        listener.note(model_line(model))
        given = given_precisions(settings, model)
        opened = open_data(settings, model, listener, data, evaluation)
        for folder in _folders_to_hold(settings):
            stack.enter_context(exclusive(folder))
        backend = backend_from_settings(settings, listener, lambda _: sample_shapes(opened, settings))
        stack.callback(backend.close)
        with builds_ahead(settings, backend) as ahead:
            result = _result(settings, model, opened, backend, listener, given, ahead)
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
    ahead: Ahead | None,
) -> RunResult:
    metric = recorder_from_settings(settings, model, listener)
    collector = collector_from_settings(settings, listener)
    timings = listener.timings
    building = RunBuilds(settings, model, backend, ahead, listener)
    batch = first_batch(data, settings)
    task = chosen_task(model, building.first_runnable(batch), batch, data, settings, listener, metric)
    task = task.with_float(given.float_nodes)
    reader, place = task.reader, listener.later()
    asked = settings

    @functools.cache
    def presets() -> PresetTrial | None:
        return told_trial(data, asked, model, building.baseline().runnable, reader, place)

    if building.baseline_is_there:
        presets()  # what it says may spare a calibration
    settings = settings.with_algorithm(detects=task.head is not None)
    calibration = None
    if settings.precision == "int8":
        calibration = _calibrated(settings, model, data, backend, collector, listener, building.watched())
    arriving = building.reduced(calibration, batch, task)
    if not arriving.all_there:
        load_matplotlib()
    presets()

    def usable() -> bool:
        return usable_recorder(task, listener) is not None

    with timings.of("evaluation"):
        tested = {BASELINE: building.baseline(), **arriving.builds}
        together = measured(
            tested, BASELINE, data, settings, listener, reader, task.recorder, usable, timings, arriving
        )
    builds = {name: build for name, build in {**tested, **arriving.builds}.items() if name != OTHER_HEAD}
    failed = building.failed
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
        timeline=timings.spans(),
        recovered=recovered,
        better=better,
        presets=presets(),
        head=head,
        float_nodes=task.float_nodes,
        precisions=given.file,
        files=_kept_files(settings, builds, (settings.precision, verdict.chosen)),
        outdated=outdated,
        command=command_from_settings(settings),
        working_folder=str(Path.cwd()),
    )


def _calibrated(
    settings: RunSettings,
    model: OnnxModel,
    data: RunData,
    backend: Backend,
    collector: Collector,
    listener: RecordingConsole,
    watched: Console,
) -> CalibrationResult:
    """The scales, and what is to be said of them; `watched` may end their making."""
    timings = listener.timings
    with timings.of("calibration"):
        calibration = obtain_calibration(settings, model, data, backend, collector, watched)
    for stage, seconds in collector.seconds.items() if calibration.how == "calibrated" else ():
        timings.add(f"calibration: {stage}", seconds)
    warn_of_zeros(calibration, listener)
    warn_of_the_graph(model, listener)
    return calibration


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
