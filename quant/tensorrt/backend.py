"""The TensorRT back end: engines on an NVIDIA GPU, with scales from the toolkit's statistics or from TensorRT."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import onnx

import calib
from calib.caches.cache import CalibrationCache
from calib.calibrator import Calibrator
from quant.backend import Build, SampleShapes
from quant.cuda.batch_feed import FeedFigures
from quant.cuda.device import OutOfDeviceMemoryError, find_device
from quant.errors import BuildError
from quant.onnx_graph.half_precision import half_model
from quant.onnx_graph.model import OnnxModel, fixed_batch
from quant.settings.batch_range import BatchRange
from quant.settings.output_names import ENGINE_SUFFIX, build_name
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.building.builder import BuiltEngine, engine_from_onnx
from quant.tensorrt.building.explicit import explicit_engine, explicit_form
from quant.tensorrt.building.mask_scales import scales_of_masks
from quant.tensorrt.building.native_calibration import native_cache_from_onnx
from quant.tensorrt.building.network import fitted_batch, prepared_proto
from quant.tensorrt.building.open_axes import has_open_axes, with_sizes
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.building.tried_builds import MadeEngine
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.engine_file import (
    EngineIdentity,
    StaleEngineError,
    read_engine,
    scales_sha256,
    sidecar_path,
    sidecar_text,
)
from quant.tensorrt.engines.layers import graph_report

_Result = TypeVar("_Result")


def _ignore(line: str) -> None:
    """Ignore a note."""


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


class TensorRTBackend:
    """TensorRT on the first visible GPU; a context manager that frees its engines.

    Attributes:
        version: TensorRT's version.
        device: The GPU, for display.
        overlaps: See `Backend`. False: on an H200, runs hung whose builds by TensorRT 8.6 went on beside each other in
            threads. Its builder logs through Python, whose lock another of its calls may hold while it waits.
        compute_capability: The GPU's, such as "9.0".
        batch: Batch sizes of the engines; halved if the GPU has too little memory.
        feed: How the last native calibration was fed.
    """

    name = "tensorrt"
    overlaps = False

    def __init__(
        self,
        batch: BatchRange | int = 64,
        options: BuilderOptions | None = None,
        *,
        calibration_batch: int | None = None,
        engines: Path | None = None,
        shapes: SampleShapes | None = None,
        measured: bool = True,
        note: Note = _ignore,
    ) -> None:
        """Find TensorRT and the GPU.

        Args:
            batch: One batch size, or a range for dynamic shapes.
            options: How engines are built.
            calibration_batch: Images in a batch of `calibrate`; None for the size that the engines are tuned for.
            engines: Folder with `model.<precision>.engine` files of an earlier run, which are reused if they fit.
            shapes: Gives the shapes of the data, which fix the axes that a model leaves open. Asked only if one does.
            measured: Whether what is built will also be measured, as engines' descriptions say.
            note: Called with lines to display.

        Raises:
            TensorRTError: TensorRT cannot be loaded; the message says what to install.
            DeviceError: There is no usable GPU; the message says what to install.
        """
        self._tensorrt = load_tensorrt()
        self._gpu = find_device()
        self.version = self._tensorrt.version
        self.device = f"{self._gpu.name}, compute capability {self._gpu.compute_capability}"
        self.compute_capability = self._gpu.compute_capability
        self.batch = batch if isinstance(batch, BatchRange) else BatchRange(batch, batch, batch)
        self.options = options if options is not None else BuilderOptions()
        self.feed: FeedFigures | None = None
        self._calibration_batch = calibration_batch
        self._engines, self._note = engines, note
        self._shapes, self._measured = shapes, measured
        self._sized: tuple[OnnxModel, OnnxModel] | None = None  # the last model with open axes, and the same with sizes
        self._open: list[Engine] = []

    def calibrate(self, model: OnnxModel, calibrator: Calibrator, advance: Callable[[int], None]) -> CalibrationCache:
        """Let TensorRT compute the scales (`--calibrator tensorrt`).

        Raises:
            BuildError: TensorRT cannot do it, or the GPU has too little memory for a single image.
            Exception: Whatever the data stream raised; there is then no cache.
        """

        def attempt() -> CalibrationCache:
            cache, self.feed = native_cache_from_onnx(
                model.proto,
                calibrator,
                min(self._calibration_batch, self.batch.largest) if self._calibration_batch else self.batch.usual,
                self.options,
                name=str(model.path),
                advance=advance,
                note=self._note,
            )
            return cache

        model = self._fitted(model)
        return self._with_smaller_batches("calibration", model, attempt)

    def build(
        self,
        model: OnnxModel,
        precision: str,
        cache: CalibrationCache | None = None,
        float_nodes: frozenset[str] = frozenset(),
    ) -> EngineBuild:
        """Build an engine, or load the one on disk if it still fits.

        Args:
            model: The FP32 model.
            precision: fp32, fp16 or int8.
            cache: For INT8: the cache whose scales are handed over, with its header rewritten if necessary.
            float_nodes: For INT8: products that stay float. If an implicit build cannot keep them so, the build is
                explicit.

        Raises:
            BuildError: This precision cannot be built; the message quotes TensorRT.
        """
        if precision == "int8" and cache is None:
            raise BuildError("int8: expected scales, found none; calibrate first")
        model = self._fitted(model)
        scales = cache if precision == "int8" else None
        return self._with_smaller_batches(precision, model, lambda: self._build(model, precision, scales, float_nodes))

    def load(self, model: OnnxModel, precision: str) -> EngineBuild:
        """Build an engine from a model as it is: float, half, or with Q/DQ from any tool.

        Raises:
            BuildError: TensorRT cannot build it; the message quotes TensorRT.
        """

        def attempt() -> EngineBuild:
            name = str(model.path)
            proto = explicit_form(model.proto, self.batch, name)
            built = engine_from_onnx(proto, precision, self.batch, self.options, name=name, note=self._note)
            build = self._loaded(model, precision, built.data, {}, {})
            details = self._details(build, proto, built, explicit=precision == "int8")
            identity = self._identity(model, precision, None, frozenset())
            return replace(build, files=self._description(identity, built.data, details), details=details)

        model = self._fitted(model)
        return self._with_smaller_batches(precision, model, attempt)

    def _build(
        self, model: OnnxModel, precision: str, cache: CalibrationCache | None, float_nodes: frozenset[str]
    ) -> EngineBuild:
        identity = self._identity(model, precision, cache, float_nodes)
        stored = self._stored(precision, identity)
        if stored is not None:
            data, files, details = stored
            return self._loaded(model, precision, data, files, details, reused=True)
        explicit = cache is not None and bool(self.options.explicit or not self._tensorrt.has_calibrators)
        try:
            made = self._engine(model, precision, cache, float_nodes, explicit=explicit)
        except BuildError as error:
            if explicit or not float_nodes:
                raise
            self._note(f"{len(float_nodes)} products cannot stay float in an implicit build ({error}); it is explicit")
            explicit = True
            try:
                made = self._engine(model, precision, cache, float_nodes, explicit=explicit)
            except BuildError as other:
                raise BuildError(
                    f"with {len(float_nodes)} products in float, implicit: {error}; explicit: {other}"
                ) from other
        built = made.built
        if built.without_scale:
            self._note(
                f"{len(built.without_scale)} tensors have no scale and stay float, '{built.without_scale[0]}' first"
            )
        build = self._loaded(model, precision, built.data, {}, {})
        details = self._details(build, made.proto, built, explicit=explicit)
        if made.tried:
            details["explicit_builds"] = [tried.document() for tried in made.tried]
        return replace(build, files=self._description(identity, built.data, details), details=details)

    def _description(self, identity: EngineIdentity, data: bytes, details: Mapping[str, Any]) -> dict[str, bytes]:
        return {".json": sidecar_text(identity, data, details, measured=self._measured).encode()}

    def _details(
        self, build: EngineBuild, proto: onnx.ModelProto, built: BuiltEngine, *, explicit: bool
    ) -> dict[str, Any]:
        return {
            "explicit": explicit,
            "batch": str(self.batch),
            "device_memory_bytes": build.engine.device_memory,
            "network_layers": built.network_layers,
            "filled_scales": built.filled,
            "without_scale": list(built.without_scale),
            "graph": graph_report(build.engine.layer_text(), prepared_proto(proto, self.batch, "model")).document(),
        }

    def _loaded(
        self,
        model: OnnxModel,
        precision: str,
        data: bytes,
        files: Mapping[str, bytes],
        details: Mapping[str, Any],
        *,
        reused: bool = False,
    ) -> EngineBuild:
        outputs = [value.name for value in model.proto.graph.output]
        engine = Engine(data, f"{model.path} ({precision})", outputs)
        self._open.append(engine)
        return EngineBuild(
            precision,
            engine,
            data,
            ENGINE_SUFFIX,
            len(data),
            engine=engine,
            files=files,
            details=details,
            reused=reused,
        )

    def _engine(
        self,
        model: OnnxModel,
        precision: str,
        cache: CalibrationCache | None,
        float_nodes: frozenset[str],
        *,
        explicit: bool,
    ) -> MadeEngine:
        """Build an engine, explicit or not."""
        name = str(model.path)
        if explicit and cache is not None:
            return explicit_engine(
                model.proto, cache, self.batch, self.options, name=name, note=self._note, float_nodes=float_nodes
            )
        typed = precision == "fp16" and not self._tensorrt.has_calibrators
        proto = half_model(model.proto) if typed else model.proto
        built = engine_from_onnx(
            proto,
            precision,
            self.batch,
            self.options,
            name=name,
            cache=cache,
            note=self._note,
            float_nodes=float_nodes if cache is not None else (),
        )
        return MadeEngine(proto, built)

    def _identity(
        self, model: OnnxModel, precision: str, cache: CalibrationCache | None, float_nodes: frozenset[str]
    ) -> EngineIdentity:
        options = {key: value for key, value in asdict(self.options).items() if key != "timing_cache"}
        options["calib"] = calib.__version__  # another version may place Q/DQ differently
        if precision == "int8" and float_nodes:
            options["float_nodes"] = sorted(float_nodes)
        masks = scales_of_masks(model.proto, cache) if cache is not None else []
        if masks:
            options["without_scales_of_masks"] = sorted(masks)  # they were handed over once
        if self._sized is not None and self._sized[1] is model:
            options["sizes"] = {info.name: info.shape[1:] for info in model.inputs}
        return EngineIdentity(
            tensorrt=self.version,
            gpu=self._gpu.name,
            compute_capability=self._gpu.compute_capability,
            model=model.sha256,
            precision=precision,
            scales=scales_sha256(cache.scales) if cache is not None else "",
            batch=str(self.batch),
            options=json.dumps(options, sort_keys=True),
        )

    def _stored(
        self, precision: str, identity: EngineIdentity
    ) -> tuple[bytes, Mapping[str, bytes], Mapping[str, Any]] | None:
        """An engine of an earlier run that fits, with its description."""
        path = self._engines / build_name(precision, ENGINE_SUFFIX) if self._engines is not None else None
        if path is None or not path.exists():
            return None
        try:
            data = read_engine(path, identity)
        except StaleEngineError as error:
            self._note(f"{error.reason}; it is built again")
            return None
        text = sidecar_path(path).read_bytes()
        self._note(f"{path}: fits and is used again")
        return data, {".json": text}, json.loads(text)["details"]

    def _fitted(self, model: OnnxModel) -> OnnxModel:
        """The model with the sizes of the data, and the batch size with those that the model requires."""
        model = self._with_sizes(model)
        self.batch = fitted_batch(model, self.batch, self._note)
        return model

    def _with_sizes(self, model: OnnxModel) -> OnnxModel:
        """The model with the sizes of the data on its open axes; as it is where it leaves none open."""
        if self._shapes is None or not has_open_axes(model):
            return model
        if self._sized is None or self._sized[0] is not model:
            sized = with_sizes(model, self._shapes(model))
            if self._sized is None:
                told = ", ".join(f"'{info.name}' {list(info.shape[1:])}" for info in sized.inputs)
                self._note(f"{model.path}: leaves sizes of its inputs open; engines are for those of the data, {told}")
            self._sized = model, sized
        return self._sized[1]

    def _with_smaller_batches(self, what: str, model: OnnxModel, attempt: Callable[[], _Result]) -> _Result:
        """Try again with half the batch as long as the GPU has too little memory."""
        while True:
            try:
                return attempt()
            except OutOfDeviceMemoryError as error:
                half = max(self.batch.largest // 2, 1)
                if self.batch.largest == 1 or fixed_batch(model.proto) is not None:
                    raise BuildError(
                        f"{what}: out of GPU memory at batch {self.batch}: {error}; end other programs on the GPU"
                    ) from error
                least, usual = min(self.batch.smallest, half), min(self.batch.usual, half)
                smaller = replace(self.batch, smallest=least, usual=usual, largest=half)
                self._note(f"{what}: out of GPU memory at batch {self.batch}; trying {smaller}")
                self.batch = smaller

    def close(self) -> None:
        """Free all engines; a second call does nothing."""
        while self._open:
            self._open.pop().close()

    def __enter__(self) -> TensorRTBackend:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
