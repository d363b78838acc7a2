"""A TensorRT cache taken over into a Q/DQ model, with an account of every tensor: its scale before and after.

A cache of an implicit build and the pairs of an explicit one are not the same set. The cache holds a scale of every
tensor of TensorRT's network, those inside fused kernels and those that only TensorRT knows included; a Q/DQ model needs
one where INT8 kernels read. Where the cache lacks a scale that a pair needs, TensorRT ran what reads it in float, and
so does the model that is made here, unless the data was only moved there from a tensor with a scale.

Where the old engine is there, the pairs follow it (`OldEngine`): what TensorRT ran in float stays so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from calib.caches.cache import INT8_LEVELS, CalibrationCache, coverage, is_tensorrt_s_own
from calib.errors import CacheError
from quant.onnx_graph.editor import GraphEditor
from quant.onnx_graph.half_precision import light_half_model
from quant.onnx_graph.light_model import LightModel
from quant.onnx_graph.tensor_types import activation_names
from quant.onnx_graph.tracing import names_read
from quant.qdq.implicit import inside_kernels
from quant.qdq.operators import node_key, only_moves
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement, is_product, is_quantized_kernel, quantizable_inputs
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.reader import hold_cache, scales_of_pairs
from quant.qdq.writer import light_qdq_model

KEPT, MOVED, NEEDS_NONE, HAD_NONE, TENSORRT_S, UNKNOWN = (
    "kept", "of its source", "needs none", "had none", "TensorRT's own", "unknown",
)  # fmt: skip
KINDS = (KEPT, MOVED, NEEDS_NONE, HAD_NONE, TENSORRT_S, UNKNOWN)
_NAMED = 3  # readers that a line names


@dataclass(frozen=True)
class TensorAccount:
    """What became of a tensor's scale.

    Attributes:
        tensor: Its name.
        kind: One of `KINDS`. kept: the pair has the cache's scale. of its source: the pair has the scale of the tensor
            that the data was moved from, unchanged, whatever the cache says of this one. needs none: no pair is needed.
            had none: a pair would be needed, and the cache has no scale. TensorRT's own: no tensor of the ONNX model.
            unknown: neither the model's nor TensorRT's.
        before: Scale in the cache, activation units per step; 0 of a tensor that was all zero; None without one.
        after: Scale of the pair in the new model; None without a pair.
        why: Where its data comes from, what makes a pair unnecessary, or what stays in float.
    """

    tensor: str
    kind: str
    before: float | None
    after: float | None
    why: str = ""


@dataclass(frozen=True)
class OldEngine:
    """What TensorRT made of a cache and a model, as far as pairs are to follow it.

    Attributes:
        in_int8: Nodes whose layers compute in INT8, by `quant.qdq.operators.node_key`.
        held: Tensors that it holds in INT8.
    """

    in_int8: frozenset[str]
    held: frozenset[str]


@dataclass(frozen=True)
class Migration:
    """A cache taken over into a model.

    Attributes:
        model: The Q/DQ model; typed as FP16 where the old engine computes no product in INT8.
        precision: int8 or fp16, likewise.
        tensors: Every tensor that the cache holds or a pair needs, each once: those of the cache in its order first.
        float_products: Products that stay float, because a scale is missing, by `quant.qdq.operators.node_key`.
        ran_float: Products that stay float, because the old engine ran them so.
    """

    model: LightModel
    precision: str
    tensors: tuple[TensorAccount, ...]
    float_products: tuple[str, ...]
    ran_float: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors there are of each kind, in the order of `KINDS`."""
        found = Counter(account.kind for account in self.tensors)
        return {kind: found[kind] for kind in KINDS}


def migrated(
    model: LightModel, cache: CalibrationCache, source: str, name: str, engine: OldEngine | None = None
) -> Migration:
    """Write a cache's scales into a model as Q/DQ pairs, and account for every tensor.

    Args:
        model: FP32 model; not edited.
        cache: The cache of an implicit build.
        source: The cache's name for messages.
        name: The model's.
        engine: What TensorRT made of them; None to quantize whatever has scales.

    Raises:
        CacheError: The cache belongs to another model.
        BuildError: The model cannot be quantized.
    """
    known = activation_names(model.proto)
    editor = prepared_for_quantization(model)
    needed = list(dict.fromkeys(edge.scale for edge in quantizable_inputs(editor)))
    fit = coverage(cache, needed, known)
    own = [tensor for tensor in cache.scales if not is_tensorrt_s_own(tensor)]
    scaled = [t for t in needed if t in cache.scales or _scaled_origin(t, editor, cache.scales) is not None]
    if (needed and not scaled) or 2 * len(fit.foreign) > len(own):
        raise CacheError(
            f"{source}: expected scales of the tensors of {name}, found {len(scaled)} of the {len(needed)} that it "
            f"needs, and {len(fit.foreign)} of others; this cache belongs to another model, or the model was exported "
            "anew with other names: give the model that the cache was made from"
        )
    placement, moved = _placed(editor, cache.scales, _as_it_ran(editor, cache.scales, engine))
    if any(is_quantized_kernel(node, editor, placement) for node in editor.nodes):
        scales = {**cache.scales, **{tensor: cache.scales[origin] for tensor, origin in moved.items()}}
        made = light_qdq_model(model, {tensor: scale * INT8_LEVELS for tensor, scale in scales.items()}, placement)
        hold_cache(made, cache)
        precision, (after, _) = "int8", scales_of_pairs(made, name)
    else:
        made, precision, after = light_half_model(model), "fp16", {}
    origins = {edge.tensor: edge.scale for edge in quantizable_inputs(editor, placement)} | moved
    reasons = _Reasons(editor, placement, fit.foreign)
    tensors = dict.fromkeys([*cache.scales, *needed, *after])
    return Migration(
        model=made,
        precision=precision,
        tensors=tuple(_account(tensor, cache, after.get(tensor), origins, reasons) for tensor in tensors),
        float_products=tuple(node_key(node) for node in reasons.unscaled),
        ran_float=tuple(node_key(node) for node in reasons.ran_float),
    )


