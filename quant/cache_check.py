"""Checking a cache file: its format, its provenance, and whether it fits a model."""

from __future__ import annotations

from pathlib import Path

from calib.cache import coverage, read_cache
from calib.errors import CacheError
from calib.provenance import read_calibration, sidecar_paths
from quant.graph import activation_names, load_model
from quant.qdq import quantizable_tensors


def check_cache_file(path: Path, model_path: Path | None = None) -> list[str]:
    """Check a cache; returns what was found to be right, a line each.

    Raises:
        CacheError: The cache is malformed, does not belong to the files beside it, or does not fit the model.
        ModelError: The model cannot be read.
    """
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
    if model_path is None:
        return lines
    model = load_model(model_path)
    if calibration is not None and calibration.source.model != model.sha256:
        raise CacheError(f"{path}: was made from another model than {model_path}; recalibrate")
    needed = quantizable_tensors(model.proto)
    fit = coverage(cache, needed, activation_names(model.proto))
    if fit.missing or fit.foreign:
        missing = f"{len(fit.missing)} of {len(needed)} needed tensors are missing" + _first(fit.missing)
        foreign = f"{len(fit.foreign)} are not the model's" + _first(fit.foreign)
        raise CacheError(f"{path}: does not fit {model_path}: {missing}; {foreign}; recalibrate")
    lines.append(f"model: covers all {len(needed)} tensors that {model_path} needs, and holds no others'")
    return lines


def _first(names: tuple[str, ...]) -> str:
    return f" ('{names[0]}' first)" if names else ""
