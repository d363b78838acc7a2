"""Explicit builds: Q/DQ where it pays, which is found by asking TensorRT and by timing engines on the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from calib.caches.cache import CalibrationCache
from quant.cuda.device import DeviceError
from quant.errors import BuildError, ModelError, QuantError
from quant.onnx_graph.editor import GraphEditor
from quant.qdq.placement import CONVOLUTIONS, DEFAULT_PLACEMENT, QUANTIZED_OPS, Placement
from quant.qdq.preparation import prepared_for_quantization
from quant.qdq.writer import qdq_model_from_amax
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.building.builder import BuiltEngine, engine_from_onnx
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.layers import graph_report
from quant.tensorrt.rewrites.float_weights import with_float_products
from quant.tensorrt.rewrites.layer_norm import with_normalizations_apart
from quant.tensorrt.rewrites.shape_folding import with_shapes_folded

_LARGEST_NORMALIZED = 64.0  # a clipped amax may hide values three times as large, and 255 squared is the limit
_AS_FAST = 1.05  # builds of the same kernels differ by up to 4 %, so up to this ratio, more INT8 is preferred


@dataclass(frozen=True)
class ExplicitEngine:
    """An engine built from Q/DQ.

    Attributes:
        proto: The model that was built.
        built: The engine.
        label: Where the pairs are, in words.
    """

    proto: onnx.ModelProto
    built: BuiltEngine
    label: str


def explicit_engine(
    proto: onnx.ModelProto,
    cache: CalibrationCache,
    batch: BatchRange,
    options: BuilderOptions,
    *,
    name: str,
    note: Note,
    float_nodes: frozenset[str] = frozenset(),
) -> ExplicitEngine:
    """Build with Q/DQ where it pays.

    Explicit quantization forces INT8 wherever a pair is, whether that is faster or not. If the release can still choose
    by itself, an implicit build is made first; if it leaves kernels in float, several placements are built and timed.

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
    work = _Work(proto, cache, batch, options, name, note, float_nodes)
    if not load_tensorrt().has_calibrators:
        placement = Placement(float_nodes=float_nodes)
        return work.engine(qdq_model_from_amax(proto, cache.amax, placement), "int8", "everywhere")
    floats, milliseconds = work.implicit_choice()
    if not floats - float_nodes:
        return work.with_pairs("everywhere")
    tried = list(_timed(work.attempts(floats), batch, note))
    best = fastest([found for found, _ in tried])
    said = [f"pairs {engine.label}: {found:.4g} ms per batch of {batch.usual}" for found, engine in tried]
    note(
        f"explicit: {said.pop(best)}"
        + "".join(f"; {line}" for line in said)
        + f"; TensorRT's own choice without Q/DQ: {milliseconds:.4g} ms"
    )
    return tried[best][1]


