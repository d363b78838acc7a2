"""Reads scales from a Q/DQ model: ours or somebody else's (onnxruntime.quantization, ModelOpt, a PyTorch export).

Each QuantizeLinear of an activation gives a scale. Calibration caches are symmetric INT8 with zero point 0, but models
of other tools need not be. For those, the smallest symmetric scale that covers the same range is used, and a note says
so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from calib.algorithms import Entropy
from calib.caches.cache import CalibrationCache, checked_header, header_from_algorithm, scale_from_amax
from calib.caches.conversion import cache_from_json, json_from_cache
from calib.errors import CacheError
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.light_model import AnyModel, LightModel, light_model

METADATA_KEY = "calib.cache"  # the whole cache, with its header, its order, and tensors that need no pair
HEADER_KEY = "calib.header"  # only the first line of the cache that a run built the model from
MADE_BY_KEY = "calib.made_by"  # and what computed its scales, where that line cannot say
PAIRS_KEY = "calib.pairs"  # the pairs that use the scale of a tensor other than the one that they quantize


@dataclass(frozen=True)
class ReadScales:
    """What was read from a model.

    Attributes:
        cache: The scales.
        notes: What a user should know about them, one line each.
    """

    cache: CalibrationCache
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Pair:
    tensor: str
    scale: float
    symmetric: bool


def cache_from_qdq_model(model: AnyModel, source: str) -> ReadScales:
    """The scales of a Q/DQ model's activations.

    The first line of the cache comes from our own models, which hold it; other tools' models do not, so it is then that
    of TensorRT's Entropy2, and the cache says that what made it is not known.

    Args:
        model: The model.
        source: Its name for messages.

    Raises:
        CacheError: The model has no QuantizeLinear of an activation with one scale, or a scale is not usable.
    """
    light = light_model(model)
    scales, notes = scales_of_pairs(light, source)
    held = _held_cache(light.proto, source)
    if held is None:
        return ReadScales(_named_cache(light.proto, scales, source), notes)
    written = {**held.scales, **_held_pairs(light.proto, source)}
    edited = {tensor: scale for tensor, scale in scales.items() if scale != written.get(tensor)}
    return ReadScales(replace(held, scales={**held.scales, **edited}), notes)


def name_algorithm(model: AnyModel, cache: CalibrationCache) -> None:
    """Store in a Q/DQ model what computed its scales, so that a cache read from it says so; costs no pass over it."""
    proto = model.proto if isinstance(model, LightModel) else model
    kept = {entry.key: entry.value for entry in proto.metadata_props}
    named = {HEADER_KEY: cache.header, **({MADE_BY_KEY: cache.made_by} if cache.made_by else {})}
    onnx.helper.set_model_props(proto, kept | named)


def _named_cache(proto: onnx.ModelProto, scales: dict[str, float], source: str) -> CalibrationCache:
    """A cache of these scales, as far as the model says what computed them."""
    props = {entry.key: entry.value for entry in proto.metadata_props}
    if HEADER_KEY not in props:
        return CalibrationCache(header_from_algorithm(Entropy()), scales, made_by="algorithm not known")
    header = checked_header(props[HEADER_KEY], f"{source}: metadata '{HEADER_KEY}'")
    return CalibrationCache(header, scales, made_by=props.get(MADE_BY_KEY, ""))


def hold_cache(model: AnyModel, cache: CalibrationCache) -> None:
    """Store the whole cache in a Q/DQ model that was made from it, so that `cache_from_qdq_model` returns it.

    A pair on moved data has the scale of the tensor that the data comes from. Which pairs these are is stored too, so
    that later edits of the graph can be told from what was written.
    """
    proto = model.proto if isinstance(model, LightModel) else model
    scales, _ = scales_of_pairs(model, "the INT8 model")
    others = {tensor: scale for tensor, scale in scales.items() if scale != cache.scales.get(tensor)}
    kept = {entry.key: entry.value for entry in proto.metadata_props}
    held = {METADATA_KEY: json_from_cache(cache), PAIRS_KEY: json.dumps(others)}
    onnx.helper.set_model_props(proto, kept | held)


def scales_of_pairs(model: AnyModel, source: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """Scale of each quantized activation, and what a user should know about them."""
    editor = GraphEditor(model)
    pairs, channelwise = [], []
    for node in _quantizers(editor):
        pair = _pair_from_node(node, editor, source)
        if pair is None:
            channelwise.append(node.input[0])
        else:
            pairs.append(pair)
    if not pairs:
        raise CacheError(
            f"{source}: expected a Q/DQ model, found no QuantizeLinear of an activation with one constant scale; give "
            "an INT8 model in explicit (Q/DQ) form"
        )
    scales: dict[str, float] = {}
    conflicts = set()
    for pair in pairs:
        if scales.setdefault(pair.tensor, pair.scale) != pair.scale:
            conflicts.add(pair.tensor)
            scales[pair.tensor] = max(scales[pair.tensor], pair.scale)
    asymmetric = list(dict.fromkeys(pair.tensor for pair in pairs if not pair.symmetric))
    return scales, (
        *_note(asymmetric, "not quantized symmetrically; the symmetric scale that covers the same range is used"),
        *_note(channelwise, "quantized with several scales or a computed one; left out"),
        *_note(sorted(conflicts), "quantized with different scales; the larger is used"),
    )


def _quantizers(editor: GraphEditor) -> Iterator[onnx.NodeProto]:
    """QuantizeLinear nodes of activations; weights are constants."""
    for node in editor.nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] not in editor.constants:
            yield node


def _pair_from_node(node: onnx.NodeProto, editor: GraphEditor, source: str) -> _Pair | None:
    """Tensor and symmetric scale; None unless there is a single constant scale."""
    scale = editor.constants.get(node.input[1])
    has_zero_point = len(node.input) > 2 and bool(node.input[2])
    zero_point = editor.constants.get(node.input[2]) if has_zero_point else np.zeros((), np.uint8)
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    tensor = _tensor_of(node, editor)
    step = float(scale.reshape(-1)[0])
    if not (np.isfinite(step) and step > 0):
        raise CacheError(f"{source}: expected a finite scale above zero for '{tensor}', found {step}")
    covering, symmetric = _symmetric_scale(np.float32(step), zero_point.reshape(-1)[0])
    return _Pair(tensor, covering, symmetric)


def _tensor_of(node: onnx.NodeProto, editor: GraphEditor) -> str:
    """The quantized tensor, by its name in the FP32 model.

    If a graph's output is quantized, the pair's result takes its name, and the tensor itself gets a new one.
    """
    readers = (n for n in editor.nodes if n.op_type == "DequantizeLinear" and n.input[0] == node.output[0])
    results = (reader.output[0] for reader in readers)
    return str(next((name for name in results if name in editor.outputs), node.input[0]))


def _symmetric_scale(step: np.float32, zero_point: np.generic) -> tuple[float, bool]:
    """Scale of the symmetric INT8 grid that covers the same range, and whether it is the same grid."""
    kind = zero_point.dtype
    zero = int(zero_point)
    centre = 0 if kind.kind == "i" else 1 << (8 * kind.itemsize - 1)
    if kind.itemsize == 1 and zero == centre:
        return float(step), True
    limits: Any = np.iinfo(kind)
    largest = max(zero - limits.min, limits.max - zero)
    return float(scale_from_amax(float(step) * largest)), False


def _note(tensors: list[str], text: str) -> list[str]:
    return [f"{len(tensors)} tensors ('{tensors[0]}' first) are {text}"] if tensors else []


def _held_cache(proto: onnx.ModelProto, source: str) -> CalibrationCache | None:
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            return cache_from_json(entry.value, f"{source}: metadata '{METADATA_KEY}'")
    return None


def _held_pairs(proto: onnx.ModelProto, source: str) -> dict[str, float]:
    for entry in proto.metadata_props:
        if entry.key == PAIRS_KEY:
            try:
                return {str(tensor): float(scale) for tensor, scale in json.loads(entry.value).items()}
            except (ValueError, TypeError, AttributeError):
                raise CacheError(f"{source}: metadata '{PAIRS_KEY}': expected scales by tensor, as JSON") from None
    return {}
