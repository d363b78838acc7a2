"""What all measurements share: paths, images, caches, and the file that keeps the rows."""

from __future__ import annotations

import contextlib
import functools
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.algorithms import algorithm_from_name, amax_from_statistics
from calib.caches.cache import CalibrationCache, cache_from_amax, read_cache, text_from_cache
from calib.calibrator import calibrator_from_name
from calib.files import Transaction
from datasets import BatchStream, ImageSource, Preprocessing, open_source
from quant.cuda.batch_feed import FeedFigures
from quant.onnx_graph.model import OnnxModel, load_model
from quant.settings.batch_range import BatchRange
from quant.tensorrt.backend import TensorRTBackend
from quant.tensorrt.building.native_calibration import native_cache_from_onnx
from quant.tensorrt.building.options import BuilderOptions

Row = dict[str, Any]
ALGORITHMS = {
    "entropy": "entropy2",
    "minmax": "minmax",
    "percentile": "legacy",
}  # names of reference caches
MODELS = ("resnet20", "mobilenetv2", "vit")
CALIBRATION_IMAGES, CALIBRATION_BATCH = 512, 64  # as for the reference caches


@dataclass(frozen=True)
class Results:
    """Rows by section and key, in a JSON file that several processes may write.

    Attributes:
        path: The file.
    """

    path: Path

    def document(self) -> dict[str, dict[str, Row]]:
        """All rows."""
        if not self.path.is_file():
            return {}
        found: dict[str, dict[str, Row]] = json.loads(self.path.read_text(encoding="utf-8"))
        return found

    def has(self, section: str, key: str) -> bool:
        """Whether a row has already been measured."""
        return key in self.document().get(section, {})

    def add(self, section: str, key: str, row: Row) -> None:
        """Keep a row."""
        with _alone(self.path.parent):
            document = self.document()
            document.setdefault(section, {})[key] = row
            with Transaction(self.path.parent) as files:
                files.stage(self.path.name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Bench:
    """Paths, and how engines are built.

    Attributes:
        shared: Folder with `models`, `data` and `reference`.
        work: Scratch folder: unpacked images, timing cache, calibration caches.
        results: The rows.
        level: Builder effort, 0 to 5.
        models: Models to measure.
        algorithms: Algorithms to measure.
        torch: Python interpreter that has PyTorch and torchvision; None leaves that section out.
        nets: Files of other nets that take CIFAR-10 as the models do, by name.
        detector: File of a detector that takes letterboxed RGB in 0..1.
        photos: Photographs for it.
        ways: For the section `placements`: the ways to place pairs that are measured one by one.
    """

    shared: Path
    work: Path
    results: Results
    level: int = 3
    models: tuple[str, ...] = MODELS
    algorithms: tuple[str, ...] = tuple(ALGORITHMS)
    torch: str | None = None
    nets: Mapping[str, Path] = field(default_factory=dict)
    detector: Path | None = None
    photos: Path | None = None
    ways: tuple[str, ...] = ()

    @property
    def options(self) -> BuilderOptions:
        """How engines are built."""
        return BuilderOptions(level=self.level, timing_cache=self.work / "timing.cache")

    def backend(self, batch: BatchRange | int, **changes: Any) -> TensorRTBackend:
        """A back end with these options, which prints its notes."""
        options = BuilderOptions(**{**vars(self.options), **changes})
        return TensorRTBackend(batch, options, note=lambda line: print(line, flush=True))

    def model(self, name: str) -> OnnxModel:
        """A model by name."""
        return load_model(self.nets.get(name, self.shared / "models" / f"{name}.onnx"))

    def folder(self, archive: str) -> Path:
        """An archive's images, unpacked only once even if several processes need them."""
        folder = self.work / archive
        self.work.mkdir(parents=True, exist_ok=True)
        with _alone(self.work):
            if not folder.exists():
                safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                with tarfile.open(self.shared / "data" / f"{archive}.tar.gz") as file:
                    file.extractall(self.work / f"{archive}.part", **safely)
                (self.work / f"{archive}.part" / archive).rename(folder)
        return folder

    def stream(self, archive: str, size: int, images: int | None = None, batch: int = CALIBRATION_BATCH) -> BatchStream:
        """The first images of an archive, for square inputs of that size."""
        source = open_source(self.folder(archive))
        assert isinstance(source, ImageSource)
        preprocessing = Preprocessing.from_spec("imagenet").bound_to((None, 3, size, size), "float32")
        count = len(source) if images is None else images
        return BatchStream(source, np.arange(count), preprocessing=preprocessing, batch_size=batch)

    def calibration_stream(self) -> BatchStream:
        """The images that the reference caches were made from, in the same batches."""
        return self.stream("cifar10-calib", 32, CALIBRATION_IMAGES)

    def native_cache(self, name: str, algorithm: str) -> tuple[CalibrationCache, FeedFigures | None]:
        """TensorRT's own scales, and how it was fed; without figures if the scales were computed before."""
        path = self.work / f"{name}.{algorithm}.native.cache"
        if path.exists():
            return read_cache(path), None
        calibrator = calibrator_from_name(algorithm, self.calibration_stream())
        cache, feed = native_cache_from_onnx(self.model(name).proto, calibrator, CALIBRATION_BATCH, self.options)
        _write(path, text_from_cache(cache))
        return cache, feed

    def cpu_cache(self, name: str, algorithm: str) -> CalibrationCache:
        """The toolkit's scales; one pass over the images is enough for all algorithms."""
        path = self.work / f"{name}.{algorithm}.cpu.cache"
        if not path.exists():
            from quant.collectors.onnxruntime_collector import collect_statistics

            calibrator = calibrator_from_name("entropy", self.calibration_stream())
            collect_statistics(self.model(name), calibrator)
            for each in ALGORITHMS:
                chosen = algorithm_from_name(each)
                cache = cache_from_amax(amax_from_statistics(calibrator.statistics, chosen), chosen)
                _write(self.work / f"{name}.{each}.cpu.cache", text_from_cache(cache))
        return read_cache(path)

    @functools.cached_property
    def test_images(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """All 10,000 test images as the models take them, and their labels."""
        batches = list(self.stream("cifar10-test", 32, batch=250))
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return np.concatenate([batch.inputs["input"] for batch in batches]), np.concatenate(labels)


def _alone(folder: Path) -> contextlib.AbstractContextManager[object]:
    """A lock that keeps other processes of the report out of a folder."""
    from filelock import FileLock

    return FileLock(folder / "report.lock")


def _write(path: Path, text: str) -> None:
    with Transaction(path.parent) as files:
        files.stage(path.name).write_text(text, encoding="utf-8", newline="\n")


def top1(logits: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Accuracy, per cent."""
    return 100 * float((logits.argmax(axis=1) == labels).mean())


def layers_text(details: Mapping[str, Any]) -> str:
    """The precisions of an engine's layers, and what the builder made of the graph."""
    graph = details["graph"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in graph["precisions"].items())
    return f"{kinds}, {graph['reformats']} copies; {graph['onnx_nodes']} nodes to {graph['engine_layers']} layers"