def _as_it_ran(editor: GraphEditor, scales: Mapping[str, float], engine: OldEngine | None) -> Placement:
    """The placement that follows an engine; the default one without. Each tensor keeps the scale that it was given."""
    if engine is None:
        return DEFAULT_PLACEMENT
    floats = frozenset(node_key(node) for node in editor.nodes if is_product(node)) - engine.in_int8
    return Placement(float_nodes=floats, held=engine.held & scales.keys(), joined=False)


def _placed(editor: GraphEditor, scales: Mapping[str, float], wanted: Placement) -> tuple[Placement, dict[str, str]]:
    """A placement that needs no scale that is not known, and where scales of moved data come from.

    A kernel that stays float may take a pair away from what another pair's scale came from, so this is repeated until
    nothing is missing.
    """
    unscaled: set[str] = set()
    moved: dict[str, str] = {}
    while True:
        placement = replace(wanted, unscaled=frozenset(unscaled))
        needed = {edge.scale for edge in quantizable_inputs(editor, placement)}
        missing = needed - scales.keys() - moved.keys()
        if not missing:
            return placement, {tensor: origin for tensor, origin in moved.items() if tensor in needed}
        for tensor in missing:
            origin = _scaled_origin(tensor, editor, scales)
            if origin is None:
                unscaled.add(tensor)
            else:
                moved[tensor] = origin


def _scaled_origin(tensor: str, editor: GraphEditor, scales: Mapping[str, float]) -> str | None:
    """The nearest tensor with a scale that a tensor's data was moved from; None where there is none."""
    producers = editor.producers()
    while (node := producers.get(tensor)) is not None and only_moves(node, editor):
        tensor = node.input[0]
        if tensor in scales:
            return tensor
    return None


def _account(
    tensor: str, cache: CalibrationCache, after: float | None, origins: Mapping[str, str], reasons: _Reasons
) -> TensorAccount:
    before = 0.0 if tensor in cache.zero_tensors else cache.scales.get(tensor)
    if after is not None:
        origin = origins.get(tensor, tensor)
        if origin != tensor:
            return TensorAccount(tensor, MOVED, before, after, f"holds the data of {origin}")
        why = "all zero on the calibration images: any scale represents them" if before == 0 else ""
        return TensorAccount(tensor, KEPT, before, after, why)
    if before is None:
        return TensorAccount(tensor, HAD_NONE, None, None, reasons.of_missing(tensor))
    if is_tensorrt_s_own(tensor):
        return TensorAccount(tensor, TENSORRT_S, before, None, "no tensor of the ONNX model")
    if tensor in reasons.foreign:
        return TensorAccount(tensor, UNKNOWN, before, None, "no tensor of this model")
    return TensorAccount(tensor, NEEDS_NONE, before, None, reasons.of_needless(tensor))


class _Reasons:
    """Why tensors have no pair."""

    def __init__(self, editor: GraphEditor, placement: Placement, foreign: Iterable[str]) -> None:
        self.foreign = set(foreign)
        left_float = [
            node
            for node in editor.nodes
            if not is_quantized_kernel(node, editor, placement) and is_quantized_kernel(node, editor, DEFAULT_PLACEMENT)
        ]
        self.ran_float = [node for node in left_float if node_key(node) in placement.float_nodes]
        self.unscaled = [node for node in left_float if node_key(node) not in placement.float_nodes]
        self._inside = inside_kernels(editor, placement)
        self._written = editor.producers().keys() | {value.name for value in editor.proto.graph.input}
        self._outputs = set(editor.outputs)
        self._readers: dict[str, list[str]] = {}
        self._only_moved = set(self._written)
        for node in editor.nodes:
            moves = only_moves(node, editor)
            for name in names_read(node):
                self._readers.setdefault(name, []).append(node.op_type)
                if not moves:
                    self._only_moved.discard(name)

    def of_missing(self, tensor: str) -> str:
        """What stays in float for want of a scale."""
        products = [node_key(node) for node in (*self.unscaled, *self.ran_float) if tensor in node.input]
        if not products:
            return "what adds it to a kernel's sum stays float"
        more = f" and {len(products) - _NAMED} more" if len(products) > _NAMED else ""
        return f"what reads it stays float, as TensorRT ran it: {', '.join(products[:_NAMED])}{more}"

    def of_needless(self, tensor: str) -> str:
        """What makes a pair unnecessary."""
        if tensor in self._inside:
            return "inside a kernel, which fuses it with what reads it"
        if tensor not in self._written:
            return "folded into the node before it"
        kinds = list(dict.fromkeys(self._readers.get(tensor, ())))
        if not kinds:
            return "an output of the model, which is float" if tensor in self._outputs else "nothing reads it"
        how = "only moved on" if tensor in self._only_moved else "read in float"
        return f"{how}, by {', '.join(kinds)}"
