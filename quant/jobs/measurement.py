"""Measures builds against their baseline, in the same way for runs, comparisons and sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice, repeat
from typing import Any

from numpy.typing import NDArray

from datasets import Batch
from datasets.labels.class_labels import are_labelled
from datasets.source import AnySource
from quant.backend import Backend, Build, Latency, Runnable
from quant.calibration.run_data import RunData
from quant.errors import QuantError
from quant.evaluation.accuracy import Evaluating, Evaluation, Observe, reader_from_batch
from quant.evaluation.drop import drops_from_evaluations
from quant.evaluation.latency import measure_latency, measure_layers
from quant.evaluation.not_numbers import nan_in_words
from quant.evaluation.one_by_one import evaluate_one_by_one
from quant.evaluation.outputs import OutputReader
from quant.evaluation.recorder import Recorder
from quant.evaluation.unchanged import check_preparation
from quant.jobs.overlap.arriving import Arriving
from quant.onnx_graph.model import ModelInterface, OnnxModel
from quant.onnx_graph.tracing import outputs_after
from quant.onnxruntime.resident import fit_together
from quant.progress import Console, Timings
from quant.report.result import Measurement
from quant.settings.run_settings import RunSettings


def check_model(
    model: OnnxModel, backend: Backend, baseline: Callable[[], Runnable], batch: Batch, reader: OutputReader
) -> None:
    """Raise when what goes before quantization changes what a model computes, see `check_preparation`.

    Args:
        model: FP32 model.
        backend: What runs the builds.
        baseline: Gives its FP32 build.
        batch: Real images.
        reader: Which outputs are compared.

    Raises:
        BuildError: A step changes the outputs.
    """
    expected = baseline().run(batch.inputs) if backend.name == "onnxruntime" else None
    check_preparation(model, batch.inputs, expected, reader)


def measured(
    builds: Mapping[str, Build],
    baseline: str,
    data: RunData,
    settings: RunSettings,
    console: Console,
    reader: OutputReader,
    recorder: Recorder | None = None,
    usable: Callable[[], bool] | None = None,
    timings: Timings | None = None,
    arriving: Arriving | None = None,
) -> Measurement:
    """Evaluate builds on the evaluation images, and time them.

    A build whose deployed form computes in another way than as it is written (`Build.deployed`) is evaluated as written
    and timed as deployed; on the first images, both answer.

    Args:
        builds: Builds by name.
        baseline: Name of the one that the others are held against.
        data: The images.
        settings: Batch size, seed, `max_drop`.
        console: Where progress goes.
        reader: How the outputs are read.
        recorder: What scores the builds, with no scores yet; None without one.
        usable: Asked after the evaluation: do the scores of the recorder tell anything?
        timings: Takes the seconds of each build's runs.
        arriving: Builds that come while the others are evaluated; they are timed once nothing else runs.
    """
    timed = {name: build.deployed or build.runnable for name, build in builds.items()}
    inputs = first_batch(data, settings).inputs
    latencies: dict[str, Latency] = {}
    layers: dict[str, dict[str, float]] = {}

    def time_one(name: str) -> None:
        latencies.update(measure_latency({name: timed[name]}, inputs))

    together = fit_together(builds.values())  # else, timed in turn, each would be opened for each run
    observe = recorder.observe if recorder else None
    evaluations, quarantined = evaluated(
        builds,
        baseline,
        data,
        settings,
        console,
        reader,
        observe,
        after=None if together else time_one,
        timings=timings,
        arriving=arriving,
    )
    if arriving is not None:
        arriving.settle()
        timed |= {name: build.deployed or build.runnable for name, build in arriving.builds.items()}
    if together:
        taken = timings or Timings()
        with taken.of("evaluation: latency"):
            latencies = measure_latency(timed, inputs)
        with taken.of("evaluation: layers"):
            layers = _layers(timed, inputs, console)
    metric = None
    if recorder is not None and (usable is None or usable()):
        metric = recorder.section(baseline, seed=settings.seed, max_drop=settings.max_drop)
    return Measurement(
        evaluations, drops_from_evaluations(evaluations, baseline), latencies, metric, quarantined, layers
    )


def _layers(
    timed: Mapping[str, Runnable], inputs: Mapping[str, NDArray[Any]], console: Console
) -> dict[str, dict[str, float]]:
    """Milliseconds of the engines' layers; a profiler that fails costs no run."""
    try:
        return measure_layers(timed, inputs)
    except QuantError as error:
        console.warn(f"the layers are not timed: {error}")
        return {}


