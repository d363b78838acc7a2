"""The main job in two Python calls: `build` an INT8 model, then `compare` it with the model it was made from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.caches.cache import cache_from_amax
from calib.calibrator import Calibrator, EntropyCalibrator
from calib.files import Transaction
from calib.histograms.loading import begin_loading
from datasets import identify, open_source, sample_indices
from datasets.arrays.memory import is_source, items_of, source_of_items
from datasets.arrays.stream import PassingSamples
from datasets.identity import ImageIdentity, contents
from datasets.source import AnySource
from quant.calibration.run_data import data_inputs, evaluation_data, source_from_python
from quant.calibration.split import USUAL_IMAGES
from quant.collectors.onnxruntime_collector import collect_statistics
from quant.errors import SettingsError
from quant.jobs.compare import compare_models, write_reports
from quant.jobs.compare_sides import Model, open_compared
from quant.onnx_graph.model import ModelInterface, OnnxModel, load_model
from quant.onnx_graph.model_file import sha256_of_model, stage_model
from quant.progress import Console, RecordingConsole
from quant.qdq.reader import name_algorithm
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
        source: The images; of what was iterable, a list of what has passed.
        calibrated: int64, indices in `source` of the images used for calibration; unreadable ones are left out.
        images: The same images, identified by their contents, so that they are recognised in any other source.
    """

    model: OnnxModel
    amax: dict[str, float]
    source: AnySource | PassingSamples
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
    images: str | Path | AnySource | Iterable[Any],
    calibrator: Calibrator | None = None,
    *,
    preprocess: str = "imagenet",
    input_size: str = "",
    input: Mapping[str, Any] | Sequence[str] = (),
    num_images: int = 512,
    sampling: Literal["random", "first"] = "random",
    seed: int = 0,
    batch_size: int = 64,
    max_bad: float = 0.05,
) -> Int8Model:
    """Calibrate a model on images and return its INT8 form.

    Args:
        model: FP32 model.
        images: Folder, HDF5 pack, a source (docs/python.md), a list of paths or arrays, or a DataLoader or any iterable
            of arrays, tensors, dicts or (array, label) pairs, of which the first `num_images` are taken in one pass.
        calibrator: How amax is computed; entropy by default. This call replaces any statistics it held before. If it
            names a cache, the cache is written.
        preprocess: Preset, path of a TOML file, or `file.py:callable`, which is executed.
        input_size: HEIGHTxWIDTH of the images, for a model that leaves it open.
        input: Inputs that are the same for every image, without the batch axis: values by name, or `NAME=VALUE` texts.
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
        TypeError: `images` is nothing that data can be taken from; the message says what is.
    """
    settings = RunSettings(
        preprocess=preprocess,
        input_size=input_size,
        input=_texts(input),
        num_images=num_images,
        batch_size=batch_size,
        max_bad=max_bad,
    )
    calibrator = calibrator if calibrator is not None else EntropyCalibrator()
    if calibrator.batches is not None:
        raise SettingsError(
            "calibrator: expected one without batches, because build reads `images`, found one with its own stream; "
            "leave out `batches`, or use quant.collect_statistics with it"
        )
    loaded = model if isinstance(model, OnnxModel) else load_model(model)
    begin_loading()
    source = _source_or_stream(images, loaded, settings)
    if isinstance(source, PassingSamples):
        _collect_into(calibrator, loaded, source.batches())
        read, identities = np.arange(len(source)), tuple(source.identities)
    else:
        selection = sample_indices(source, num_images, sampling=sampling, seed=seed)
        stream = replace(evaluation_data(source, settings, loaded), selection=selection).calibration_stream(settings)
        _collect_into(calibrator, loaded, stream)
        left_out = {item.file for item in stream.quarantined}
        read = np.array([index for index in selection if source.names[index] not in left_out], np.int64)
        identities = identify(source, read).entries
    amax = calibrator.compute_amax()
    made = light_qdq_model(loaded.light, amax)
    name_algorithm(made, cache_from_amax(amax, calibrator.algorithm))
    if calibrator.cache is not None:
        calibrator.write_cache()
    path = loaded.path.with_suffix(".int8.onnx")
    quantized = OnnxModel(path, made, sha256_of_model(made, path.name))
    return Int8Model(quantized, amax, source, read, identities)


