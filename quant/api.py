"""The main job in two calls, for Python: `build` an INT8 model, `compare` it with the model that it was made from."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.calibrator import Calibrator, EntropyCalibrator
from calib.files import Transaction
from datasets import BatchStream, open_source, sample_indices
from quant.activations import collect_statistics
from quant.compared import Model, open_compared
from quant.console import Console, RecordingConsole
from quant.data import AnySource, evaluation_data
from quant.graph import ModelInterface, OnnxModel, load_model
from quant.model_comparison import compare_models, write_reports
from quant.qdq import qdq_model_from_amax
from quant.report.document import Document
from quant.settings import RunSettings


@dataclass(frozen=True)
class Int8Model:
    """An INT8 model and what it was calibrated on.

    Attributes:
        model: The INT8 model in explicit (Q/DQ) form.
        amax: Largest magnitude kept of each activation, activation units.
        source: The images.
        calibrated: int64, indices of the calibration images in `source`.
    """

    model: OnnxModel
    amax: dict[str, float]
    source: AnySource
    calibrated: NDArray[np.int64]

    @property
    def proto(self) -> onnx.ModelProto:
        """The ONNX model."""
        return self.model.proto

    def write(self, path: str | Path) -> Path:
        """Write the ONNX file, whole or not at all; returns its path.

        Raises:
            CalibrationError: The file cannot be written.
        """
        target = Path(path)
        with Transaction(target.parent) as files:
            files.stage(target.name).write_bytes(self.proto.SerializeToString())
        return target


def build(
    model: str | Path | OnnxModel,
    images: str | Path | AnySource,
    calibrator: Calibrator | None = None,
    *,
    preprocess: str = "imagenet",
    num_images: int = 512,
    sampling: Literal["random", "first"] = "random",
    seed: int = 0,
    batch_size: int = 64,
    max_bad: float = 0.05,
) -> Int8Model:
    """Calibrate a model on images and give its INT8 form.

    Args:
        model: FP32 model.
        images: Folder, HDF5 pack, or a source that is open already.
        calibrator: How amax is computed; entropy by default. Where it names a cache, the cache is written.
        preprocess: Preset, or path of a TOML file.
        num_images: Calibration images.
        sampling: random (seeded, by class where labels are known) or first.
        seed: Of the sample.
        batch_size: Images in a batch.
        max_bad: Largest accepted share of unreadable images, 0..1.

    Raises:
        ModelError, BuildError, QuantError: The model cannot be used.
        DatasetError: The images cannot be used.
        CalibrationError: An activation is not finite, or the cache cannot be written.
    """
    settings = RunSettings(preprocess=preprocess, num_images=num_images, batch_size=batch_size, max_bad=max_bad)
    loaded = model if isinstance(model, OnnxModel) else load_model(model)
    source = _opened(images, loaded)
    selection = sample_indices(source, settings.num_images, sampling=sampling, seed=seed)
    data = evaluation_data(source, settings, loaded)
    calibrator = calibrator if calibrator is not None else EntropyCalibrator()
    if calibrator.batches is None:
        calibrator.batches = BatchStream(
            source,
            selection,
            preprocessing=data.preprocessing,
            batch_size=batch_size,
            input_name=data.input_name,
            max_bad=max_bad,
        )
    collect_statistics(loaded, calibrator)
    amax = calibrator.compute_amax()
    proto = qdq_model_from_amax(loaded.proto, amax)
    if calibrator.cache is not None:
        calibrator.write_cache()
    path = loaded.path.with_suffix(".int8.onnx")
    digest = hashlib.sha256(proto.SerializeToString()).hexdigest()
    return Int8Model(OnnxModel(path, proto, digest), amax, source, selection)


def compare(
    baseline: str | Path | Model,
    candidate: str | Path | Model | Int8Model,
    images: str | Path | AnySource,
    *,
    preprocess: str = "imagenet",
    metric: str | None = None,
    max_drop: float = 1.0,
    batch_size: int = 64,
    seed: int = 0,
    out: str | Path | None = None,
    console: Console | None = None,
) -> Document:
    """Compare two models on the same images; the images that an `Int8Model` was calibrated on are left out.

    Args:
        baseline: FP32 model, or an engine.
        candidate: What is held against it.
        images: Folder, HDF5 pack, or a source that is open already.
        preprocess: Preset, or path of a TOML file.
        metric: `file.py:callable`, see `quant.metric`.
        max_drop: Largest accepted drop: percentage points of top-1, or per cent of the baseline's score of `metric`.
        batch_size: Images in a batch.
        seed: Of the metric's bootstrap.
        out: Folder for report.json, report.md and report.html; None writes nothing.
        console: Where progress goes; nowhere by default.

    Returns:
        What report.json holds.

    Raises:
        ModelError, BuildError, QuantError: The models cannot be used, or not on the same data.
        DatasetError: The images cannot be used.
    """
    settings = RunSettings(preprocess=preprocess, metric=metric, max_drop=max_drop, batch_size=batch_size, seed=seed)
    with contextlib.ExitStack() as stack:  # engines given as paths are freed, those given as objects stay usable

        def model_of(given: str | Path | Model) -> Model:
            return stack.enter_context(open_compared(Path(given))) if isinstance(given, str | Path) else given

        first = model_of(baseline)
        source = _opened(images, first)
        selection = None
        if isinstance(candidate, Int8Model):
            second: Model = candidate.model
            if candidate.source.path == source.path:
                left = np.setdiff1d(np.arange(len(source)), candidate.calibrated)
                selection = left if len(left) else None
        else:
            second = model_of(candidate)
        if out is not None:
            settings = replace(settings, out=Path(out))
        document = compare_models(first, second, source, settings, RecordingConsole(console), selection)
    if out is not None:
        write_reports(document, settings.out, source)
    return document


def _opened(images: str | Path | AnySource, model: ModelInterface) -> AnySource:
    return open_source(images, inputs=[i.name for i in model.inputs]) if isinstance(images, str | Path) else images
