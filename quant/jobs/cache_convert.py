"""Calibration caches in files of three kinds: TensorRT's text, JSON, and Q/DQ models; reading, writing, converting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calib.caches.cache import CalibrationCache, coverage, text_from_cache
from calib.caches.conversion import json_from_cache, read_text_or_json, version_from_text, with_header
from calib.caches.difference import CacheDifference, difference
from calib.caches.sidecar import files_named_by
from calib.documents import DocumentError
from calib.errors import CacheError
from calib.files import Transaction
from quant.onnx_graph.light_model import LightModel
from quant.onnx_graph.model import load_model
from quant.onnx_graph.model_file import stage_model
from quant.onnx_graph.tensor_types import activation_names
from quant.qdq.reader import ReadScales, cache_from_qdq_model, hold_cache
from quant.qdq.writer import light_qdq_model, quantizable_tensors


@dataclass(frozen=True)
class Conversion:
    """What `convert_cache_file` did.

    Attributes:
        cache: What was written.
        notes: What a user should know, one line each.
    """

    cache: CalibrationCache
    notes: tuple[str, ...]


def read_cache_file(path: Path) -> ReadScales:
    """Read a cache from a Q/DQ model (name ending in .onnx), or from JSON or TensorRT's text, told apart by contents.

    Raises:
        CacheError: The file holds no cache.
        ModelError: The model cannot be read.
    """
    if path.suffix.lower() == ".onnx":
        return cache_from_qdq_model(load_model(path).light, str(path))
    return ReadScales(read_text_or_json(path), ())


def diff_cache_files(first: Path, second: Path) -> CacheDifference:
    """Two caches, each in a file of any kind, side by side."""
    return difference(read_cache_file(first).cache, read_cache_file(second).cache)


def convert_cache_file(
    source: Path, target: Path, *, model: Path | None = None, tensorrt: str | None = None, header: str | None = None
) -> Conversion:
    """Write a cache as another kind of file, or for another version of TensorRT; the target's ending gives the kind.

    Args:
        source: Cache as text, JSON or Q/DQ model.
        target: .onnx for a Q/DQ model, .json for JSON, else TensorRT's text.
        model: FP32 model that scales are written into; only for a Q/DQ model.
        tensorrt: Version for the first line, such as 8600 or 10.3.0.
        header: Calibrator for the first line, one of `calib.caches.conversion.CALIBRATORS`.

    Raises:
        CacheError: The source holds no cache, the scales do not fit the model, or the target is a cache's provenance.
        BuildError: The model cannot be quantized.
    """
    version = version_from_text(tensorrt) if tensorrt else None
    found = read_cache_file(source)
    cache = with_header(found.cache, header, version)
    kind = target.suffix.lower()
    notes = [*found.notes, *_relabelled(found.cache, cache, as_text=kind not in (".onnx", ".json"))]
    quantized, contents = None, ""
    if kind == ".onnx":
        if model is None:
            raise CacheError(
                f"{target}: expected the FP32 model that the scales go into, found none; give it with --model"
            )
        quantized = _qdq_model(cache, model, source)
    elif kind == ".json":
        _refuse_provenance(target)
        contents = json_from_cache(cache)
    else:
        contents = text_from_cache(cache)
    with Transaction(target.parent) as files:
        if quantized is not None:
            stage_model(files, target.name, quantized, replaces=False)
        else:
            files.stage(target.name).write_text(contents, encoding="utf-8", newline="")
    if kind not in (".onnx", ".json") and cache.algo == "mse":
        notes.append("TensorRT has no calibrator called MSECalibration; use --header entropy2 for TensorRT")
    return Conversion(cache, tuple(notes))


def _relabelled(before: CalibrationCache, after: CalibrationCache, *, as_text: bool) -> list[str]:
    """Say where the first line names another algorithm than the one that computed the scales, or may do so."""
    if before.made_by and as_text:  # the others keep it
        return [f"the first line says {after.algo}, because it must name one calibrator; the scales: {before.made_by}"]
    if after.algo == before.algo:
        return []
    return [
        f"the first line now says {after.algo}, for the TensorRT that expects it; the scales are still those of "
        f"{before.algo} ({before.header})"
    ]


def _qdq_model(cache: CalibrationCache, path: Path, source: Path) -> LightModel:
    model = load_model(path)
    needed = quantizable_tensors(model.light)
    fit = coverage(cache, needed, activation_names(model.graph))
    if fit.missing:
        raise CacheError(
            f"{source}: expected scales of all {len(needed)} tensors that {path} needs, {len(fit.missing)} are "
            f"missing, '{fit.missing[0]}' first; see calib cache check {source} --model {path}"
        )
    quantized = light_qdq_model(model.light, cache.amax)
    hold_cache(quantized, cache)
    return quantized


def _refuse_provenance(target: Path) -> None:
    """Refuse to overwrite the calibration.json that says what the calibration.cache beside it was made from."""
    try:
        files_named_by(target)
    except (OSError, DocumentError):
        return
    raise CacheError(f"{target}: holds what the cache beside it was made from; give another name")
