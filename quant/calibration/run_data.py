"""A run's data: the images for calibration and for evaluation, and how they become the model's inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import BatchStream, ImageSource, open_source, sample_indices
from datasets.labels.class_labels import are_labelled
from datasets.opening import has_validation
from datasets.preprocessing.interface import ImagePreprocessing
from datasets.source import AnySource
from quant.calibration.constants import constants_from_texts, image_input
from quant.calibration.preprocessing_choice import check_description, chosen_preprocessing
from quant.errors import ModelError, SettingsError
from quant.onnx_graph.model import ModelInterface, TensorInfo
from quant.progress import Console
from quant.settings.run_settings import RunSettings


@dataclass(frozen=True)
class RunData:
    """Data of one run.

    Attributes:
        source: What calibration reads.
        selection: int64, indices of the calibration images in `source`, in order.
        eval_source: What evaluation reads.
        eval_selection: int64, indices in `eval_source`.
        preprocessing: Bound to the model's input; None when the data holds the inputs themselves.
        preprocessing_origin: Where it came from, for people: the preset or file named, metadata, labels, the default.
        input_name: The input that images are for.
        constants: Inputs that are the same for every image, without the batch axis.
    """

    source: AnySource
    selection: NDArray[np.int64]
    eval_source: AnySource
    eval_selection: NDArray[np.int64]
    preprocessing: ImagePreprocessing | None = None
    preprocessing_origin: str = ""
    input_name: str = "input"
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)

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
            constants=self.constants,
        )


def own_validation(path: str | Path) -> Path | None:
    """Where data brings images for evaluation of its own: a data.yaml or a folder with `val`; None of other data."""
    place = Path(path)
    return place if has_validation(place) else None


def open_data(settings: RunSettings, model: ModelInterface, console: Console) -> RunData:
    """Open the data of a run and fit it to the model.

    Raises:
        DatasetError: The data cannot be used.
        ModelError: The model takes inputs that the data does not provide.
        QuantError: Labels do not fit the model.
    """
    check_description(settings)  # before anything is said about data that may be large
    forms = data_inputs(settings, model)
    names = [info.name for info in forms]
    if settings.data is None:
        raise SettingsError("data: expected a folder of images or an HDF5 pack, found nothing; give --data")
    eval_path = settings.eval if settings.eval is not None else own_validation(settings.data)
    own_labels = settings.labels if eval_path is None else None
    source = open_source(
        settings.data, labels=own_labels, classes=settings.classes, inputs=names, task=settings.task, forms=forms
    )
    selection = sample_indices(source, settings.num_images, sampling=settings.sampling, seed=settings.seed)
    told = tell(source, console)
    if len(source) < settings.num_images:
        console.warn(
            f"{settings.data}: {settings.num_images} calibration images were asked for, only {len(source)} are there"
        )
    if eval_path is not None:
        eval_source = open_source(
            eval_path,
            labels=settings.labels,
            classes=settings.classes,
            inputs=names,
            task=settings.task,
            split="val",
            forms=forms,
        )
        tell(eval_source, console, told)
        eval_selection = labelled(eval_source, np.arange(len(eval_source)))
    else:
        eval_source = source
        eval_selection = labelled(source, np.setdiff1d(np.arange(len(source)), selection))
        if not len(eval_selection):
            eval_selection = labelled(source, np.arange(len(source)))
            if settings.precision == "int8":
                console.warn(
                    f"{settings.data}: calibration uses all {len(eval_selection)} images that could be evaluated, so "
                    "the same ones are evaluated and the measured drop may be too small; give other images with "
                    "--eval, or calibrate on fewer with --num-images"
                )
    if settings.precision != "int8" and eval_path is None:
        eval_selection = labelled(source, np.arange(len(source)))  # nothing is calibrated: all images are evaluated
    return _fitted(RunData(source, selection, eval_source, eval_selection), settings, model, console)


def data_inputs(settings: RunSettings, model: ModelInterface) -> list[TensorInfo]:
    """The inputs that data must provide: those that are no constants."""
    constants = constants_from_texts(settings.input, model.inputs)
    return [info for info in model.inputs if info.name not in constants]


def labelled(source: AnySource, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the samples that can be evaluated: all of them, but for images that a table of labels leaves out."""
    return indices if source.labels is None else indices[are_labelled(source.labels[indices])]


def tell(source: AnySource, console: Console, already: Collection[str] = ()) -> frozenset[str]:
    """Say what is read, what is not, and how labels were read; gives the lines that were said."""
    notes, warnings = getattr(source, "notes", ()), getattr(source, "warnings", ())
    for line in notes:
        if line not in already:
            console.note(line)
    for line in warnings:
        console.warn(line)
    return frozenset(notes)


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
    indices = labelled(source, np.arange(len(source)) if selection is None else selection)
    return _fitted(RunData(source, indices[:0], source, indices), settings, model, console)


def _fitted(data: RunData, settings: RunSettings, model: ModelInterface, console: Console | None) -> RunData:
    """The data with what turns it into the model's inputs.

    Raises:
        ModelError, SettingsError: The model takes inputs that are not provided, or others than those.
    """
    constants = constants_from_texts(settings.input, model.inputs)
    info = image_input(model.inputs, constants)
    if info is None and isinstance(data.source, ImageSource):
        raise ModelError(
            f"{model.path}: has {len(model.inputs)} inputs ({', '.join(info.name for info in model.inputs)}), but "
            "images provide only one; give those that are the same for every image with --input NAME=VALUE, or pack "
            "the data as HDF5 with one data set per input, named after the input, and give it with --data"
        )
    info = info or model.inputs[0]
    chosen = chosen_preprocessing(data.source, settings, model, info, console)
    preprocessing, origin = (None, "") if chosen is None else (chosen.preprocessing, chosen.origin)
    return replace(
        data, preprocessing=preprocessing, preprocessing_origin=origin, input_name=info.name, constants=constants
    )
