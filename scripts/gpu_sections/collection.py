"""Calibration on the GPU: bandwidth of the counting kernels, images per second, agreement with the CPU, memory."""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.caches.cache import CalibrationCache, cache_from_amax
from calib.calibrator import EntropyCalibrator
from calib.histograms.split_histogram import SplitHistogram
from calib.histograms.statistics import Statistics
from calib.processors import usable_processors
from datasets import Batch, BatchStream, ImageSource, Preprocessing, open_source
from datasets.images.jpeg import in_use
from gpu_sections.bench import Row, top1
from quant.collectors.onnxruntime_collector import Spread, collect_statistics
from quant.collectors.plan import collection_plan
from quant.collectors.tensorrt_collector import TensorRTCollector
from quant.cuda.counting_kernels import CountingKernels, Shape
from quant.cuda.device import DeviceBuffer, Event, PinnedBuffer, Stream, memory_info, nominal_bandwidth, use_device
from quant.cuda.device_counts import DeviceCounts
from quant.onnx_graph.model import OnnxModel
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.tensorrt.activation_engine import ActivationEngine
from quant.tensorrt.backend import TensorRTBackend
from quant.tensorrt.building.options import BuilderOptions

ALGORITHMS = ("entropy", "minmax", "percentile", "mse")
SHAPES = (Shape(512, 2), Shape(256, 2), Shape(1024, 1), Shape(512, 1), Shape(1024, 2))
RUNS, _IN_A_ROW = 20, 10
_BLOCK = 1 << 24  # values that are made on the host; a tensor repeats them
_LIMIT = 4 << 30  # bytes of activations held


def kinds_of_values(count: int = _BLOCK) -> dict[str, tuple[NDArray[np.float32], float]]:
    """Values as activations have them, each with the limit that it is counted with."""
    random = np.random.default_rng(0)
    normal = random.standard_normal(count, np.float32)
    return {
        "normal": (normal, np.inf),
        "normal, half of them zero": (np.maximum(normal, 0), np.inf),
        "normal, with a limit of 1": (normal, 1.0),
        "heavy tails": (normal * np.exp(3 * random.standard_normal(count, np.float32)), np.inf),
        "softmax": (np.exp(-np.abs(normal) * 9), np.inf),
        "all the same": (np.full(count, 0.3, np.float32), np.inf),
    }


def same_bits() -> Row:
    """Compare the kernels' counts with the CPU's, on the same values."""
    use_device()
    row: Row = {}
    with Stream() as stream:
        for name, (values, limit) in kinds_of_values(1_000_003).items():
            expected = SplitHistogram(limit)
            expected.add(values)
            with (
                DeviceCounts({"x": limit}, CountingKernels(), stream) as counts,
                PinnedBuffer(values.shape, np.float32) as host,
                DeviceBuffer(values.nbytes) as there,
            ):
                host.array[:] = values
                stream.copy_to_device(there, host)
                counts.count({"x": (there.pointer, values.size)})
                found = counts.histogram("x")
                same = found.whole().digest() == expected.whole().digest()
                row[name] = "same" if same and found.clipped().digest() == expected.clipped().digest() else "DIFFERENT"
    return row


