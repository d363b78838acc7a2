"""The main job in two Python calls: `build` an INT8 model, then `compare` it with the model it was made from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.calibrator import Calibrator, EntropyCalibrator
from calib.files import Transaction
from datasets import identify, open_source, sample_indices
from datasets.identity import ImageIdentity, contents
from datasets.source import AnySource
from quant.calibration.run_data import evaluation_data
from quant.collectors.onnxruntime_collector import collect_statistics
from quant.errors import SettingsError
from quant.jobs.compare import compare_models, write_reports
from quant.jobs.compare_sides import Model, open_compared
from quant.onnx_graph.model import ModelInterface, OnnxModel, load_model
from quant.onnx_graph.model_file import sha256_of_model, stage_model
from quant.progress import Console, RecordingConsole
from quant.qdq.writer import light_qdq_model
from quant.report.contents.document import Document
from quant.report.views.notebook.shown import ShownReport
from quant.settings.run_settings import RunSettings


@dataclass(frozen=True)
class Int8Model:
    """An INT8 model and what it was calibrated on.

    Attributes:
        model: The INT8 model in explicit (Q/DQ) form.
        amax: Largest magnitude kept for each activation, in activation units.
        source: The images.
        calibrated: int64, indices in `source` of the images used for calibration; unreadable ones are left out.
        images: The same images, identified by their contents, so that they are recognised in any other source.
    """

    model: OnnxModel
    amax: dict[str, float]
    source: AnySource
    calibrated: NDArray[np.int64]
    images: tuple[ImageIdentity, ...]

    @property
    def proto(self) -> onnx.ModelProto:
        """The ONNX model."""
        return self.model.proto

    def write(self, path: str | Path) -> Path:
        """Write the ONNX file, whole or not at all, and return its path; a large model's weights lie beside it.

        Raises:
            OutputError: The file cannot be written.
        """
        target = Path(path)
        with Transaction(target.parent) as files:
            stage_model(files, target.name, self.model.light, replaces=False)
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
    """Calibrate a model on images and return its INT8 form.

    Args:
        model: FP32 model.
        images: Folder, HDF5 pack, or a source that is already open.
        calibrator: How amax is computed; entropy by default. This call replaces any statistics it held before. If it
            names a cache, the cache is written.
        preprocess: Preset, or path of a TOML file.
        num_images: Calibration images.
        sampling: random (seeded, by class where labels are known) or first.
        seed: Seed of the sample.
        batch_size: Images in a batch.
        max_bad: Largest accepted share of unreadable images, 0..1.

    Raises:
        ModelError, BuildError: The model cannot be used.
        SettingsError: A setting is out of range, or the calibrator has batches of its own.
        DatasetError: The images cannot be used.
        CalibrationError: An activation is not finite, or the cache cannot be written.
    """
    settings = RunSettings(preprocess=preprocess, num_images=num_images, batch_size=batch_size, max_bad=max_bad)
    calibrator = calibrator if calibrator is not None else EntropyCalibrator()
    if calibrator.batches is not None:
        raise SettingsError(
            "calibrator: expected one without batches, because build reads `images`, found one with its own stream; "
            "leave out `batches`, or use quant.collect_statistics with it"
        )
    loaded = model if isinstance(model, OnnxModel) else load_model(model)
    source = _opened(images, loaded)
    selection = sample_indices(source, num_images, sampling=sampling, seed=seed)
    stream = replace(evaluation_data(source, settings, loaded), selection=selection).calibration_stream(settings)
    fresh = Calibrator(calibrator.algorithm, stream)
    collect_statistics(loaded, fresh)
    calibrator.statistics = fresh.statistics
    amax = calibrator.compute_amax()
    made = light_qdq_model(loaded.light, amax)
    if calibrator.cache is not None:
        calibrator.write_cache()
    left_out = {item.file for item in stream.quarantined}
    read = np.array([index for index in selection if source.names[index] not in left_out], np.int64)
    path = loaded.path.with_suffix(".int8.onnx")
    quantized = OnnxModel(path, made, sha256_of_model(made, path.name))
    return Int8Model(quantized, amax, source, read, identify(source, read).entries)


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
    """Compare two models on the same images, without those that an `Int8Model` was calibrated on.

    Calibration images are recognised by their contents, whatever their folders and names. If all images were used for
    calibration, all are compared, and a warning in the report says so.

    Args:
        baseline: FP32 model, or an engine.
        candidate: The model that is compared with it.
        images: Folder, HDF5 pack, or a source that is already open.
        preprocess: Preset, or path of a TOML file.
        metric: `file.py:callable`, see `quant.evaluation.metric`.
        max_drop: Largest accepted drop: percentage points of top-1, or per cent of the baseline's score of `metric`.
        batch_size: Images in a batch.
        seed: Seed of the metric's bootstrap.
        out: Folder for report.json, report.md and report.html; None writes nothing.
        console: Where progress goes; nowhere by default.

    Returns:
        The contents of report.json.

    Raises:
        ModelError, BuildError, QuantError: The models cannot be used, or do not take the same data.
        DatasetError: The images cannot be used.
        OutputError: The reports cannot be written.
    """
    settings = RunSettings(preprocess=preprocess, metric=metric, max_drop=max_drop, batch_size=batch_size, seed=seed)
    listener = RecordingConsole(console)
    with contextlib.ExitStack() as stack:  # engines given as paths are freed, those given as objects stay usable

        def model_of(given: str | Path | Model) -> Model:
            return stack.enter_context(open_compared(Path(given))) if isinstance(given, str | Path) else given

        first = model_of(baseline)
        source = _opened(images, first)
        selection = None
        if isinstance(candidate, Int8Model):
            second: Model = candidate.model
            selection = _uncalibrated(candidate, source, listener)
        else:
            second = model_of(candidate)
        if out is not None:
            settings = replace(settings, out=Path(out))
        document = compare_models(first, second, source, settings, listener, selection)
    if out is not None:
        write_reports(document, settings.out, source)
    return ShownReport(document)


def _uncalibrated(candidate: Int8Model, source: AnySource, console: Console) -> NDArray[np.int64] | None:
    """Indices of the images that the model was not calibrated on; None for all."""
    calibrated = {image.sha256 for image in candidate.images}
    kept = [i for i, digest in enumerate(contents(source, candidate.images)) if digest not in calibrated]
    if not kept:
        console.warn(
            f"{source.path}: all {len(source)} images were used for calibration, so the measured drop may be too "
            "small; give other images"
        )
    return np.array(kept, np.int64) if kept else None


def _opened(images: str | Path | AnySource, model: ModelInterface) -> AnySource:
    return open_source(images, inputs=[i.name for i in model.inputs]) if isinstance(images, str | Path) else images
