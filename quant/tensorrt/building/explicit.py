"""Explicit builds: Q/DQ where it pays, which is found by asking TensorRT and by timing engines on the GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from calib.caches.cache import CalibrationCache
from quant.onnx_graph.editor import GraphEditor
from quant.qdq.half_pairs import half_qdq_model
from quant.qdq.operators import CONVOLUTIONS, QUANTIZED_OPS, node_key
from quant.qdq.placement import DEFAULT_PLACEMENT, Placement, quantizable_inputs
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.rules import ALL_RULES, small_products
from quant.qdq.work import macs_by_product, share_of_work
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.building.builder import BuiltEngine, engine_from_onnx
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.building.tried_builds import Attempt, MadeEngine, TriedBuild, first_as_fast
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.layers import GraphReport, graph_report
from quant.tensorrt.rewrites.float_weights import with_float_products
from quant.tensorrt.rewrites.layer_norm import with_normalizations_apart
from quant.tensorrt.rewrites.shape_folding import with_shapes_folded

_LARGEST_NORMALIZED = 64.0  # a clipped amax may hide values three times as large, and 255 squared is the limit


@dataclass(frozen=True)
class ImplicitChoice:
    """What TensorRT chooses by itself.

    Attributes:
        floats: Products that it leaves in float.
        held: Tensors that its engine holds in INT8.
        milliseconds: Of a batch.
        built: Its engine.
    """

    floats: frozenset[str]
    held: frozenset[str]
    milliseconds: float
    built: BuiltEngine


def explicit_engine(
    proto: onnx.ModelProto,
    cache: CalibrationCache,
    batch: BatchRange,
    options: BuilderOptions,
    *,
    name: str,
    note: Note,
    float_nodes: frozenset[str] = frozenset(),
) -> MadeEngine:
    """Build with Q/DQ where it pays.

    Explicit quantization forces INT8 wherever a pair is, whether that is faster or not. If the release can still choose
    by itself, an implicit build is made first, which says what it left in float, what it held in INT8, and how fast
    that is. Then placements are built and timed, at most four, until one is as fast.

    Args:
        proto: FP32 model.
        cache: Its scales.
        batch: Batch sizes.
        options: How to build.
        name: What to call the model in messages.
        note: Called with lines to display.
        float_nodes: Kernels that stay float in every placement.

    Raises:
        BuildError: TensorRT can build none of them; the message quotes TensorRT on the first.
        OutOfDeviceMemoryError: The GPU has too little memory.
    """
    work = ExplicitBuilds(proto, cache, batch, options, name, note, float_nodes)
    implicit = work.implicit_choice() if load_tensorrt().has_calibrators else None
    return first_as_fast(
        work.attempts(implicit),
        work.timed,
        None if implicit is None else implicit.milliseconds,
        note,
        before=work.tried,
    )


class ExplicitBuilds:
    """One model's builds.

    Attributes:
        kernels: The products, as nodes of the prepared graph.
        tried: Builds that were made besides the placements.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        cache: CalibrationCache,
        batch: BatchRange,
        options: BuilderOptions,
        name: str,
        note: Note,
        float_nodes: frozenset[str],
    ) -> None:
        self.cache, self.batch, self.options, self.name, self.note = cache, batch, options, name, note
        self.named = prepared_proto(proto, batch, name)
        self._editor = prepared_for_quantization(self.named)
        self.kernels = [node for node in self._editor.nodes if node.op_type in QUANTIZED_OPS]
        self.float_nodes = self._with_small_products(float_nodes)
        self._macs = macs_by_product(self._editor)
        self.tried: list[TriedBuild] = []

    def _with_small_products(self, float_nodes: frozenset[str]) -> frozenset[str]:
        """Small products are in float as well, unless nothing else would be in INT8."""
        floats = float_nodes | small_products(self._editor)
        return floats if any(node_key(node) not in floats for node in self.kernels) else float_nodes

    def implicit_choice(self) -> ImplicitChoice:
        """Build without pairs, and see what TensorRT makes of it."""
        start = time.perf_counter()
        implicit = engine_from_onnx(
            self.named, "int8", self.batch, self.options, name=self.name, cache=self.cache, note=self.note
        )
        seconds = time.perf_counter() - start
        with Engine(implicit.data) as engine:
            report = graph_report(engine.layer_text(), self.named)
            milliseconds = _milliseconds(engine, self.batch)
        in_int8 = _in_int8(report)
        floats = frozenset(node_key(node) for node in self.kernels if node_key(node) not in in_int8)
        told = TriedBuild("nowhere, by TensorRT's own choice", seconds, milliseconds, self._share(in_int8))
        self.tried.append(told)
        self.note(f"explicit: {told.text}")
        return ImplicitChoice(floats | self.float_nodes, report.int8_tensors, milliseconds, implicit)

    def attempts(self, implicit: ImplicitChoice | None) -> list[Attempt]:
        """The placements to try: what is likely to be as fast as TensorRT's own choice first, else much INT8 first.

        For a convolutional net, the first has pairs where the implicit build has INT8, tensor by tensor: that made
        a YOLOv8n-type detector faster than TensorRT made it by itself (docs/gpu-results.md). Then follow pairs on
        every kernel and what the rules of `quant.qdq.rules` keep in INT8 between them, pairs on every kernel, and pairs
        on the kernels alone that TensorRT chose; or the float engine if it chose none. TensorRT 8.6 hands a
        transformer's body as a whole to another compiler. The body is slow with pairs on some of its products and fast
        with pairs on all of them and on their results (docs/gpu-results.md has the figures). So for a transformer,
        pairs on results are tried, with the convolutions before the body in INT8 and in float. Placements that come to
        the same pairs are tried once.

        Args:
            implicit: What TensorRT chose; None where it cannot choose: TensorRT 11 takes all types from the model, so
                that what has no pair is tried in FP16 as well.
        """
        every = f"on all {sum(node_key(node) not in self.float_nodes for node in self.kernels)} kernels"
        found = []
        if implicit is None:
            found.append(Attempt(f"{every} and between them", Placement(rules=ALL_RULES)))
            found.append(Attempt(every, DEFAULT_PLACEMENT))
            found = self.different(found[1:] if has_attention(self._editor) else found)
            halves = [replace(each, pairs=f"{each.pairs}, the rest in FP16", half=True) for each in found]
            return found if self.options.strict_int8 else halves + found
        chosen = sum(node_key(node) not in implicit.floats for node in self.kernels)
        where = f"on the {chosen} kernels that TensorRT chose"
        if has_attention(self._editor):
            found.append(Attempt(f"{every} and on results", Placement(results=True)))
            if not self.options.strict_int8 and _normalizations_fit_fp16(self.named, self.cache.amax):
                convolutions = frozenset(node_key(node) for node in self.kernels if node.op_type in CONVOLUTIONS)
                body = Placement(results=True, float_nodes=convolutions)
                found.append(Attempt("on all products and on results", body, apart=True))
        else:
            if chosen:
                held = Placement(float_nodes=implicit.floats, held=implicit.held)
                found.append(Attempt(f"{where} and the tensors that it held in INT8", held))
            found.append(Attempt(f"{every} and between them", Placement(rules=ALL_RULES)))
        found.append(Attempt(every, DEFAULT_PLACEMENT))
        found.append(Attempt(where, Placement(float_nodes=implicit.floats)) if chosen else self.without_pairs())
        return self.different(found)

    def without_pairs(self) -> Attempt:
        """The float engine."""
        other = "fp32" if self.options.strict_int8 else "fp16"
        return Attempt(f"nowhere ({other.upper()}), because TensorRT by itself runs nothing in INT8", None)

    def different(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those with other pairs than the ones before them."""
        known, found = set(), []
        for attempt in attempts:
            if attempt.placement is not None:
                edges = tuple(quantizable_inputs(self._editor, self.whole(attempt.placement)))
                if (edges, attempt.apart) in known:
                    continue
                known.add((edges, attempt.apart))
            found.append(attempt)
        return found

    def whole(self, placement: Placement) -> Placement:
        """A placement with what holds in all of them: products in float, and no pairs between kernels without scales.

        A cache from elsewhere may lack scales of tensors that only the rules need.
        """
        placement = replace(placement, float_nodes=placement.float_nodes | self.float_nodes)
        needed = {name for edge in quantizable_inputs(self._editor) for name in edge.scales}
        tensors = {name for node in self._editor.nodes for name in node.output}
        unscaled = frozenset(tensors - self.cache.amax.keys() - needed)
        return replace(placement, unscaled=unscaled) if placement.rules or placement.held else placement

    def quantized(self, attempt: Attempt) -> onnx.ModelProto:
        """The model that an attempt builds."""
        if attempt.placement is None:
            return self.named
        quantized = qdq_model_from_amax(self.named, self.cache.amax, self.whole(attempt.placement))
        if attempt.apart:
            quantized = with_normalizations_apart(quantized)
        formed = explicit_form(quantized, self.batch, self.name)
        return half_qdq_model(formed) if attempt.half else formed

    def timed(self, attempt: Attempt) -> tuple[MadeEngine, TriedBuild]:
        """Build an attempt, and time it on the GPU."""
        model = self.quantized(attempt)
        other = "fp32" if self.options.strict_int8 else "fp16"
        precision = "int8" if attempt.placement is not None else other
        start = time.perf_counter()
        built = engine_from_onnx(model, precision, self.batch, self.options, name=self.name, note=self.note)
        seconds = time.perf_counter() - start
        with Engine(built.data) as engine:
            milliseconds = _milliseconds(engine, self.batch)
            share = self._share(_in_int8(graph_report(engine.layer_text(), model)))
        return MadeEngine(model, built), TriedBuild(attempt.pairs, seconds, milliseconds, share)

    def _share(self, in_int8: frozenset[str]) -> float | None:
        return share_of_work(self._macs, in_int8)


def _in_int8(report: GraphReport) -> frozenset[str]:
    return frozenset(node for layer in report.layers if layer.precision == "int8" for node in layer.nodes)


def explicit_form(proto: onnx.ModelProto, batch: BatchRange, name: str) -> onnx.ModelProto:
    """A model with Q/DQ in the form that this TensorRT builds, and builds fast; other models as they are."""
    if load_tensorrt().major >= 10 or not any(node.op_type == "DequantizeLinear" for node in proto.graph.node):
        return proto
    named = prepared_proto(proto, batch, name)
    return with_float_products(with_shapes_folded(named) if batch.is_static else named)


def _normalizations_fit_fp16(named: onnx.ModelProto, amax: Mapping[str, float]) -> bool:
    """Whether FP16 can hold the squares in a LayerNormalization that is split into simple nodes.

    A square above 65504 is infinite there, and the whole token would become zero.
    """
    entering = [node.input[0] for node in named.graph.node if node.op_type == "LayerNormalization"]
    return all(amax.get(tensor, np.inf) <= _LARGEST_NORMALIZED for tensor in entering)


def has_attention(editor: GraphEditor) -> bool:
    """Whether a model multiplies activations with each other, as transformers do."""
    return any(node.op_type == "MatMul" and not editor.constants.keys() & set(node.input) for node in editor.nodes)


def _milliseconds(engine: Engine, batch: BatchRange) -> float:
    """The best median of three series, on noise, at the batch size that the engine is tuned for."""
    random = np.random.default_rng(0)
    inputs = {
        tensor.name: random.standard_normal((batch.usual, *tensor.shape[1:])).astype(tensor.dtype)
        if np.issubdtype(np.dtype(tensor.dtype), np.floating)
        else np.zeros((batch.usual, *tensor.shape[1:]), tensor.dtype)
        for tensor in engine.inputs
    }
    return min(engine.latency(inputs).milliseconds for _ in range(3))
