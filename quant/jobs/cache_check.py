"""Checking a cache file: its format, its provenance, and whether it fits a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calib.caches.cache import CalibrationCache, coverage, read_cache
from calib.caches.provenance import read_calibration, sidecar_paths
from calib.caches.provider_table import PROVIDER, misread_tensors, reads_header, scales_as_read
from calib.errors import CacheError
from calib.scratch import recover
from quant.onnx_graph.model import load_model
from quant.onnx_graph.tensor_types import activation_names
from quant.qdq.writer import quantizable_tensors
from quant.tensorrt.building.mask_scales import scales_of_masks


@dataclass(frozen=True)
class CacheCheck:
    """What was found.

    Attributes:
        lines: What is right, and the tensors that the cache lacks or should not hold for the model, one line each.
        failure: Why the cache cannot be used; None if it can.
    """

    lines: tuple[str, ...]
    failure: str | None = None


def check_cache_file(path: Path, model_path: Path | None = None, reader: str | None = None) -> CacheCheck:
    """Check a cache: format, provenance, whether it fits a model, and whether another program reads the same in it.

    Args:
        path: The cache.
        model_path: The model.
        reader: `calib.caches.provider_table.PROVIDER`; None for TensorRT itself.

    Raises:
        CacheError: The cache is malformed, or does not belong to the files beside it or to the model.
        ModelError: The model cannot be read.
    """
    recover(path.parent)
    cache = read_cache(path)
    lines = [f"{path}: {cache.algo}, {len(cache.scales)} tensors, every scale finite and positive"]
    calibration = None
    if sidecar_paths(path)[0].exists():
        calibration = read_calibration(path)
        lines.append(
            f"provenance: {calibration.algorithm} of {calibration.statistics.images} images; files belong together"
        )
    else:
        lines.append("provenance: none; what the scales were made from is not known")
    if reader is not None:
        failure = _failure_for_provider(cache, path)
        if failure:
            return CacheCheck(tuple(lines), failure)
        lines.append(f"{reader}: reads every scale as it is")
    if model_path is None:
        return CacheCheck(tuple(lines))
    model = load_model(model_path)
    if calibration is not None and calibration.source.model != model.sha256:
        raise CacheError(f"{path}: was made from another model than {model_path}; recalibrate")
    needed = quantizable_tensors(model.light)
    fit = coverage(cache, needed, activation_names(model.graph))
    masks = scales_of_masks(model.proto, cache)
    if masks:
        lines.append(
            f"masks: {len(masks)} scales are of tensors that hold one, '{masks[0]}' first; builds here leave them out, "
            "TensorRT and trtexec would not"
        )
    if not (fit.missing or fit.foreign):
        lines.append(f"model: covers all {len(needed)} tensors that {model_path} needs, and holds no others")
        return CacheCheck(tuple(lines))
    lines += [f"missing: {name}" for name in fit.missing]
    lines += [f"not the model's: {name}" for name in fit.foreign]
    missing = f"{len(fit.missing)} of {len(needed)} needed tensors are missing" + _first(fit.missing)
    foreign = f"{len(fit.foreign)} are not the model's" + _first(fit.foreign)
    return CacheCheck(tuple(lines), f"{path}: does not fit {model_path}: {missing}; {foreign}; recalibrate")


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