def bandwidth(size: int, shape: Shape, kinds: Sequence[str]) -> Iterator[Row]:
    """Time the counting of a tensor of so many bytes, and a copy of it on the device."""
    use_device()
    nominal = nominal_bandwidth()
    kernels = CountingKernels(shape)
    with Stream() as stream, DeviceBuffer(size) as tensor, DeviceBuffer(size) as other:
        copy = _median_seconds(stream, functools.partial(stream.copy_on_device, other, tensor))
        for kind, (values, limit) in kinds_of_values().items():
            if kind not in kinds:
                continue
            with PinnedBuffer(values.shape, np.float32) as host, DeviceCounts({"x": limit}, kernels, stream) as counts:
                host.array[:] = values
                for start in range(0, size, host.bytes):
                    part = min(host.bytes, size - start)
                    stream.copy_to(tensor.pointer + start, host, part)
                    stream.synchronize()
                whole = {"x": (tensor.pointer, size // 4)}
                counts.count(whole)  # finds the width of the bins
                seconds = _median_seconds(stream, counts.repeat)
            yield {
                "values": kind,
                "threads": f"{shape.blocks} x {shape.threads}",
                "GB": round(size / 1e9, 2),
                "ms": round(1000 * seconds, 3),
                "GB/s": round(size / seconds / 1e9),
                "of the nominal bandwidth, %": round(100 * size / seconds / nominal, 1) if nominal else None,
                "of a copy's, %": round(100 * (size / seconds) / (2 * size / copy), 1),
                "copy GB/s": round(2 * size / copy / 1e9),
            }


def _median_seconds(stream: Stream, queue: Callable[[], None]) -> float:
    """Seconds of a piece of work on the GPU, queued several times in a row so that queueing costs nothing."""
    times: list[float] = []
    with Event() as start, Event() as end:
        for _ in range(RUNS + 3):
            start.record(stream)
            for _ in range(_IN_A_ROW):
                queue()
            end.record(stream)
            stream.synchronize()
            times.append(end.milliseconds_since(start) / 1000 / _IN_A_ROW)
    return statistics.median(times[3:])


@dataclass(frozen=True)
class Subject:
    """A model and the images that it is calibrated with.

    Attributes:
        model: The model.
        folder: Its images.
        batch: Images in a batch.
        options: How engines are built.
    """

    model: OnnxModel
    folder: Path
    batch: int
    options: BuilderOptions

    def stream(self, images: int | None = None) -> BatchStream:
        """The first images of the folder, again and again if there are fewer."""
        source = open_source(self.folder)
        assert isinstance(source, ImageSource)
        info = self.model.inputs[0]
        fit = Preprocessing.from_spec("imagenet").bound_to(info.shape, info.dtype)
        chosen = np.arange(len(source) if images is None else images) % len(source)
        return BatchStream(source, chosen, preprocessing=fit, input_name=info.name, batch_size=self.batch)

    def decoded(self, images: int) -> list[Batch]:
        """So many images in memory; after the first 512 they repeat."""
        first = list(self.stream(min(images, 512)))
        return list(itertools.islice(itertools.cycle(first), images // self.batch))

    def collected(self, batches: Iterable[Any]) -> tuple[Statistics, TensorRTCollector, float]:
        """Statistics by the GPU, and the seconds of the whole."""
        collector = TensorRTCollector(_LIMIT, self.options, note=lambda line: print(f"  {line}", flush=True))
        calibrator = EntropyCalibrator(batches)
        start = time.perf_counter()
        collector.collect(self.model, calibrator)
        return calibrator.statistics, collector, time.perf_counter() - start


def throughput(subject: Subject, images: int, *, decoded: bool) -> Row:
    """Images per second, from memory or from files; decoding alone beside it."""
    batches = subject.decoded(images) if decoded else subject.stream(images)
    _, collector, seconds = subject.collected(batches)
    figures = collector.figures
    row: Row = {
        "model": subject.model.path.stem,
        "from": "memory" if decoded else "files",
        "images": figures.images,
        "batch": subject.batch,
        "images/s": round(figures.images / figures.passing),
        "engine s": round(figures.engine, 2),
        "pass s": round(figures.passing, 3),
        "all s": round(seconds, 2),
        "GPU waited s": round(figures.waiting, 3),
        "feeding s": round(figures.decoding, 3),
    }
    if not decoded:
        version, reason = in_use()
        row["JPEG decoder"] = f"Pillow alone: simplejpeg: {reason}" if reason else f"simplejpeg {version}"
        start = time.perf_counter()
        count = sum(len(batch.names) for batch in subject.stream(images))
        row["decoding alone, images/s"] = round(count / (time.perf_counter() - start))
        row["of decoding alone"] = round(row["images/s"] / row["decoding alone, images/s"], 2)
    return row


def stages(subject: Subject) -> Row:
    """Milliseconds of a batch on the GPU: the model alone, all activations, and their counting."""
    batch = subject.decoded(subject.batch)[0]
    plan = collection_plan(subject.model, EntropyCalibrator().algorithm, lambda names: {})
    row: Row = {"model": subject.model.path.stem, "batch": subject.batch}
    outputs = [value.name for value in subject.model.graph.graph.output]
    use_device()
    for what, tensors in (("outputs only", outputs), ("activations", plan.fetched)):
        engine = ActivationEngine(subject.model.proto, tensors, subject.batch, subject.options, "model")
        limits = dict.fromkeys(tensors, np.inf)
        with (
            Stream() as stream,
            DeviceBuffer(engine.bytes) as memory,
            DeviceCounts(limits, CountingKernels(), stream) as counts,
            PinnedBuffer(engine.inputs[0].shape, np.float32) as host,
            DeviceBuffer(host.bytes) as there,
        ):
            host.array[...] = batch.inputs[engine.inputs[0].name]
            stream.copy_to_device(there, host)
            arrays = {name: (a.pointer, a.size) for name, a in engine.place(memory.pointer).items()}
            inputs = {engine.inputs[0].name: there.pointer}
            row[f"{what} ms"] = round(1000 * _median_seconds(stream, functools.partial(engine.run, inputs, stream)), 3)
            if what == "activations":
                counts.count(arrays)
                row["counting ms"] = round(1000 * _median_seconds(stream, counts.repeat), 3)
                row["tensors"], row["MB"] = len(arrays), round(engine.bytes / 1e6)
        engine.close()
    row["images/s at most"] = round(1000 * subject.batch / (row["activations ms"] + row["counting ms"]))
    return row


def agreement(subject: Subject, images: int) -> tuple[list[Row], dict[str, dict[str, CalibrationCache]]]:
    """Amax by the GPU against the CPU's, by algorithm; and the caches of both."""
    mine, _, _ = subject.collected(subject.stream(images))
    calibrator = EntropyCalibrator(subject.stream(images))
    collect_statistics(subject.model, calibrator)
    rows: list[Row] = []
    caches: dict[str, dict[str, CalibrationCache]] = {}
    for name in ALGORITHMS:
        algorithm = algorithm_from_name(name)
        gpu, cpu = amax_from_statistics(mine, algorithm), amax_from_statistics(calibrator.statistics, algorithm)
        off = {tensor: abs(gpu[tensor] / value - 1) if value else 0.0 for tensor, value in cpu.items()}
        worst = max(off, key=lambda tensor: off[tensor])
        rows.append(
            {
                "model": subject.model.path.stem,
                "algorithm": name,
                "tensors": len(cpu),
                "within 0.1 %": round(100 * float(np.mean([value <= 0.001 for value in off.values()])), 1),
                "within 1 %": round(100 * float(np.mean([value <= 0.01 for value in off.values()])), 1),
                "worst": f"{100 * off[worst]:.3g} % ({worst})",
                "same tensors": gpu.keys() == cpu.keys(),
            }
        )
        caches[name] = {"gpu": cache_from_amax(gpu, algorithm), "cpu": cache_from_amax(cpu, algorithm)}
    return rows, caches


def memory(subject: Subject, batches: int) -> Row:
    """Free GPU memory while batches pass."""
    free: list[int] = []

    def stream() -> Iterator[Batch]:
        for batch in subject.decoded(batches * subject.batch):
            free.append(memory_info()[0])
            yield batch

    subject.collected(stream())
    first, last = free[10], free[-1]
    return {
        "model": subject.model.path.stem,
        "batches": len(free),
        "GPU memory taken between batch 10 and the last, MiB": (first - last) >> 20,
        "largest change, MiB": (max(free[10:]) - min(free[10:])) >> 20,
    }


def accuracy(subject: Subject, caches: dict[str, dict[str, CalibrationCache]], evaluated: Path) -> Iterator[Row]:
    """Top-1 of INT8 engines with the CPU's and with the GPU's scales."""
    source = open_source(evaluated)
    assert isinstance(source, ImageSource)
    info = subject.model.inputs[0]
    fit = Preprocessing.from_spec("imagenet").bound_to(info.shape, info.dtype)
    stream = BatchStream(source, np.arange(len(source)), preprocessing=fit, input_name=info.name, batch_size=250)
    batches = list(stream)
    images = np.concatenate([batch.inputs[info.name] for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    for algorithm, by in caches.items():
        row: Row = {"model": subject.model.path.stem, "algorithm": algorithm, "images": len(labels)}
        for who, cache in by.items():
            with TensorRTBackend(250, subject.options) as backend:
                engine = backend.build(subject.model, "int8", cache).engine
                row[f"top-1 with the {who.upper()}'s scales"] = round(
                    top1(engine.run({info.name: images})[0], labels), 2
                )
        yield row


def on_the_cpu(subject: Subject, images: int) -> Iterator[Row]:
    """The same images on the CPU: the plain forward pass, and the CPU's collector in several ways, in turn."""
    batches = subject.decoded(images)
    session = OnnxRuntimeSession(subject.model.light)
    session.run(batches[0].inputs)
    processors = usable_processors()
    spreads = {Spread.over(processors): "usual"}
    for parts, threads, mebibytes in ((1, 1, 40), (1, 1, 16), (1, 1, 8), (2, 2, 40), (4, 4, 40)):
        count = max(processors // parts, 1)
        spreads.setdefault(Spread(count, threads, max(processors // count, 1), mebibytes << 20), "tried")
    for spread, what in spreads.items():
        start = time.perf_counter()
        for batch in batches:
            session.run(batch.inputs)
        forward = time.perf_counter() - start
        start = time.perf_counter()
        collect_statistics(subject.model, EntropyCalibrator(batches[:1]), spread=spread)
        first = time.perf_counter()
        collect_statistics(subject.model, EntropyCalibrator(batches), spread=spread)
        seconds = time.perf_counter() - first
        yield {
            "model": subject.model.path.stem,
            "images": len(batches) * subject.batch,
            "processors": processors,
            "spread": f"{what}: {spread.parts} parts of {spread.part_bytes >> 20} MiB, {spread.run_threads} threads",
            "forward s": round(forward, 2),
            "collection s": round(seconds, 2),
            "of one batch s": round(first - start, 2),
            "ratio": round(seconds / forward, 2),
        }
