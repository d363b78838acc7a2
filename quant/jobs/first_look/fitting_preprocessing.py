"""Which preprocessing a model was trained with: from its file and files beside it, else from FP32's answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets import DatasetError, ImageSource, Preprocessing
from datasets.errors import UnreadableImageError
from datasets.preprocessing import PRESETS
from datasets.preprocessing.colours import Colour, in_colour, in_colours_of, is_grey
from datasets.source import BoxSource
from quant.backend import Runnable
from quant.calibration.preset_trial import FEW, MOST, answers_right, is_far_better
from quant.calibration.run_data import RunData
from quant.evaluation.outputs import OutputReader
from quant.evaluation.verdict import is_near_chance
from quant.jobs.first_look.project import LIKELY, OPEN, SURE, read_text
from quant.onnx_graph.metadata import ModelMetadata
from quant.onnx_graph.model import OnnxModel
from quant.settings.run_settings import RunSettings

_HUGGING_FACE = "preprocessor_config.json"
_ORDER = "the preprocessing, or the order of the classes (--classes), is none that was tried"


@dataclass(frozen=True)
class FoundPreprocessing:
    """A preprocessing, and how it was found.

    Attributes:
        preprocessing: Not bound to the model, so that its size stays the model's.
        because: How it was found.
        certainty: See `quant.jobs.first_look.project.Guess`.
        right: Of how many images FP32 answers how many right, by candidate; empty where none was tried.
        images: So many images were tried.
        resize_untold: Why nothing tells how images of other sizes are fitted; empty where something does.
    """

    preprocessing: Preprocessing
    because: str
    certainty: str
    right: Mapping[str, int]
    images: int = 0
    resize_untold: str = ""


def said_preprocessing(
    model: OnnxModel, metadata: ModelMetadata, source: object, folder: Path
) -> FoundPreprocessing | None:
    """What the model's input, its metadata or a file beside it says, in its colours; None where they say nothing."""
    found = _said(model, metadata, source, folder)
    if found is None:
        return None
    return replace(found, preprocessing=in_colours_of(found.preprocessing, model.inputs[0].shape))


def _said(model: OnnxModel, metadata: ModelMetadata, source: object, folder: Path) -> FoundPreprocessing | None:
    info = model.inputs[0]
    if info.dtype == "uint8":
        return _found(replace(PRESETS["raw"], dtype="uint8"), "the input takes pixels as they are (uint8)", SURE)
    if metadata.task == "classify":
        plain = replace(PRESETS["unit"], resize="crop", crop_fraction=1.0)
        return _found(plain, "the model's metadata (task classify)", LIKELY)
    if metadata.task is not None:
        return _found(PRESETS["yolo"], f"the model's metadata ({', '.join(metadata.told)})", SURE)
    if isinstance(source, BoxSource):
        return _found(PRESETS["yolo"], "the labels are boxes, and detectors usually take letterboxed images", LIKELY)
    beside = _of_hugging_face(folder / _HUGGING_FACE)
    return None if beside is None else _found(beside, f"{_HUGGING_FACE} beside the model", SURE)


