"""Calibration caches in files of three kinds: TensorRT's text, JSON, and Q/DQ models; reading, writing, converting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calib.caches.cache import CalibrationCache, coverage, text_from_cache
from calib.caches.conversion import json_from_cache, read_text_or_json, version_from_text, with_header
from calib.caches.difference import CacheDifference, difference
from calib.caches.provider_table import names_for_provider, reads_header, with_names
from calib.caches.sidecar import files_named_by
from calib.documents import DocumentError
from calib.errors import CacheError
from calib.files import Transaction
from quant.errors import ModelError
from quant.evaluation.deployment import missing_instructions
from quant.onnx_graph.light_model import LightModel
from quant.onnx_graph.model import OnnxModel, load_model
from quant.onnx_graph.model_file import stage_model
from quant.onnx_graph.tensor_types import activation_names
from quant.onnx_graph.tracing import names_within, with_tensors_renamed
from quant.qdq.number_form import FOR_TENSORRT, NumberForm, for_onnxruntime
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement
from quant.qdq.reader import ReadScales, cache_from_qdq_model, hold_cache
from quant.qdq.writer import light_qdq_model, quantizable_tensors

ONNXRUNTIME = "onnxruntime"  # reads Q/DQ models


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
    source: Path,
    target: Path,
    *,
    model: Path | None = None,
    tensorrt: str | None = None,
    header: str | None = None,
    reader: str | None = None,
) -> Conversion:
    """Write a cache as another kind of file, or for another version of TensorRT; the target's ending gives the kind.

    Args:
        source: Cache as text, JSON or Q/DQ model.
        target: .onnx for a Q/DQ model, .json for JSON, else TensorRT's text.
        model: FP32 model that scales are written into, for a Q/DQ model; or whose tensors are renamed, for a reader.
        tensorrt: Version for the first line, such as 8600 or 10.3.0.
        header: Calibrator for the first line, one of `calib.caches.conversion.CALIBRATORS`.
        reader: `calib.caches.provider_table.PROVIDER`, which takes no ':' in names; None for TensorRT itself. If
            tensors must have other names, the model with these is written beside the target. `ONNXRUNTIME` for a Q/DQ
            model in the numbers of ONNX Runtime's own kernels on this processor.

    Raises:
        CacheError: The source holds no cache, the scales do not fit the model, or the target exists and is no cache.
        BuildError: The model cannot be quantized.
    """
    version = version_from_text(tensorrt) if tensorrt else None
    found = read_cache_file(source)
    form, renames = _form_for(reader, target), reader not in (None, ONNXRUNTIME)
    if renames and header is None and not reads_header(found.cache):
        header = "entropy2"
    cache = with_header(found.cache, header, version)
    kind = target.suffix.lower()
    notes = [*found.notes, *_relabelled(found.cache, cache, as_text=kind not in (".onnx", ".json"))]
    if kind == ".json":
        _refuse_provenance(target)
    _refuse_to_replace(target, source, model)
    quantized, other, contents = None, None, ""
    if kind == ".onnx":
        if model is None:
            raise CacheError(
                f"{target}: expected the FP32 model that the scales go into, found none; give it with --model"
            )
        quantized = model_with_scales(load_model(model), cache, source, form=form)
    elif kind == ".json":
        contents = json_from_cache(cache)
    else:
        renamed = _renamed(cache, model, source) if renames else None
        if renamed is not None:
            cache, other = renamed
            beside = target.with_suffix(".onnx")
            if beside.exists():
                raise CacheError(
                    f"{beside}: already exists, and the model with other names goes there; name OUT otherwise"
                )
            notes.append(f"{beside}: the model with the names of {target}; its inputs and outputs may have others too")
        contents = text_from_cache(cache)
    with Transaction(target.parent) as files:
        if other is not None:
            stage_model(files, target.with_suffix(".onnx").name, other, replaces=False)
        if quantized is not None:
            stage_model(files, target.name, quantized, replaces=False)
        else:
            files.stage(target.name).write_text(contents, encoding="utf-8", newline="")
    if kind not in (".onnx", ".json") and cache.algo == "mse":
        notes.append("TensorRT has no calibrator called MSECalibration; use --header entropy2 for TensorRT")
    return Conversion(cache, tuple(notes))


def _form_for(reader: str | None, target: Path) -> NumberForm:
    """The whole numbers of a Q/DQ model for a reader.

    Raises:
        CacheError: The reader reads no such file.
    """
    kind = target.suffix.lower()
    if reader == ONNXRUNTIME:
        if kind != ".onnx":
            raise CacheError(f"{target}: expected a name ending in .onnx, because {reader} reads models, not caches")
        return for_onnxruntime(reduce_range=bool(missing_instructions()))
    if reader is not None and kind in (".onnx", ".json"):
        raise CacheError(f"{target}: expected a name for TensorRT's text, which {reader} reads, found {target.suffix}")
    return FOR_TENSORRT


def _renamed(cache: CalibrationCache, path: Path | None, source: Path) -> tuple[CalibrationCache, LightModel] | None:
    """A cache without ':' in its names, and the model with these; None where no name has one.

    Raises:
        CacheError: The model is not given.
    """
    if not any(":" in name for name in cache.scales):
        return None
    if path is None:
        raise CacheError(
            f"{source}: expected the FP32 model too, found none: names with ':' change in both; give it with --model"
        )
    model = load_model(path)
    renamed = names_for_provider(cache.scales, set(names_within(model.graph.graph)))
    light = LightModel(with_tensors_renamed(model.graph, renamed), model.light.weights)
    return with_names(cache, renamed), light


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


def model_with_scales(
    model: OnnxModel,
    cache: CalibrationCache,
    source: Path,
    placement: Placement = DEFAULT_PLACEMENT,
    form: NumberForm = FOR_TENSORRT,
) -> LightModel:
    """The Q/DQ model of an FP32 model and a cache.

    Args:
        model: The FP32 model.
        cache: Scales.
        source: Where they were read from, for the error.
        placement: Where pairs go.
        form: The whole numbers.

    Raises:
        CacheError: Tensors that need a scale have none.
        BuildError: The model cannot be quantized.
    """
    check_coverage(model, cache, source, placement)
    quantized = light_qdq_model(model.light, cache.amax, placement, form)
    hold_cache(quantized, cache)
    return quantized


def check_coverage(
    model: OnnxModel, cache: CalibrationCache, source: Path, placement: Placement = DEFAULT_PLACEMENT
) -> None:
    """Check that every tensor that needs a scale has one.

    Raises:
        CacheError: One has none.
    """
    needed = quantizable_tensors(model.light, placement)
    fit = coverage(cache, needed, activation_names(model.graph))
    if fit.missing:
        raise CacheError(
            f"{source}: expected scales of all {len(needed)} tensors that {model.path} needs, {len(fit.missing)} are "
            f"missing, '{fit.missing[0]}' first; see calib cache check {source} --model {model.path}"
        )


def _refuse_to_replace(target: Path, source: Path, model: Path | None) -> None:
    """Refuse to overwrite what is no converted cache: the model, a model that is read, or a file of another kind.

    A cache as text or JSON may be converted in its place, which keeps its scales.
    """
    if not target.exists() or target.stat().st_size == 0:
        return
    if target.suffix.lower() == ".onnx" and any(read is not None and target.samefile(read) for read in (source, model)):
        raise CacheError(f"{target}: would be overwritten by the converted model; name OUT otherwise")
    try:
        read_cache_file(target)
    except (CacheError, ModelError):
        raise CacheError(
            f"{target}: already exists and holds no cache, so it is not replaced; name OUT otherwise"
        ) from None


def _refuse_provenance(target: Path) -> None:
    """Refuse to overwrite the calibration.json that says what the calibration.cache beside it was made from."""
    try:
        files_named_by(target)
    except (OSError, DocumentError):
        return
    raise CacheError(f"{target}: holds what the cache beside it was made from; give another name")
