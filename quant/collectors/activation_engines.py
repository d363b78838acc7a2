"""The engines of a pass on the GPU, by groups of tensors and batch size; and where each tensor holds its images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray

from calib.calibrator import CalibrationBatch, Calibrator
from quant.collectors.plan import CollectionPlan, Division, collection_plan
from quant.cuda.batch_feed import FeedInput
from quant.cuda.device import DeviceBuffer, OutOfDeviceMemoryError, Stream
from quant.errors import BuildError, ModelError
from quant.onnx_graph.light_model import whole_model
from quant.onnx_graph.model import OnnxModel, with_free_batch
from quant.onnxruntime.session import OnnxRuntimeSession
from quant.tensorrt.activation_engine import DeviceArray

Array = NDArray[Any]


class Runner(Protocol):
    """Runs a model and leaves its activations in GPU memory: `quant.tensorrt.activation_engine.ActivationEngine`."""

    inputs: tuple[FeedInput, ...]
    bytes: int

    def place(self, pointer: int) -> Mapping[str, DeviceArray]: ...  # noqa: D102 - see the class
    def run(self, inputs: Mapping[str, int], stream: Stream) -> None: ...  # noqa: D102 - see the class
    def close(self) -> None: ...  # noqa: D102 - see the class


OpenRunner = Callable[[onnx.ModelProto, Sequence[str], int], Runner]  # model, tensors, images in a batch


@dataclass(frozen=True)
class Reference:
    """What ONNX Runtime says of a model: the plan of the pass, and the activations of the first image.

    Attributes:
        plan: What is fetched and counted.
        one: The fetched activations of one image.
        sizes: Their bytes, for one image, or for a whole batch if the model fixes the batch size.
    """

    plan: CollectionPlan
    one: Mapping[str, Array]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, model: OnnxModel, calibrator: Calibrator, batch: CalibrationBatch) -> Reference:
        """Run the first image.

        Raises:
            ModelError: The model cannot be run.
        """

        def session(tensors: Sequence[str]) -> OnnxRuntimeSession:
            try:
                return OnnxRuntimeSession(model.light, name=str(model.path), also=tensors)
            except BuildError as error:
                raise ModelError(str(error)) from error

        plan = collection_plan(model, calibrator.algorithm, lambda names: session(names).types)
        if not plan.fetched:
            return cls(plan, {}, {})
        image = {name: array[:1] if array.ndim else array for name, array in batch.inputs.items()}
        one = dict(zip(plan.fetched, session(plan.fetched).run(image, plan.fetched), strict=True))
        return cls(plan, one, {name: array.nbytes * (model.fixed_batch or 1) for name, array in one.items()})

    @property
    def roots(self) -> Sequence[str]:
        """The tensors that are counted."""
        return (*self.plan.inputs, *self.plan.fetched)

    def holds(self, name: str, shape: tuple[int, ...], batch: int) -> str:
        """Where a tensor's images are in a batch: on the `first` axis, `elsewhere`, or `none` if it holds none."""
        own = self.one[name].shape
        if shape == own and batch > 1:
            return "none"
        return "first" if own[:1] == (1,) and shape == (batch, *own[1:]) else "elsewhere"


@dataclass
class Engines:
    """The engines of a pass: one for each group of tensors, and others for a last batch that cannot be filled up.

    Attributes:
        batch: Images in a batch.
        seconds: Time for building engines during the pass.
    """

    model: OnnxModel
    reference: Reference
    open_runner: OpenRunner
    batch: int = 0
    seconds: float = 0.0
    _groups: tuple[tuple[str, ...], ...] = ()
    _runners: dict[int, list[Runner]] = field(default_factory=dict)  # by images in a batch
    _placed: dict[int, list[Mapping[str, DeviceArray]]] = field(default_factory=dict)
    _memory: DeviceBuffer | None = None

    def fit(self, division: Division, note: Callable[[str], None]) -> Division:
        """Build the engines; with fewer images at a time if the GPU's memory is full.

        Returns:
            How batches are divided in the end.

        Raises:
            OutOfDeviceMemoryError: A single image does not fit.
            BuildError: TensorRT cannot build them.
        """
        while True:
            self.batch, self._groups = division.images, division.groups
            try:
                self._open(self.batch, self.model.proto)
            except OutOfDeviceMemoryError as error:
                self.close()
                if self.batch == 1 or self.model.fixed_batch is not None:
                    raise
                division = Division(self.batch // 2, division.groups)
                note(f"activations: out of GPU memory at batch {self.batch} ({error}); trying {division.images}")
            else:
                return division

    def _open(self, batch: int, proto: onnx.ModelProto) -> None:
        runners: list[Runner] = []
        self._runners[batch] = runners
        for group in self._groups:
            runners.append(self.open_runner(proto, group, batch))
        needed = max(runner.bytes for runner in runners)
        if self._memory is None or self._memory.bytes < needed:
            if self._memory is not None:
                self._memory.close()
            self._memory = DeviceBuffer(needed)
        for size, opened in self._runners.items():
            self._placed[size] = [runner.place(self._memory.pointer) for runner in opened]

    @property
    def inputs(self) -> tuple[FeedInput, ...]:
        """The engines' inputs."""
        return self._runners[self.batch][0].inputs

    def for_images(self, images: int) -> tuple[int, Iterator[tuple[Runner, Mapping[str, DeviceArray]]]]:
        """The engines that run so many images, with the places of their tensors; and the batch that they take.

        A batch is filled up where the copies can be told from the images. For others, engines of their size are built.
        """
        size = self.batch
        if images < size and any(
            self.reference.holds(name, array.shape, size) == "elsewhere"
            for placed in self._placed[size]
            for name, array in placed.items()
        ):
            size = images
            if size not in self._runners:
                start = time.perf_counter()
                free = self.model.fixed_batch is not None
                self._open(size, whole_model(with_free_batch(self.model.light)) if free else self.model.proto)
                self.seconds += time.perf_counter() - start
        return size, zip(self._runners[size], self._placed[size], strict=True)

    def close(self) -> None:
        """Free engines and memory; a second call does nothing."""
        for runner in itertools.chain(*self._runners.values()):
            runner.close()
        self._runners.clear()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
