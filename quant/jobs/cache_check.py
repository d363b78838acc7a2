"""Checking a cache file: its format, its provenance, and whether it fits a model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from calib.caches.cache import CalibrationCache, coverage
from calib.caches.provenance import read_calibration, sidecar_paths
from calib.caches.provider_table import PROVIDER, misread_tensors, reads_header, scales_as_read
from calib.errors import CacheError
from calib.scratch import recover
from calib.texts import whole_characters
from quant.jobs.cache_convert import read_cache_file
from quant.onnx_graph.model import OnnxModel, load_model
from quant.onnx_graph.tensor_types import activation_names
from quant.qdq.writer import quantizable_tensors
from quant.tensorrt.building.mask_scales import scales_of_masks

_NAMED = 5  # tensors of a kind that are told one by one to a person


@dataclass(frozen=True)
class ModelFit:
    """How a cache fits a model.

    Attributes:
        model: The model's path.
        needed: How many tensors an INT8 build of it needs scales of.
        missing: Those that the cache has no scale of.
        foreign: Tensors of the cache that are not the model's.
        masks: Tensors that hold a mask; builds here leave their scales out.
    """

    model: str
    needed: int
    missing: tuple[str, ...]
    foreign: tuple[str, ...]
    masks: tuple[str, ...]


@dataclass(frozen=True)
class CacheCheck:
    """What was found.

    Attributes:
        lines: What is right, and the first tensors that the cache lacks or should not hold for the model.
        failure: Why the cache cannot be used; None if it can.
        cache: The cache's path.
        algo: Its algorithm.
        tensors: How many scales it holds.
        provenance: Algorithm and number of images of the calibration that it is of; None if that is not known.
        fit: How it fits the model; None without one.
    """

    lines: tuple[str, ...]
    failure: str | None = None
    cache: str = ""
    algo: str = ""
    tensors: int = 0
    provenance: tuple[str, int] | None = None
    fit: ModelFit | None = None


def check_cache_file(path: Path, model_path: Path | None = None, reader: str | None = None) -> CacheCheck:
    """Check a cache: format, provenance, whether it fits a model, and whether another program reads the same in it.

    Args:
        path: The cache: TensorRT's text, JSON or a Q/DQ model.
        model_path: The model.
        reader: `calib.caches.provider_table.PROVIDER`; None for TensorRT itself.

    Raises:
        CacheError: The cache is malformed, or does not belong to the files beside it or to the model.
        ModelError: The model cannot be read.
    """
    recover(path.parent)
    cache = read_cache_file(path).cache
    lines = [f"{path}: {cache.algo}, {len(cache.scales)} tensors, every scale finite and positive"]
    as_text = path.suffix.lower() not in (".json", ".onnx")
    calibration = read_calibration(path) if as_text and sidecar_paths(path)[0].exists() else None
    made = None if calibration is None else (calibration.algorithm, calibration.statistics.images)
    told = "none; what the scales were made from is not known"
    lines.append(f"provenance: {f'{made[0]} of {made[1]} images; files belong together' if made else told}")
    found = CacheCheck((), None, str(path), cache.algo, len(cache.scales), made)
    if reader is not None and not as_text:
        raise CacheError(f"{path}: expected TensorRT's text, which {reader} reads, found {path.suffix}")
    if reader is not None:
        failure = _failure_for_provider(cache, path)
        if failure:
            return replace(found, lines=tuple(lines), failure=failure)
        lines.append(f"{reader}: reads every scale as it is")
    if model_path is None:
        return replace(found, lines=tuple(lines))
    model = load_model(model_path)
    if calibration is not None and calibration.source.model != model.sha256:
        raise CacheError(f"{path}: was made from another model than {model_path}; recalibrate")
    fit = _fit(cache, model, model_path)
    return replace(
        found, lines=(*lines, *_lines_of(fit)), failure=_failure_of(fit, f"{path}: does not fit {model_path}"), fit=fit
    )


def json_from_check(check: CacheCheck) -> str:
    """All that was found as JSON, with every tensor by its name."""
    document = asdict(check)
    del document["lines"]
    if check.provenance is not None:
        document["provenance"] = dict(zip(("algo", "images"), check.provenance, strict=True))
    return json.dumps(whole_characters(document), indent=1) + "\n"


def _fit(cache: CalibrationCache, model: OnnxModel, path: Path) -> ModelFit:
    needed = quantizable_tensors(model.light)
    found = coverage(cache, needed, activation_names(model.graph))
    masks = scales_of_masks(model.proto, cache)
    return ModelFit(str(path), len(needed), found.missing, found.foreign, tuple(masks))


def _lines_of(fit: ModelFit) -> list[str]:
    """What a person is told: how many tensors fit, and the first that do not."""
    lines = []
    if fit.masks:
        lines.append(
            f"masks: {len(fit.masks)} scales are of tensors that hold one, '{fit.masks[0]}' first; builds here leave "
            "them out, TensorRT and trtexec would not"
        )
    if not (fit.missing or fit.foreign):
        return [*lines, f"model: covers all {fit.needed} tensors that {fit.model} needs, and holds no others"]
    lines.append(f"model: covers {fit.needed - len(fit.missing)} of the {fit.needed} tensors that {fit.model} needs")
    for word, names in (("missing", fit.missing), ("not the model's", fit.foreign)):
        lines += [f"{word}: {name}" for name in names[:_NAMED]]
        if len(names) > _NAMED:
            lines.append(f"{word}: and {len(names) - _NAMED} more, which --json lists")
    return lines


def _failure_of(fit: ModelFit, start: str) -> str | None:
    if not (fit.missing or fit.foreign):
        return None
    missing = f"{len(fit.missing)} of {fit.needed} needed tensors are missing" + _first(fit.missing)
    foreign = f"{len(fit.foreign)} are not the model's" + _first(fit.foreign)
    return f"{start}: {missing}; {foreign}; recalibrate"


def _failure_for_provider(cache: CalibrationCache, path: Path) -> str:
    """Why ONNX Runtime's TensorRT provider reads something else in a cache; empty if it does not."""
    advice = f"calib cache convert --for {PROVIDER} writes one that it reads"
    if not reads_header(cache):
        found = f"found '{cache.header}'"
        return f"{path}: ONNX Runtime's TensorRT provider expects 'TRT-' in the first line, {found}; {advice}"
    misread = misread_tensors(cache)
    if not misread:
        return ""
    name = next(name for name in misread if ":" in name)
    read = name.partition(":")[0]
    scale = scales_as_read(cache)[read]
    return (
        f"{path}: ONNX Runtime's TensorRT provider ends a name at the first ':', so it reads {len(misread)} of "
        f"{len(cache.scales)} scales wrongly: that of '{name}' as {scale:.3g} of '{read}'; {advice}"
    )


def _first(names: tuple[str, ...]) -> str:
    return f" ('{names[0]}' first)" if names else ""
