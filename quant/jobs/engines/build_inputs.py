"""What `calib build` builds from: the model at its sizes, and for INT8 its scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib.caches.cache import CalibrationCache
from calib.caches.provenance import read_calibration, sidecar_paths
from calib.errors import CacheError
from datasets import Preprocessing
from quant.calibration.constants import constants_from_texts
from quant.calibration.preprocessing_choice import AUTO
from quant.errors import SettingsError
from quant.jobs.cache_convert import check_coverage, read_cache_file
from quant.jobs.recovering.float_rules import given_precisions
from quant.onnx_graph.metadata import metadata_from_model
from quant.onnx_graph.model import OnnxModel, is_quantized, load_model
from quant.progress import Console
from quant.qdq.output_head import head_nodes
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement
from quant.settings.batch_range import batch_range_from_text
from quant.settings.build_settings import BuildSettings
from quant.settings.user_code import is_code
from quant.tensorrt.building.open_axes import with_sizes

_CHANNELS = (1, 3, 4)
_DETECTORS = ("detect", "segment", "pose", "obb")  # as exporters' metadata says it


@dataclass(frozen=True)
class BuildInputs:
    """What is built.

    Attributes:
        model: The model; its open axes have sizes, as far as these are known.
        precision: fp32, fp16 or int8.
        cache: For INT8 from an FP32 model: its scales.
        cache_path: Where they were read from.
        placement: Which products stay float in INT8.
    """

    model: OnnxModel
    precision: str
    cache: CalibrationCache | None = None
    cache_path: Path | None = None
    placement: Placement = DEFAULT_PLACEMENT


def build_inputs(settings: BuildSettings, console: Console) -> BuildInputs:
    """Read the model and what its precision needs.

    Raises:
        SettingsError: What is asked for makes no sense with this model.
        CacheError: There are no scales, or they do not fit the model.
        ModelError: The model cannot be read.
    """
    if settings.model is None:
        raise SettingsError("model: expected an ONNX file, found nothing; give --model")
    original = load_model(settings.model)
    model = _with_known_sizes(original, settings)
    if is_quantized(original.graph):
        if settings.precision != "int8" or settings.cache is not None or settings.precisions is not None:
            raise SettingsError(
                f"{original.path}: holds its own scales and precisions; give the FP32 model, or leave out --cache, "
                "--precision and --precisions"
            )
        return BuildInputs(model, "int8")
    if settings.precision != "int8":
        return BuildInputs(model, settings.precision)
    path = settings.cache_path
    if settings.cache is None and not path.is_file():
        raise CacheError(
            f"{path}: expected scales for INT8, found none; give --cache, give a Q/DQ model, or let calib run make them"
        )
    found = read_cache_file(path)
    for line in found.notes:
        console.warn(line)
    in_float = given_precisions(settings, original).float_nodes | _head(settings, original, console)
    placement = Placement(float_nodes=in_float)
    _check_cache(original, found.cache, path, placement)
    return BuildInputs(model, "int8", found.cache, path, placement)


def _head(settings: BuildSettings, model: OnnxModel, console: Console) -> frozenset[str]:
    """The products that `calib run` leaves in float because the model is a detector, as far as that is said."""
    said = settings.task if settings.task != "auto" else metadata_from_model(model.graph).task
    if said not in _DETECTORS:
        return frozenset()
    nodes = head_nodes(model.light, in_int8=settings.head == "int8")
    if nodes:
        console.note(f"{len(nodes)} products of the detector's head stay float, as in a run; --head int8 overrides it")
    return nodes


def _check_cache(model: OnnxModel, cache: CalibrationCache, path: Path, placement: Placement) -> None:
    if path.suffix.lower() not in (".onnx", ".json") and sidecar_paths(path)[0].is_file():
        calibration = read_calibration(path)
        if calibration.source.model != model.sha256:
            raise CacheError(f"{path}: was made from another model than {model.path}; recalibrate")
    check_coverage(model, cache, path, placement)


def _with_known_sizes(model: OnnxModel, settings: BuildSettings) -> OnnxModel:
    """The model with the sizes of images and of constant inputs on its open axes, as far as they are stated."""
    constants = constants_from_texts(settings.input, model.inputs)
    ranges = bool(settings.dynamic) and batch_range_from_text(settings.dynamic).sides is not None
    sizes: dict[str, Sequence[Any]] = {name: array.shape[1:] for name, array in constants.items()}
    size = settings.size or _size_of_preprocessing(settings) or metadata_from_model(model.graph).size
    for info in model.inputs:
        sides = info.shape[1:]
        stated = info.name in sizes or all(isinstance(side, int) for side in sides)
        if ranges or stated or size is None or len(sides) != 3:
            continue
        places = (0, 1) if sides[2] in _CHANNELS and sides[0] not in _CHANNELS else (1, 2)
        fixed = dict(zip(places, size, strict=True))
        wrong = [
            sides[place] for place, side in fixed.items() if isinstance(sides[place], int) and sides[place] != side
        ]
        if wrong:
            raise SettingsError(
                f"{model.path}: input '{info.name}': expected a size of which one side is {wrong[0]}, found "
                f"{size[0]}x{size[1]}; state it with --input-size"
            )
        known = [fixed.get(i, side) for i, side in enumerate(sides)]
        if all(isinstance(side, int) for side in known):  # else the number of channels is open too
            sizes[info.name] = known
    return with_sizes(model, sizes) if sizes else model


def _size_of_preprocessing(settings: BuildSettings) -> tuple[int, int] | None:
    if settings.preprocess == AUTO or is_code(settings.preprocess):
        return None
    return Preprocessing.from_spec(settings.preprocess).size
