"""One engine, from a model to what the report says of it: built, or taken from a file that still fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

import calib
from calib.caches.cache import CalibrationCache
from quant.backend import Build
from quant.cuda.device import Device
from quant.errors import BuildError
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.model import OnnxModel
from quant.settings.batch_range import BatchRange
from quant.settings.output_names import ENGINE_SUFFIX
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.building.builder import BuiltEngine, engine_from_onnx
from quant.tensorrt.building.explicit import explicit_engine, explicit_form
from quant.tensorrt.building.mask_scales import scales_of_masks
from quant.tensorrt.building.network import prepared_proto
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.building.tried_builds import MadeEngine
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.engine_file import EngineIdentity, read_engine, scales_sha256, sidecar_path, sidecar_text
from quant.tensorrt.engines.layers import graph_report


@dataclass(frozen=True, kw_only=True)
class EngineBuild(Build):
    """A built engine.

    Attributes:
        engine: The same as `runnable`.
        reused: Whether it was already on disk and fits.
    """

    engine: Engine
    reused: bool = False
    is_engine: bool = True

    @property
    def engine_bytes(self) -> bytes:
        """The serialised engine."""
        assert isinstance(self.payload, bytes)
        return self.payload


@dataclass(frozen=True)
class EngineOrder:
    """What is made of a model, and how.

    Attributes:
        precision: fp32, fp16 or int8.
        batch: Batch sizes.
        options: How to build.
        cache: For INT8: the scales.
        float_nodes: For INT8: products that stay float.
        sizes: Sizes of the data, which were put on the axes that the model leaves open; None where it leaves none.
        measured: Whether the engine will also be measured, as its description says.
    """

    precision: str
    batch: BatchRange
    options: BuilderOptions = field(default_factory=BuilderOptions)
    cache: CalibrationCache | None = None
    float_nodes: frozenset[str] = frozenset()
    sizes: Mapping[str, tuple[int, ...]] | None = None
    measured: bool = True


@dataclass(frozen=True)
class EngineMaker:
    """Makes engines.

    Attributes:
        tensorrt: By this TensorRT.
        gpu: For this GPU.
        note: Called with lines to display.
    """

    tensorrt: TensorRT
    gpu: Device
    note: Note

    def is_explicit(self, precision: str, options: BuilderOptions) -> bool:
        """Whether a precision is built from Q/DQ in the model, by trying several builds and timing them."""
        return precision == "int8" and (options.explicit or not self.tensorrt.has_calibrators)

    def from_file(self, path: Path, model: OnnxModel, order: EngineOrder, *, reused: bool) -> EngineBuild:
        """The engine in a file, if it is what would be built.

        Raises:
            StaleEngineError: It is something else; the message says what.
            BuildError: TensorRT cannot load it.
            OutOfDeviceMemoryError: The GPU has too little memory.
        """
        data = read_engine(path, self._identity(model, order))
        text = sidecar_path(path).read_bytes()
        build = _loaded(model, order.precision, data)
        return replace(build, files={".json": text}, details=json.loads(text)["details"], reused=reused)

    def built(self, model: OnnxModel, order: EngineOrder, *, beside: bool = False) -> EngineBuild:
        """Build an engine.

        Args:
            model: The FP32 model, without open axes.
            order: What to make of it.
            beside: Other work goes on, so no build is timed: what needs that cannot be built.

        Raises:
            BuildError: It cannot be built; the message quotes TensorRT.
            OutOfDeviceMemoryError: The GPU has too little memory.
        """
        explicit = self.is_explicit(order.precision, order.options)
        try:
            made = self._made(model, order, explicit=explicit)
        except BuildError as error:
            if explicit or beside or not order.float_nodes:
                raise
            many = len(order.float_nodes)
            self.note(f"{many} products cannot stay float in an implicit build ({error}); it is explicit")
            explicit = True
            try:
                made = self._made(model, order, explicit=explicit)
            except BuildError as other:
                raise BuildError(f"with {many} products in float, implicit: {error}; explicit: {other}") from other
        built = made.built
        if built.without_scale:
            self.note(
                f"{len(built.without_scale)} tensors have no scale and stay float, '{built.without_scale[0]}' first"
            )
        more = {"explicit_builds": [tried.document() for tried in made.tried]} if made.tried else {}
        return self._described(model, order, made.proto, built, explicit=explicit, more=more)

    def as_it_is(self, model: OnnxModel, order: EngineOrder) -> EngineBuild:
        """Build an engine from a model as it is: float, half, or with Q/DQ from any tool.

        Raises:
            BuildError: TensorRT cannot build it; the message quotes TensorRT.
            OutOfDeviceMemoryError: The GPU has too little memory.
        """
        name = str(model.path)
        proto = explicit_form(model.proto, order.batch, name)
        built = engine_from_onnx(proto, order.precision, order.batch, order.options, name=name, note=self.note)
        return self._described(model, order, proto, built, explicit=order.precision == "int8")

    def _made(self, model: OnnxModel, order: EngineOrder, *, explicit: bool) -> MadeEngine:
        """Build an engine, explicit or not."""
        name, precision, batch, options = str(model.path), order.precision, order.batch, order.options
        if explicit and order.cache is not None:
            return explicit_engine(
                model.proto, order.cache, batch, options, name=name, note=self.note, float_nodes=order.float_nodes
            )
        typed = precision == "fp16" and not self.tensorrt.has_calibrators
        proto = half_model(model.proto) if typed else model.proto
        built = engine_from_onnx(
            proto,
            precision,
            batch,
            options,
            name=name,
            cache=order.cache,
            note=self.note,
            float_nodes=order.float_nodes if order.cache is not None else (),
        )
        return MadeEngine(proto, built)

    def _described(
        self,
        model: OnnxModel,
        order: EngineOrder,
        proto: onnx.ModelProto,
        built: BuiltEngine,
        *,
        explicit: bool,
        more: Mapping[str, Any] | None = None,
    ) -> EngineBuild:
        """The engine, loaded, with its description."""
        build = _loaded(model, order.precision, built.data)
        try:
            details = {
                "explicit": explicit,
                "batch": str(order.batch),
                "device_memory_bytes": build.engine.device_memory,
                "network_layers": built.network_layers,
                "filled_scales": built.filled,
                "without_scale": list(built.without_scale),
                "graph": graph_report(
                    build.engine.layer_text(), prepared_proto(proto, order.batch, "model")
                ).document(),
                **(more or {}),
            }
            text = sidecar_text(self._identity(model, order), built.data, details, measured=order.measured)
        except BaseException:
            build.engine.close()
            raise
        return replace(build, files={".json": text.encode()}, details=details)

    def _identity(self, model: OnnxModel, order: EngineOrder) -> EngineIdentity:
        options = {key: value for key, value in asdict(order.options).items() if key != "timing_cache"}
        options["calib"] = calib.__version__  # another version may place Q/DQ differently
        if order.precision == "int8" and order.float_nodes:
            options["float_nodes"] = sorted(order.float_nodes)
        masks = scales_of_masks(model.proto, order.cache) if order.cache is not None else []
        if masks:
            options["without_scales_of_masks"] = sorted(masks)  # they were handed over once
        if order.sizes is not None:
            options["sizes"] = {info.name: info.shape[1:] for info in model.inputs}
        return EngineIdentity(
            tensorrt=self.tensorrt.version,
            gpu=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            model=model.sha256,
            precision=order.precision,
            scales=scales_sha256(order.cache.scales) if order.cache is not None else "",
            batch=str(order.batch),
            options=json.dumps(options, sort_keys=True),
        )


def _loaded(model: OnnxModel, precision: str, data: bytes) -> EngineBuild:
    outputs = [value.name for value in model.proto.graph.output]
    engine = Engine(data, f"{model.path} ({precision})", outputs)
    return EngineBuild(precision, engine, data, ENGINE_SUFFIX, len(data), engine=engine)
