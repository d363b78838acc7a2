"""What explicit builds try, each placement by itself, against TensorRT's own choice from the same cache."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.caches.cache import CalibrationCache, read_cache, text_from_cache
from calib.calibrator import calibrator_from_name
from datasets import BatchStream, ImageSource, Preprocessing, open_source
from gpu_sections.bench import Bench, Row, layers_text, top1
from quant.errors import QuantError
from quant.onnx_graph.model import OnnxModel, load_model
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.qdq.output_head import head_nodes
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement
from quant.qdq.rules import ALL_RULES, RULES
from quant.settings.batch_range import BatchRange
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.explicit import ExplicitBuilds
from quant.tensorrt.building.open_axes import with_sizes
from quant.tensorrt.building.tried_builds import Attempt, TriedBuild, fastest, is_as_fast
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.layers import graph_report

_COPIES = "first copies"
DETECTOR, DETECTOR_BATCH, DETECTOR_SIZE = "detector", 8, 320
WAYS: dict[str, Attempt] = {
    "kernels": Attempt("on all kernels", DEFAULT_PLACEMENT),
    **{rule: Attempt(f"on all kernels, rule {rule}", Placement(rules=frozenset({rule}))) for rule in RULES},
    **{f"without-{rule}": Attempt(f"by all rules but {rule}", Placement(rules=ALL_RULES - {rule})) for rule in RULES},
    "rules": Attempt("by all rules", Placement(rules=ALL_RULES)),
    "pooling": Attempt("on all kernels and before pooling", Placement(pooling=True)),
    "full-depthwise": Attempt("on all kernels but depthwise ones", Placement(depthwise=False)),
}


@dataclass(frozen=True)
class _Trial:
    """A model with what it is measured on.

    Attributes:
        model: FP32, without open axes besides the batch.
        cache: Its scales.
        batch: The batch that engines are for.
        inputs: All inputs to judge by.
        labels: Their classes; None for a detector.
        expected: FP32's outputs, of a detector.
        float_nodes: Products that stay float, as in a run.
    """

    model: OnnxModel
    cache: CalibrationCache
    batch: int
    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None
    expected: list[NDArray[Any]]
    float_nodes: frozenset[str]


def placements(bench: Bench) -> None:
    """Measure TensorRT's own choice, what `--explicit` tries, and the ways that were asked for."""
    names = [*([DETECTOR] if bench.detector is not None else []), *bench.nets, *bench.models]
    failed = []
    for name in dict.fromkeys(names):
        try:
            _of_model(bench, name)
        except (QuantError, RuntimeError) as error:  # the other models are still worth having
            failed.append(f"{name}: {error}")
    if failed:
        raise QuantError("; ".join(failed))


def _of_model(bench: Bench, name: str) -> None:
    wanted = [way for way in bench.ways if not bench.results.has("placements", f"{name} {WAYS[way].pairs}")]
    done = bench.results.has("placements", f"{name} taken")
    if done and not wanted:
        return
    trial = _detector_trial(bench) if name == DETECTOR else _net_trial(bench, name)
    batch = BatchRange(trial.batch, trial.batch, trial.batch)
    builds = ExplicitBuilds(
        trial.model.proto,
        trial.cache,
        batch,
        bench.options,
        name,
        lambda line: print(line, flush=True),
        trial.float_nodes,
    )
    implicit = builds.implicit_choice()
    goal = implicit.milliseconds
    _keep(bench, name, builds.tried[0], goal, _judged(trial, builds.named, implicit.built.data))
    attempts = builds.attempts(implicit)
    if not done:
        said = ", ".join(attempt.pairs for attempt in attempts)
        print(f"{name}: implicit {goal:.4g} ms; --explicit tries, until one is as fast: {said}", flush=True)
        _keep(bench, name, *_half(bench, trial, builds.named, batch, goal))
        made = {attempt.pairs: _row(bench, name, trial, builds, attempt, goal) for attempt in attempts}
        known = {pairs: told for pairs, told in made.items() if told is not None and told.milliseconds is not None}
        taken = _taken(attempts, known, goal)
        bench.results.add("placements", f"{name} taken", {"model": name, "pairs": f"taken by --explicit: {taken}"})
    for attempt in builds.different([*attempts, *(WAYS[way] for way in wanted)])[len(attempts) :]:
        _row(bench, name, trial, builds, attempt, goal)


def _taken(attempts: list[Attempt], known: Mapping[str, TriedBuild], goal: float) -> str:
    """What `--explicit` takes of these, by its own rule."""
    tried: list[tuple[str, float]] = []
    for attempt in attempts:
        told = known.get(attempt.pairs)
        if told is not None and told.milliseconds is not None:
            tried.append((attempt.pairs, told.milliseconds))
            if is_as_fast(told.milliseconds, goal):
                break
    if not tried:
        return "none"
    pairs, milliseconds = tried[fastest([found for _, found in tried])]
    return f"{pairs}, after {len(tried)} placements, {milliseconds / goal:.3f} of implicit"


