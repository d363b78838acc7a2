"""The TensorRT back end: engines on an NVIDIA GPU, with scales from the toolkit's statistics or from TensorRT."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from calib.caches.cache import CalibrationCache
from calib.calibrator import Calibrator
from quant.backend import SampleShapes
from quant.child_process import Work
from quant.cuda.batch_feed import FeedFigures
from quant.cuda.device import OutOfDeviceMemoryError, find_device
from quant.errors import BuildError
from quant.onnx_graph.model import OnnxModel, fixed_batch
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.build_job import Note
from quant.tensorrt.building.native_calibration import native_cache_from_onnx
from quant.tensorrt.building.network import fitted_batch
from quant.tensorrt.building.open_axes import has_open_axes, with_sizes
from quant.tensorrt.building.options import BuilderOptions
from quant.tensorrt.builds_ahead import BuildsAhead, can_build_ahead
from quant.tensorrt.child_build import ChildBuild, engine_path, prepare
from quant.tensorrt.engine_build import EngineBuild, EngineMaker, EngineOrder
from quant.tensorrt.engines.engine import Engine
from quant.tensorrt.engines.engine_file import StaleEngineError

_Result = TypeVar("_Result")


def _ignore(line: str) -> None:
    """Ignore a note."""


class TensorRTBackend:
    """TensorRT on the first visible GPU; a context manager that frees its engines.

    Attributes:
        version: TensorRT's version.
        device: The GPU, for display.
        compute_capability: The GPU's, such as "9.0".
        batch: Batch sizes of the engines; halved if the GPU has too little memory.
        feed: How the last native calibration was fed.
    """

    name = "tensorrt"

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
        self._maker = EngineMaker(load_tensorrt(), find_device(), note)
        self.version, gpu = self._maker.tensorrt.version, self._maker.gpu
        self.device = f"{gpu.name}, compute capability {gpu.compute_capability}"
        self.compute_capability = gpu.compute_capability
        self.batch = batch if isinstance(batch, BatchRange) else BatchRange(batch, batch, batch)
        self.options = options if options is not None else BuilderOptions()
        self.feed: FeedFigures | None = None
        self._calibration_batch = calibration_batch
        self._engines, self._note = engines, note
        self._shapes, self._measured = shapes, measured
        self._sized: tuple[OnnxModel, OnnxModel, Mapping[str, tuple[int, ...]]] | None = None  # the last with open axes
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
        model, first = self.ordered(model, precision, cache, float_nodes)

        def attempt() -> EngineBuild:
            order = replace(first, batch=self.batch)
            return self.stored(model, order) or self._kept(self._maker.built(model, order))

        return self._with_smaller_batches(precision, model, attempt)

    def load(self, model: OnnxModel, precision: str) -> EngineBuild:
        """Build an engine from a model as it is: float, half, or with Q/DQ from any tool.

        Raises:
            BuildError: TensorRT cannot build it; the message quotes TensorRT.
        """
        model = self._fitted(model)

        def attempt() -> EngineBuild:
            return self._kept(self._maker.as_it_is(model, self._order(model, precision)))

        return self._with_smaller_batches(precision, model, attempt)

    def ahead(self) -> BuildsAhead | None:
        """Builds in child processes; None where builds are timed: other work would then decide which is the fastest."""
        if self._engines is None or self.options.times_kernels or not can_build_ahead():
            return None
        with contextlib.suppress(OSError):  # nothing can be written there, as the run itself will say
            return BuildsAhead(self, self._engines, self._note)
        return None

    def ordered(
        self, model: OnnxModel, precision: str, cache: CalibrationCache | None, float_nodes: frozenset[str]
    ) -> tuple[OnnxModel, EngineOrder]:
        """The model with the sizes of the data, and what to make of it.

        Raises:
            BuildError: There are no scales for INT8.
        """
        if precision == "int8" and cache is None:
            raise BuildError("int8: expected scales, found none; calibrate first")
        model = self._fitted(model)
        return model, self._order(model, precision, cache if precision == "int8" else None, float_nodes)

    def _order(
        self,
        model: OnnxModel,
        precision: str,
        cache: CalibrationCache | None = None,
        float_nodes: frozenset[str] = frozenset(),
    ) -> EngineOrder:
        sizes = self._sized[2] if self._sized is not None and self._sized[1] is model else None
        return EngineOrder(precision, self.batch, self.options, cache, float_nodes, sizes, self._measured)

    def stored(self, model: OnnxModel, order: EngineOrder) -> EngineBuild | None:
        """The engine of an earlier run, if there is one that fits; notes say so, or why it does not."""
        path = engine_path(self._engines, order.precision) if self._engines is not None else None
        if path is None or not path.exists():
            return None
        try:
            build = self._maker.from_file(path, model, order, reused=True)
        except StaleEngineError as error:
            self._note(f"{error.reason}; it is built again")
            return None
        self._note(f"{path}: fits and is used again")
        return self._kept(build)

    def times_builds(self, precision: str) -> bool:
        """Whether builds of a precision are timed, so that nothing may go on beside them: explicit ones are."""
        return self._maker.is_explicit(precision, self.options)

    def prepare_child(self) -> Callable[[], object]:
        """See `EngineSource`."""
        return prepare

    def child_work(self, model: OnnxModel, order: EngineOrder) -> Work:
        """See `EngineSource`."""
        return ChildBuild(model.path, model.sha256, order)

    def from_child(self, folder: Path, model: OnnxModel, order: EngineOrder) -> EngineBuild:
        """The engine that a child has built.

        Raises:
            StaleEngineError: It is not what would be built now.
            BuildError: TensorRT cannot load it.
            OutOfDeviceMemoryError: The GPU has too little memory.
        """
        if order.batch != self.batch:
            raise StaleEngineError(f"stale engine: the batch size was {order.batch}, now {self.batch}")
        return self._kept(self._maker.from_file(engine_path(folder, order.precision), model, order, reused=False))

    def _kept(self, build: EngineBuild) -> EngineBuild:
        """The build, which is freed with this back end."""
        self._open.append(build.engine)
        return build

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
            sizes = self._shapes(model)
            sized = with_sizes(model, sizes)
            if self._sized is None:
                told = ", ".join(f"'{info.name}' {list(info.shape[1:])}" for info in sized.inputs)
                self._note(f"{model.path}: leaves sizes of its inputs open; engines are for those of the data, {told}")
            self._sized = model, sized, sizes
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