class _Work:
    """One model's builds."""

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
        self.float_nodes = float_nodes
        self.cache, self.batch, self.options, self.name, self.note = cache, batch, options, name, note
        self.named = prepared_proto(proto, batch, name)
        self._editor = prepared_for_quantization(self.named)
        self._kernels = [node for node in self._editor.nodes if node.op_type in QUANTIZED_OPS]

    def engine(self, model: onnx.ModelProto, precision: str, label: str) -> ExplicitEngine:
        built = engine_from_onnx(model, precision, self.batch, self.options, name=self.name, note=self.note)
        return ExplicitEngine(model, built, label)

    def implicit_choice(self) -> tuple[frozenset[str], float]:
        """Kernels that an implicit build leaves in float, and its milliseconds."""
        implicit = engine_from_onnx(
            self.named, "int8", self.batch, self.options, name=self.name, cache=self.cache, note=self.note
        )
        with Engine(implicit.data) as engine:
            report = graph_report(engine.layer_text(), self.named)
            milliseconds = _milliseconds(engine, self.batch)
        in_int8 = {node for layer in report.layers if layer.precision == "int8" for node in layer.nodes}
        floats = frozenset(node.name for node in self._kernels).difference(in_int8)
        floats |= self.float_nodes
        return floats, milliseconds

    def attempts(self, floats: frozenset[str]) -> Iterator[Callable[[], ExplicitEngine]]:
        """The engines to try, from much INT8 to little, if an implicit build leaves these kernels in float.

        They are: pairs on every kernel, and pairs where the implicit build chose INT8, or the float engine if it chose
        none. TensorRT 8.6 hands a transformer's body as a whole to another compiler. The body is slow with pairs on
        some of its products and fast with pairs on all of them and on their results (docs/gpu-results.md has the
        figures). So for a transformer, pairs on results are tried too, with the convolutions before the body in INT8
        and in float.
        """
        every = f"on all {len(self._kernels)} kernels"
        if _has_attention(self._editor):
            yield lambda: self.with_pairs(f"{every} and on results", Placement(results=True))
            if not self.options.strict_int8 and _normalizations_fit_fp16(self.named, self.cache.amax):
                convolutions = frozenset(node.name for node in self._kernels if node.op_type in CONVOLUTIONS)
                body = Placement(results=True, float_nodes=convolutions)
                yield lambda: self.with_pairs("on all products and on results", body, apart=True)
        yield lambda: self.with_pairs(every)
        chosen = len(self._kernels) - len(floats)
        if chosen:
            label = f"on the {chosen} kernels that TensorRT chose"
            yield lambda: self.with_pairs(label, Placement(float_nodes=floats))
        else:
            yield self.without_pairs

    def with_pairs(
        self, label: str, placement: Placement = DEFAULT_PLACEMENT, *, apart: bool = False
    ) -> ExplicitEngine:
        """The INT8 engine; `apart` splits normalisations into simple nodes."""
        placement = replace(placement, float_nodes=placement.float_nodes | self.float_nodes)
        quantized = qdq_model_from_amax(self.named, self.cache.amax, placement)
        if apart:
            quantized = with_normalizations_apart(quantized)
        return self.engine(explicit_form(quantized, self.batch, self.name), "int8", label)

    def without_pairs(self) -> ExplicitEngine:
        """The float engine."""
        other = "fp32" if self.options.strict_int8 else "fp16"
        label = f"nowhere ({other.upper()}), because TensorRT by itself runs nothing in INT8"
        return self.engine(self.named, other, label)


def explicit_form(proto: onnx.ModelProto, batch: BatchRange, name: str) -> onnx.ModelProto:
    """A model with Q/DQ in the form that this TensorRT builds, and builds fast; other models as they are."""
    if load_tensorrt().major >= 10 or not any(node.op_type == "DequantizeLinear" for node in proto.graph.node):
        return proto
    named = prepared_proto(proto, batch, name)
    return with_float_products(with_shapes_folded(named) if batch.is_static else named)


def fastest(milliseconds: Sequence[float]) -> int:
    """Index of the engine to take, from engines with less and less INT8: the first about as fast as the fastest."""
    return next(i for i, found in enumerate(milliseconds) if found <= _AS_FAST * min(milliseconds))


def _normalizations_fit_fp16(named: onnx.ModelProto, amax: Mapping[str, float]) -> bool:
    """Whether FP16 can hold the squares in a LayerNormalization that is split into simple nodes.

    A square above 65504 is infinite there, and the whole token would become zero.
    """
    entering = [node.input[0] for node in named.graph.node if node.op_type == "LayerNormalization"]
    return all(amax.get(tensor, np.inf) <= _LARGEST_NORMALIZED for tensor in entering)


def _has_attention(editor: GraphEditor) -> bool:
    """Whether a model multiplies activations with each other, as transformers do."""
    return any(node.op_type == "MatMul" and not editor.constants.keys() & set(node.input) for node in editor.nodes)


def _timed(
    attempts: Iterable[Callable[[], ExplicitEngine]], batch: BatchRange, note: Note
) -> Iterator[tuple[float, ExplicitEngine]]:
    """Pairs of milliseconds and engine; an attempt that fails is noted and left out, unless all fail."""
    first: QuantError | None = None
    succeeded = False
    for attempt in attempts:
        try:
            made = attempt()
            with Engine(made.built.data) as engine:
                milliseconds = _milliseconds(engine, batch)
        except (BuildError, ModelError, DeviceError) as error:
            note(f"explicit: {error}")
            first = first or error
            continue
        succeeded = True
        yield milliseconds, made
    if not succeeded and first is not None:
        raise first


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