def _row(
    bench: Bench, name: str, trial: _Trial, builds: ExplicitBuilds, attempt: Attempt, goal: float
) -> TriedBuild | None:
    """Build, time, judge and keep one placement; one that cannot be built is kept with TensorRT's words."""
    start = time.perf_counter()
    try:
        engine, told = builds.timed(attempt)
    except (QuantError, RuntimeError) as error:
        told = TriedBuild(attempt.pairs, time.perf_counter() - start, error=str(error))
        _keep(bench, name, told, goal, {})
        return None
    _keep(bench, name, told, goal, _judged(trial, engine.proto, engine.built.data))
    return told


def _half(
    bench: Bench, trial: _Trial, named: onnx.ModelProto, batch: BatchRange, goal: float
) -> tuple[TriedBuild, float, Row]:
    start = time.perf_counter()
    built = engine_from_onnx(named, "fp16", batch, bench.options, name="fp16")
    seconds = time.perf_counter() - start
    judged = _judged(trial, named, built.data)
    with Engine(built.data) as engine:
        first = {key: value[: trial.batch] for key, value in trial.inputs.items()}
        milliseconds = min(engine.latency(first).milliseconds for _ in range(3))
    return TriedBuild("nowhere (FP16 engine)", seconds, milliseconds), goal, judged


def _keep(bench: Bench, name: str, told: TriedBuild, goal: float, judged: Row) -> None:
    row: Row = {
        "model": name,
        "pairs": told.pairs,
        "ms": None if told.milliseconds is None else round(told.milliseconds, 4),
        "/ implicit": None if told.milliseconds is None else round(told.milliseconds / goal, 3),
        "work, %": None if told.int8_work is None else round(100 * told.int8_work, 1),
        "build, s": round(told.seconds, 1),
        **judged,
        "level": bench.level,
    }
    if told.error:
        row["error"] = told.error[:300]
    print({key: value for key, value in row.items() if value is not None}, flush=True)
    kept = {key: value for key, value in row.items() if key != _COPIES}  # which the page has no room for
    bench.results.add("placements", f"{name} {told.pairs}", kept)


def _judged(trial: _Trial, proto: onnx.ModelProto, data: bytes) -> Row:
    """Top-1, or SQNR against FP32, and the layers."""
    outputs = [value.name for value in trial.model.proto.graph.output]
    with Engine(data, outputs=outputs) as engine:
        found = engine.run(trial.inputs)
        report = graph_report(engine.layer_text(), proto)
    row: Row = {}
    if trial.labels is not None:
        row["top-1, %"] = round(top1(found[0], trial.labels), 2)
    else:
        row["SQNR, dB"] = round(_decibels(trial.expected[0], found[0]), 1)
    row["layers"] = layers_text({"graph": report.document()})
    copies = [layer for layer in report.layers if layer.is_reformat]
    row[_COPIES] = ", ".join(layer.name[:60] for layer in copies[:3])
    return row


def _decibels(expected: NDArray[Any], found: NDArray[Any]) -> float:
    noise = float(np.square(expected - found, dtype=np.float64).sum())
    return 10 * float(np.log10(np.square(expected, dtype=np.float64).sum() / max(noise, 1e-30)))


def _net_trial(bench: Bench, name: str) -> _Trial:
    images, labels = bench.test_images
    return _Trial(bench.model(name), bench.cpu_cache(name, "entropy"), 250, {"input": images}, labels, [], frozenset())


def _detector_trial(bench: Bench) -> _Trial:
    if bench.detector is None or bench.photos is None:
        raise QuantError("placements: expected --detector with --photos, found one of them")
    loaded = load_model(bench.detector)
    (info,) = loaded.inputs
    shape = (3, DETECTOR_SIZE, DETECTOR_SIZE)
    model = with_sizes(loaded, {info.name: shape})
    source = open_source(bench.photos)
    assert isinstance(source, ImageSource)
    preprocessing = Preprocessing.from_spec("yolo").bound_to((None, *shape), "float32")

    def stream() -> BatchStream:
        return BatchStream(
            source,
            np.arange(len(source)),
            preprocessing=preprocessing,
            batch_size=DETECTOR_BATCH,
            input_name=info.name,
        )

    path = bench.work / f"{DETECTOR}.minmax.cpu.cache"
    if not path.exists():
        from quant.collectors.onnxruntime_collector import collect_statistics

        calibrator = calibrator_from_name("minmax", stream())
        collect_statistics(model, calibrator)
        path.write_text(text_from_cache(calibrator.compute_cache()), encoding="utf-8")
    images = np.concatenate([batch.inputs[info.name] for batch in stream()])
    session = OnnxRuntimeSession(model.proto, name=DETECTOR)
    parts = [session.run({info.name: images[i : i + 8]}) for i in range(0, len(images), 8)]
    expected = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return _Trial(model, read_cache(path), DETECTOR_BATCH, {info.name: images}, None, expected, head_nodes(model.light))
