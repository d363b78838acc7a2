"""A run's data: the images for calibration and for evaluation, and how they become the model's inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import BatchStream, ImagePack, ImageSource, Preprocessing, open_source
from datasets.arrays.memory import in_memory, is_source
from datasets.labels.class_labels import are_labelled
from datasets.opening import has_validation
from datasets.packs.fitting import lost_fitting
from datasets.preprocessing.interface import ImagePreprocessing
from datasets.source import AnySource, BoxSource
from quant.calibration.constants import check_batch_axes, constants_from_texts, image_input
from quant.calibration.own_preprocessing import OwnPreprocessing
from quant.calibration.preprocessing_choice import check_description, chosen_preprocessing
from quant.calibration.split import calibration_images, evaluation_images
from quant.calibration.told import images_line
from quant.errors import ModelError, SettingsError
from quant.onnx_graph.model import ModelInterface, OnnxModel, TensorInfo, check_sizes
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
        input_name: The input that images are for; empty until it is known.
        constants: Inputs that are the same for every image, with a batch axis of 1.
    """

    source: AnySource
    selection: NDArray[np.int64]
    eval_source: AnySource
    eval_selection: NDArray[np.int64]
    preprocessing: ImagePreprocessing | None = None
    _: KW_ONLY
    preprocessing_origin: str = ""
    input_name: str = ""
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


def source_from_python(given: object, inputs: Sequence[TensorInfo], settings: RunSettings) -> AnySource:
    """Data that Python code gives as a source: a source as it is, lists and iterables as samples in memory.

    Raises:
        TypeError: It is nothing that data can be taken from.
        DatasetError: It is empty, or more than `memory_limit` allows.
    """
    if is_source(given):
        return given  # type: ignore[return-value]  # as was just seen
    return in_memory(given, inputs, settings.memory_limit * 10**6)


def open_data(
    settings: RunSettings,
    model: ModelInterface,
    console: Console,
    given: object | None = None,
    given_eval: object | None = None,
) -> RunData:
    """Open the data of a run and fit it to the model.

    Args:
        settings: The run's.
        model: The model.
        console: Where it is said what is read.
        given: Data from Python, in place of `settings.data`.
        given_eval: The same in place of `settings.eval`.

    Raises:
        DatasetError: The data cannot be used.
        ModelError: The model takes inputs that the data does not provide.
        QuantError: Labels do not fit the model.
    """
    check_description(settings)  # before anything is said about data that may be large
    forms = data_inputs(settings, model)
    eval_path = settings.eval
    if eval_path is None and given is None and settings.data is not None:
        eval_path = own_validation(settings.data)
    own_labels = settings.labels if eval_path is None and given_eval is None else None
    source = _opened(given, settings.data, own_labels, "train", forms, settings)
    shared = given_eval is None and eval_path is None
    selection = calibration_images(settings, source, shared=shared)
    told = tell(source, console)
    if shared:
        eval_source, eval_selection = source, _left_for_evaluation(source, selection, settings, console)
    else:
        eval_source = _opened(given_eval, eval_path, settings.labels, "val", forms, settings)
        eval_selection = labelled(eval_source, np.arange(len(eval_source)))
        tell(eval_source, console, told)
    console.note(images_line(settings, source, len(selection), eval_source, len(eval_selection)))
    return _fitted(RunData(source, selection, eval_source, eval_selection), settings, model, console)


def _opened(
    given: object | None,
    path: Path | None,
    labels: Path | None,
    split: str,
    forms: Sequence[TensorInfo],
    settings: RunSettings,
) -> AnySource:
    """What Python code gave, or else what a path holds.

    Raises:
        SettingsError: There is neither.
        DatasetError: It cannot be used.
    """
    if given is not None:
        return source_from_python(given, forms, settings)
    if path is None:
        raise SettingsError("data: expected a folder of images or an HDF5 pack, found nothing; give --data")
    return open_source(
        path,
        labels=labels,
        classes=settings.classes,
        inputs=[info.name for info in forms],
        task=settings.task,
        split=split,
        forms=forms,
    )


def _left_for_evaluation(
    source: AnySource, selection: NDArray[np.int64], settings: RunSettings, console: Console
) -> NDArray[np.int64]:
    """The images that calibration does not use; all of them, with a warning, where it uses every one."""
    every = labelled(source, np.arange(len(source)))
    kept = evaluation_images(settings, source, every, selection, console)
    if len(kept) < len(every):
        _tell_used_up(source, every, kept, console)
    return kept


def _tell_used_up(source: AnySource, every: NDArray[np.int64], left: NDArray[np.int64], console: Console) -> None:
    """Say which classes calibration leaves no image of: a class of few images gives it at least one."""
    if source.labels is None or source.labels.ndim != 1 or source.labels.dtype.kind != "i":
        return
    gone = np.setdiff1d(source.labels[every], source.labels[left]).tolist()
    if gone:
        names = [source.class_names[label] if source.class_names is not None else str(label) for label in gone]
        shown = ", ".join([*names[:5], *["..."] * (len(names) > 5)])
        console.warn(
            f"{source.path}: calibration uses every image of {len(gone)} classes ({shown}), so none of these is "
            "evaluated; give other images with --eval, or calibrate on fewer with --num-images"
        )


def data_inputs(settings: RunSettings, model: ModelInterface) -> list[TensorInfo]:
    """The inputs that data must provide: those that are no constants."""
    constants = constants_from_texts(settings.input, model.inputs)
    return [info for info in model.inputs if info.name not in constants]


def labelled(source: AnySource, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the samples that can be evaluated: all of them, but for images that a table of labels leaves out."""
    return indices if source.labels is None else indices[are_labelled(source.labels[indices])]


def _says_places(source: AnySource) -> bool:
    """Are the labels boxes, or masks?"""
    return isinstance(source, BoxSource) or hasattr(source, "mask")


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
    check_batch_axes(constants, model.inputs, settings.batch_size)
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
    if isinstance(preprocessing, OwnPreprocessing) and _says_places(data.eval_source):
        raise SettingsError(
            f"--preprocess {settings.preprocess}: a function does not tell where an image lies in the model's input, "
            "which labels of places need; describe it in a TOML file, or leave the labels out with --no-labels"
        )
    if isinstance(data.source, ImagePack) and isinstance(preprocessing, Preprocessing) and console is not None:
        lost = lost_fitting(data.source.fitted, data.source.size, preprocessing)
        if lost:
            console.warn(f"{data.source.path}: {lost}")
    if preprocessing is not None and isinstance(model, OnnxModel):
        check_sizes(model, {info.name: preprocessing.sample_shape})
    return replace(
        data, preprocessing=preprocessing, preprocessing_origin=origin, input_name=info.name, constants=constants
    )
