"""A run's data: the images for calibration and for evaluation, and how they become the model's inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets import BatchStream, DatasetError, ImagePack, ImageSource, Preprocessing, open_source
from datasets.boxes.opening import has_split, is_data_yaml
from datasets.packs.fitting import lost_fitting
from datasets.source import AnySource, BoxSource
from quant.calibration.split import calibration_images, evaluation_images
from quant.calibration.told import images_line, origin_of_preprocessing, preprocessing_line
from quant.errors import ModelError, SettingsError
from quant.onnx_graph.metadata import ModelMetadata, metadata_from_model
from quant.onnx_graph.model import ModelInterface, OnnxModel
from quant.progress import Console
from quant.settings.run_settings import RunSettings

AUTO = "auto"
_LETTERBOXED = ("detect", "segment", "pose", "obb")  # tasks whose exporters train on letterboxed images


@dataclass(frozen=True)
class RunData:
    """Data of one run.

    Attributes:
        source: What calibration reads.
        selection: int64, indices of the calibration images in `source`, in order.
        eval_source: What evaluation reads.
        eval_selection: int64, indices in `eval_source`.
        preprocessing: Bound to the model's input; None when the data holds the inputs themselves.
        input_name: The input that images are for.
    """

    source: AnySource
    selection: NDArray[np.int64]
    eval_source: AnySource
    eval_selection: NDArray[np.int64]
    preprocessing: Preprocessing | None
    input_name: str

    def calibration_stream(self, settings: RunSettings) -> BatchStream:
        """Batches for calibration."""
        return self._stream(self.source, self.selection, settings)

    def evaluation_stream(self, settings: RunSettings) -> BatchStream:
        """Batches for evaluation."""
        return self._stream(self.eval_source, self.eval_selection, settings)

    def _stream(self, source: AnySource, selection: NDArray[np.int64], settings: RunSettings) -> BatchStream:
        return BatchStream(
            source,
            selection,
            preprocessing=self.preprocessing,
            batch_size=settings.batch_size,
            input_name=self.input_name,
            max_bad=settings.max_bad,
        )


def own_validation(path: str | Path) -> Path | None:
    """Where data brings images for evaluation of its own: a data.yaml with `val`; None of other data."""
    place = Path(path)
    return place if is_data_yaml(place) and place.is_file() and has_split(place, "val") else None


def open_data(settings: RunSettings, model: ModelInterface, console: Console) -> RunData:
    """Open the data of a run and fit it to the model.

    Raises:
        DatasetError: The data cannot be used.
        ModelError: The model takes inputs that the data does not provide.
        QuantError: Labels do not fit the model.
    """
    names = [info.name for info in model.inputs]
    if settings.data is None:
        raise SettingsError("data: expected a folder of images or an HDF5 pack, found nothing; give --data")
    own_labels = settings.labels if settings.eval is None else None
    source = open_source(settings.data, labels=own_labels, classes=settings.classes, inputs=names, task=settings.task)
    eval_path = settings.eval if settings.eval is not None else own_validation(settings.data)
    selection = calibration_images(settings, source, shared=eval_path is None)
    if eval_path is not None:
        eval_source = open_source(
            eval_path,
            labels=settings.labels,
            classes=settings.classes,
            inputs=names,
            task=settings.task,
            split="val",
        )
        eval_selection = np.arange(len(eval_source))
    else:
        eval_source = source
        eval_selection = evaluation_images(settings, source, selection, console)
    if isinstance(eval_source, BoxSource):
        console.note(eval_source.text)
    console.note(images_line(settings, source, len(selection), eval_source, len(eval_selection)))
    preprocessing = _bound_preprocessing(source, settings, model, console)
    return RunData(source, selection, eval_source, eval_selection, preprocessing, names[0])


def evaluation_data(
    source: AnySource,
    settings: RunSettings,
    model: ModelInterface,
    selection: NDArray[np.int64] | None = None,
    console: Console | None = None,
) -> RunData:
    """Data of a comparison without calibration: selected samples of an open source, all by default.

    Raises:
        ModelError: The model takes inputs that the data does not provide.
        QuantError: Labels do not fit the model.
    """
    indices = np.arange(len(source)) if selection is None else selection
    preprocessing = _bound_preprocessing(source, settings, model, console)
    return RunData(source, indices[:0], source, indices, preprocessing, model.inputs[0].name)


def metadata_of(model: ModelInterface) -> ModelMetadata:
    """What a model's file says about it; nothing where it is an engine."""
    return metadata_from_model(model.graph) if isinstance(model, OnnxModel) else ModelMetadata()


def _described(source: AnySource, settings: RunSettings, model: ModelInterface) -> tuple[Preprocessing, str]:
    """The preprocessing that was asked for, with what the model's file says where nothing was; and who said it."""
    metadata, told = metadata_of(model), ""
    spec = settings.preprocess
    from_file = f"from the model's metadata ({', '.join(metadata.told)})"
    if spec == AUTO:
        detects = metadata.task in _LETTERBOXED and bool(metadata.told)
        boxes = isinstance(source, BoxSource) or settings.task == "detect"
        spec = "yolo" if detects or boxes else "imagenet"
        usual = "because nothing says what the model was trained with; --preprocess says it"
        told = from_file if detects else "from the labels or the task; --preprocess overrides it" if boxes else usual
    described, shape = Preprocessing.from_spec(spec), model.inputs[0].shape
    is_open = len(shape) == 4 and sum(isinstance(side, int) for side in shape[1:]) < 3
    if described.size is None and is_open and metadata.size is not None:
        described = replace(described, size=metadata.size)
        told = told if told == from_file else f"{told or origin_of_preprocessing(settings)}; the size {from_file}"
    return described, told or origin_of_preprocessing(settings)


def _bound_preprocessing(
    source: AnySource, settings: RunSettings, model: ModelInterface, console: Console | None
) -> Preprocessing | None:
    if not isinstance(source, ImageSource):
        return None
    if len(model.inputs) > 1:
        raise ModelError(
            f"{model.path}: has {len(model.inputs)} inputs ({', '.join(info.name for info in model.inputs)}), but "
            "images provide only one; pack the data as HDF5 with one data set per input, named after the input, and "
            "give it with --data"
        )
    info = model.inputs[0]
    preprocessing, origin = _described(source, settings, model)
    shown = preprocessing.name if settings.preprocess == AUTO else settings.preprocess
    try:
        bound = preprocessing.bound_to(info.shape or (None,) * 4, info.dtype)
    except DatasetError as error:
        raise ModelError(f"{model.path}: input '{info.name}' and --preprocess {shown} do not fit: {error}") from error
    if console is not None:
        console.note(preprocessing_line(bound, origin))
    if isinstance(source, ImagePack) and console is not None:
        lost = lost_fitting(source.fitted, source.size, bound)
        if lost:
            console.warn(f"{source.path}: {lost}")
    return bound
