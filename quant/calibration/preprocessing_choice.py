"""Which preprocessing is in force, and who said so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets import DatasetError, ImageSource, Preprocessing
from datasets.errors import UnreadableImageError
from datasets.preprocessing.colours import in_colours_of
from datasets.preprocessing.interface import ImagePreprocessing
from datasets.source import AnySource, BoxSource, DeepImageSource
from quant.calibration.own_preprocessing import own_preprocessing
from quant.errors import ModelError
from quant.onnx_graph.metadata import ModelMetadata, metadata_from_model
from quant.onnx_graph.model import ModelInterface, OnnxModel, TensorInfo
from quant.progress import Console
from quant.settings.run_settings import RunSettings
from quant.settings.user_code import file_of, is_code

AUTO = "auto"
_LETTERBOXED = ("detect", "segment", "pose", "obb")  # tasks whose exporters train on letterboxed images
_PROBED = 8  # images that are looked at for bits beyond 8
_ALL_OF_16_BITS = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class ChosenPreprocessing:
    """The preprocessing in force.

    Attributes:
        preprocessing: Bound to the model's input.
        origin: Where it came from, for people.
    """

    preprocessing: ImagePreprocessing
    origin: str


def metadata_of(model: ModelInterface) -> ModelMetadata:
    """What a model's file says about it; nothing where it is an engine."""
    return metadata_from_model(model.graph) if isinstance(model, OnnxModel) else ModelMetadata()


def check_description(settings: RunSettings) -> None:
    """Check that the preprocessing that is asked for is there and makes sense.

    Raises:
        DatasetError: It is no preset, or its file is not as it should be.
    """
    if settings.preprocess != AUTO and not is_code(settings.preprocess):
        Preprocessing.from_spec(settings.preprocess)


def chosen_preprocessing(
    source: AnySource, settings: RunSettings, model: ModelInterface, info: TensorInfo, console: Console | None
) -> ChosenPreprocessing | None:
    """The preprocessing of images for a model's input, which is said in a line; None where the data is no images.

    Args:
        source: The data.
        settings: What was asked for.
        model: The model.
        info: The input that images are for.
        console: Where it is said; None for nowhere.

    Raises:
        SettingsError: The user's function cannot be loaded.
        ModelError: It does not fit the input.
    """
    if not isinstance(source, ImageSource):
        if console is not None:
            console.note(f"preprocessing: none, {source.path} holds the model's inputs")
        return None
    described, origin = _described(source, settings, model, info, console)
    shown = described.name if settings.preprocess == AUTO else settings.preprocess
    try:
        bound = described.bound_to(info.shape or (None,) * 4, info.dtype)
    except DatasetError as error:
        raise ModelError(f"{model.path}: input '{info.name}' and --preprocess {shown} do not fit: {error}") from error
    if console is not None:
        console.note(f"preprocessing: {_in_words(bound)}, from {origin}; --preprocess overrides it")
        _tell_range(source, bound, console)
    return ChosenPreprocessing(bound, origin)


def _described(
    source: AnySource, settings: RunSettings, model: ModelInterface, info: TensorInfo, console: Console | None
) -> tuple[ImagePreprocessing, str]:
    """What was asked for, or what the model's file says, or the default; and which of them it is."""
    metadata, spec = metadata_of(model), settings.preprocess
    from_model = f"the model's metadata ({', '.join(metadata.told)})"
    if is_code(spec):
        if console is not None:
            console.note(f"preprocess: executes {Path(file_of(spec)).absolute()}")
        return replace(own_preprocessing(spec), size=settings.size or metadata.size), "the function named"
    origin = f"the file {spec}" if spec.lower().endswith(".toml") else "the preset named"
    if spec == AUTO:
        spec, origin = _automatic(source, settings, metadata)
        origin = origin or from_model
    described = Preprocessing.from_spec(spec)
    if settings.preprocess == AUTO and spec == "yolo":  # nobody named it, and it fits grey as it does colours
        described = in_colours_of(described, info.shape)
    if settings.size is not None:
        return replace(described, size=settings.size), f"{origin}, with --input-size"
    is_open = len(info.shape) == 4 and sum(isinstance(side, int) for side in info.shape[1:]) < 3
    if described.size is None and is_open and metadata.size is not None:
        return replace(described, size=metadata.size), origin if origin == from_model else f"{origin} and {from_model}"
    return described, origin


def _automatic(source: AnySource, settings: RunSettings, metadata: ModelMetadata) -> tuple[str, str]:
    """A preset and why; no reason where it is the model's metadata."""
    if metadata.task in _LETTERBOXED and metadata.told:
        return "yolo", ""
    if isinstance(source, BoxSource):
        return "yolo", "the labels, which are boxes"
    if settings.task == "detect":
        return "yolo", "the task"
    return "imagenet", "the default"


def _in_words(bound: ImagePreprocessing) -> str:
    size = "" if bound.size is None else f" {bound.size[0]}x{bound.size[1]}"
    if not isinstance(bound, Preprocessing):
        return f"{bound.name}, which gives {list(bound.sample_shape)} of {bound.dtype}"
    values = "pixels 0..255" if bound.scale == 1 else f"pixels times {bound.scale:.6g}"
    if any(bound.mean):
        values += f", mean {_numbers(bound.mean)}"
    if set(bound.std) != {1.0}:
        values += f", std {_numbers(bound.std)}"
    return f"{bound.name} ({bound.resize}{size}, {bound.color}, {values}, {bound.layout} {bound.dtype})"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _tell_range(source: ImageSource, bound: ImagePreprocessing, console: Console) -> None:
    """Say how images of more than 8 bits are taken where nothing states their range, which no file tells."""
    if bound.wanted.any_range or not isinstance(source, DeepImageSource):
        return
    places = np.unique(np.linspace(0, len(source) - 1, _PROBED).astype(int))
    deep = [int(i) for i in places if source.lacks_range(int(i))]
    brightest, looked = 0, 0
    for index in deep:
        try:
            pixels = source.read_pixels(index, bound.wanted)
        except UnreadableImageError:
            continue  # whoever evaluates it counts it
        looked += 1
        brightest = max(brightest, int(pixels[..., :3].max()))
    if not looked:
        return
    line = (
        f"{source.path}: images of more than 8 bits, whose range nothing states; 0 to {_ALL_OF_16_BITS} is taken as "
        f"all of it, and the brightest pixel of {looked} images is {brightest}"
    )
    if brightest <= _ALL_OF_16_BITS // 2:
        bits = max(brightest.bit_length(), 1)
        console.warn(
            f"{line}, so most of the input's range is not used; if they have {bits} bits, say pixel_range = [0, "
            f"{2**bits - 1}] in the TOML file of --preprocess"
        )
    else:
        console.note(f"{line}; pixel_range in the TOML file of --preprocess states another")