def evaluated(
    builds: Mapping[str, Build],
    baseline: str,
    data: RunData,
    settings: RunSettings,
    console: Console,
    reader: OutputReader,
    observe: Observe | None = None,
    *,
    after: Callable[[str], None] | None = None,
    timings: Timings | None = None,
    arriving: Arriving | None = None,
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Evaluations by build, and the unreadable images with the reasons.

    Each image is read once; once for each build where their sessions do not fit into memory together. `after` is called
    with the name of each of those builds, while its sessions are open; `timings` takes the seconds of the others' runs.
    """
    stream = data.evaluation_stream(settings)
    if fit_together(builds.values()):
        with console.task("Evaluating", stream.images) as advance:
            evaluations = _evaluated_together(builds, baseline, stream, advance, observe, reader, timings, arriving)
    else:
        runnables = {name: build.runnable for name, build in builds.items()}
        deployed = {name: build.deployed for name, build in builds.items() if build.deployed is not None}
        streams = chain([stream], (data.evaluation_stream(settings) for _ in repeat(None)))
        with console.task("Evaluating", stream.images * len(builds)) as advance:
            evaluations = evaluate_one_by_one(
                runnables,
                baseline,
                streams.__next__,
                advance,
                observe,
                reader=reader,
                deployed=deployed,
                after=after,
            )
    problem = nan_in_words(evaluations[baseline].not_numbers)
    if problem:
        console.warn(problem)
    return evaluations, {item.file: item.reason for item in stream.quarantined}


def _evaluated_together(
    builds: Mapping[str, Build],
    baseline: str,
    batches: Iterable[Batch],
    advance: Callable[[int], None],
    observe: Observe | None,
    reader: OutputReader,
    timings: Timings | None,
    arriving: Arriving | None,
) -> dict[str, Evaluation]:
    def timed(build: Build, name: str) -> tuple[Runnable, Runnable | None]:
        if timings is None:
            return build.runnable, build.deployed
        other = None if build.deployed is None else _Timed(build.deployed, timings, f"evaluation: {name} as deployed")
        return _Timed(build.runnable, timings, f"evaluation: {name}"), other

    running = Evaluating(baseline, reader, observe)
    for name, build in builds.items():
        running.add(name, *timed(build, name))
    return (arriving or Arriving()).evaluate(running, batches, advance, timed)


class _Timed:
    """Runs a build and takes the time."""

    def __init__(self, runnable: Runnable, timings: Timings, stage: str) -> None:
        self._runnable, self._timings, self._stage = runnable, timings, stage

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with self._timings.of(self._stage):
            return self._runnable.run(inputs)


def first_batch(data: RunData, settings: RunSettings) -> Batch:
    """The first batch of the evaluation."""
    return next(iter(islice(data.evaluation_stream(settings), 1)))


def sample_shapes(data: RunData, settings: RunSettings) -> dict[str, tuple[int, ...]]:
    """Shapes of the model's inputs as the data gives them, without the batch axis."""
    return {name: tuple(array.shape[1:]) for name, array in first_batch(data, settings).inputs.items()}


def first_batches(data: RunData, settings: RunSettings, images: int) -> list[Batch]:
    """The first batches of the evaluation that together have so many images, or all there are."""
    return list(islice(data.evaluation_stream(settings), -(-images // settings.batch_size)))


def read_outputs(
    model: ModelInterface, baseline: Runnable, batch: Batch, data: RunData, console: Console
) -> tuple[OutputReader, str]:
    """How the outputs of a run are read, and why labels do not answer to any; empty where they do.

    Outputs that are left out are said.
    """
    source = data.eval_source
    sigmoid = outputs_after(model.graph, "Sigmoid") if isinstance(model, OnnxModel) else frozenset()
    names = source.class_names
    classes = None if names is None else len(names)
    reader = reader_from_batch(model.outputs, baseline, batch, classes=classes, after_sigmoid=sigmoid)
    for note in reader.notes:
        console.warn(note)
    if not reader.compared:
        console.warn(f"{model.path}: none of its outputs can be compared; only a metric (--metric) can tell a drop")
    problem = _label_problem(source, reader, model)
    return OutputReader(reader.layouts, None) if problem else reader, problem


def say_of_labels(problem: str, settings: RunSettings, console: Console) -> None:
    """Say that labels are not used, if they are not; a metric uses any.

    Raises:
        QuantError: They were asked for.
    """
    if problem and settings.metric is None:
        if settings.labels is not None or settings.classes is not None:
            raise QuantError(problem)
        console.warn(f"{problem}; the labels are not used")


def _label_problem(source: AnySource, reader: OutputReader, model: ModelInterface) -> str:
    """Why labels do not fit the model; empty where they do, or where there are none."""
    names = source.class_names
    if source.labels is None:
        return ""
    labels = source.labels[are_labelled(source.labels)]
    if labels.dtype.kind != "i" or labels.ndim != 1:
        many = f"{labels.shape[1]} values an image" if labels.ndim > 1 else f"numbers such as {labels[0]:g}"
        return (
            f"{source.path}: expected labels that are class names or indices, found {many}, and no output of as many "
            "values; only a metric (--metric) can use those"
        )
    found = reader.scores.classes if reader.scores is not None else None
    if reader.scores is None:
        sizes = [info.shape[1] for info in model.outputs if len(info.shape) >= 2 and isinstance(info.shape[1], int)]
        has = f"the {sizes[0]} classes that the model has" if len(sizes) == 1 else "classes that an output answers"
        shown = "numbers alone"
        if names is not None:
            shown = f"{len(names)} ({', '.join([*names[:3], *['...'] * (len(names) > 3)])})"
        background = names is not None and len(sizes) == 1 and sizes[0] == len(names) + 1
        hint = " (the model has one more, which is often a background: it needs a line too)" if background else ""
        return (
            f"{source.path}: expected labels of {has}, found {shown}; give all class names in the model's order with "
            f"--classes{hint}, or say what the model is for with --task"
        )
    if found is None:
        return ""
    wrong = labels[(labels < 0) | (labels >= found)]
    if len(wrong):
        from_1 = labels.min() == 1 and labels.max() == found
        advice = "they count from 1, so take 1 from each" if from_1 else "give labels of this model"
        return (
            f"{source.path}: expected labels 0..{found - 1} as the model has {found} classes, found {int(wrong[0])}; "
            f"{advice}"
        )
    return ""