def _collect_into(calibrator: Calibrator, model: OnnxModel, batches: Iterable[Any]) -> None:
    """Give a calibrator the statistics of a model on these batches, in place of those it held before."""
    fresh = Calibrator(calibrator.algorithm, batches)
    collect_statistics(model, fresh)
    calibrator.statistics = fresh.statistics


def _source_or_stream(images: object, model: OnnxModel, settings: RunSettings) -> AnySource | PassingSamples:
    """Data as a source; what gives samples one after another as a stream of them, of which none is kept."""
    if is_source(images) or isinstance(images, str | Path | list | tuple | np.ndarray):
        return _opened(images, model, settings)
    forms = data_inputs(settings, model)
    paths, items = items_of(images, forms)
    if paths is not None:
        return paths
    what, first = type(images).__name__, list(islice(items, 1))
    example = evaluation_data(source_of_items(first, forms, what), settings, model)
    return PassingSamples(
        what,
        chain(first, items),
        most=settings.num_images or USUAL_IMAGES,
        batch_size=settings.batch_size,
        preprocessing=example.preprocessing,
        input_name=example.input_name,
        constants=example.constants,
    )


def compare(
    baseline: str | Path | Model,
    candidate: str | Path | Model | Int8Model,
    images: str | Path | AnySource | Iterable[Any],
    *,
    preprocess: str = "imagenet",
    input_size: str = "",
    input: Mapping[str, Any] | Sequence[str] = (),
    metric: str | None = None,
    max_drop: float = 1.0,
    batch_size: int = 64,
    seed: int = 0,
    memory_limit: int = 1024,
    out: str | Path | None = None,
    console: Console | None = None,
) -> Document:
    """Compare two models on the same images, without those that an `Int8Model` was calibrated on.

    Calibration images are recognised by their contents, whatever their folders and names. If all images were used for
    calibration, all are compared, and a warning in the report says so.

    Args:
        baseline: FP32 model, or an engine.
        candidate: The model that is compared with it.
        images: Folder, HDF5 pack, a source, or data from Python as for `build`. Samples are needed several times, so
            what is no list or array is kept in memory, up to `memory_limit`.
        preprocess: Preset, path of a TOML file, or `file.py:callable`, which is executed.
        input_size: As for `build`.
        input: As for `build`.
        metric: `file.py:callable`, see `quant.evaluation.metric`.
        max_drop: Largest accepted drop: percentage points of top-1, or per cent of the baseline's score of `metric`.
        batch_size: Images in a batch.
        seed: Seed of the metric's bootstrap.
        memory_limit: MB of samples that are kept.
        out: Folder for report.json, report.md and report.html; None writes nothing.
        console: Where progress goes; nowhere by default.

    Returns:
        The contents of report.json; a notebook shows it as the page.

    Raises:
        ModelError, BuildError, QuantError: The models cannot be used, or do not take the same data.
        DatasetError: The images cannot be used.
        OutputError: The reports cannot be written.
        TypeError: `images` is nothing that data can be taken from; the message says what is.
    """
    settings = RunSettings(
        preprocess=preprocess,
        input_size=input_size,
        input=_texts(input),
        metric=metric,
        max_drop=max_drop,
        batch_size=batch_size,
        seed=seed,
        memory_limit=memory_limit,
    )
    listener = RecordingConsole(console)
    with contextlib.ExitStack() as stack:  # engines given as paths are freed, those given as objects stay usable

        def model_of(given: str | Path | Model) -> Model:
            return stack.enter_context(open_compared(Path(given))) if isinstance(given, str | Path) else given

        first = model_of(baseline)
        source = _opened(images, first, settings, split="val")
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


def _opened(images: object, model: ModelInterface, settings: RunSettings, split: str = "train") -> AnySource:
    forms = data_inputs(settings, model)
    if isinstance(images, str | Path):
        return open_source(images, inputs=[info.name for info in forms], split=split, forms=forms)
    return source_from_python(images, forms, settings)


def _texts(constants: Mapping[str, Any] | Sequence[str]) -> tuple[str, ...]:
    """Constant inputs as settings have them."""
    if isinstance(constants, Mapping):
        return tuple(f"{name}={json.dumps(np.asarray(value).tolist())}" for name, value in constants.items())
    return tuple(constants)