def tried_preprocessing(
    data: RunData, settings: RunSettings, model: OnnxModel, runnable: Runnable, reader: OutputReader
) -> FoundPreprocessing | None:
    """The candidate after which FP32 answers most labelled images right; None where nothing can be told.

    The certainty says how far that is ahead: a candidate that answers as many right within chance may be as good, and
    is named.
    """
    source, labels = data.source, data.source.labels
    classes = reader.scores.classes if reader.scores is not None else None
    if reader.scores is None or labels is None or labels.dtype.kind == "f" or not isinstance(source, ImageSource):
        return None
    drawn = np.argsort(np.random.PCG64(settings.seed).random_raw(len(source)), kind="stable").astype(np.int64)
    few, some = drawn[:FEW], drawn[:MOST]
    candidates = fitting_candidates(model)

    def right(name: str, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
        bound = candidates[name].bound_to(model.inputs[0].shape, model.inputs[0].dtype)
        return answers_right(data, settings, bound, chosen, runnable, reader)

    first = {name: int(right(name, few).sum()) for name in candidates}
    leading = [name for name, count in first.items() if count >= max(first.values()) - FEW // 8]
    answers = {name: right(name, some) for name in leading}
    best = max(answers, key=lambda name: answers[name].sum())
    counts = {name: int(answer.sum()) for name, answer in answers.items()}
    images, top1 = len(answers[best]), 100 * float(answers[best].mean())
    if is_near_chance(top1, classes or 2, images):
        why = f"FP32 answers at most {counts[best]} of {images} images right: {_ORDER}"
        return FoundPreprocessing(candidates[best], why, OPEN, counts, images)
    rivals = [name for name in answers if name != best and not is_far_better(answers[name], answers[best])]
    told = f"FP32 answers {counts[best]} of {images} labelled images right with it"
    if rivals:
        others = ", ".join(f"{name} {counts[name]}" for name in rivals[:3])
        return FoundPreprocessing(candidates[best], f"{told}; as good within chance: {others}", LIKELY, counts, images)
    behind = ", far more than with any other" if len(candidates) > 1 else ""
    return FoundPreprocessing(candidates[best], told + behind, SURE, counts, images)


def fitting_candidates(model: OnnxModel) -> dict[str, Preprocessing]:
    """The presets that the model's input can take, in both orders of colours, or grey where it has one channel."""
    info, found, seen = model.inputs[0], {}, set()
    colours: tuple[Colour, ...] = ("grey",) if is_grey(info.shape) else ("rgb", "bgr")
    for name, preset in PRESETS.items():
        if preset.resize == "letterbox":
            continue  # for detectors
        for color in colours:
            try:
                candidate = in_colour(preset, color)
                digest = candidate.bound_to(info.shape, info.dtype).digest()
            except DatasetError:
                continue
            if digest not in seen:
                seen.add(digest)
                found[name if color == "rgb" else f"{name} in {color}"] = candidate
    return found


def usual_preprocessing(model: OnnxModel) -> FoundPreprocessing:
    """What to begin with where nothing tells; the user is asked."""
    grey = is_grey(model.inputs[0].shape)
    preset = in_colour(PRESETS["unit" if grey else "imagenet"], "grey" if grey else "rgb")
    return _found(preset, "nothing tells; labelled images would: what was the model trained with?", OPEN)


def untold_resize(preprocessing: Preprocessing, model: OnnxModel, source: ImageSource) -> str:
    """Why the images do not show how those of other sizes are fitted: all have the model's; empty where they do."""
    try:
        bound = preprocessing.bound_to(model.inputs[0].shape, model.inputs[0].dtype)
    except DatasetError:
        return ""  # the size is open: the run asks for it
    some = np.argsort(np.random.PCG64(0).random_raw(len(source)), kind="stable")[:MOST]
    for index in some:
        try:
            height, width = source.read(int(index)).shape[:2]
        except UnreadableImageError:
            continue
        if (height, width) != bound.size:
            return ""
    height, width = bound.size or (0, 0)
    return (
        f"every image has the model's size, {width}x{height}, so nothing shows how others are fitted; these are taken "
        "as they are; if others will come: were images cropped, stretched or letterboxed in training?"
    )


def _found(preprocessing: Preprocessing, because: str, certainty: str) -> FoundPreprocessing:
    return FoundPreprocessing(preprocessing, because, certainty, {})


def _of_hugging_face(path: Path) -> Preprocessing | None:
    """The preprocessing in a `preprocessor_config.json`, as transformers' image processors write it."""
    text = read_text(path)
    if text is None:
        return None
    try:
        values = json.loads(text)
        if not {"do_normalize", "do_rescale"} & values.keys():
            return None  # it says nothing of values
        size, crop = values.get("size"), values.get("crop_size")
        side = size.get("shortest_edge", size.get("height")) if isinstance(size, dict) else size
        target = crop.get("height") if isinstance(crop, dict) else crop
        fraction = 1.0
        if values.get("do_center_crop") and isinstance(side, int) and isinstance(target, int) and 0 < target <= side:
            fraction = target / side
        crops = bool(values.get("do_center_crop"))
        return Preprocessing(
            "transformers",
            resize="crop" if crops else "stretch",
            crop_fraction=fraction,
            interpolation="bicubic" if values.get("resample") == 3 else "bilinear",
            scale=float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0,
            mean=tuple(values["image_mean"]) if values.get("do_normalize") else (0.0,),
            std=tuple(values["image_std"]) if values.get("do_normalize") else (1.0,),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DatasetError):
        return None  # another tool's file of that name
