"""Chooses between processor and GPU for each pass, from what the first batch takes on the processor.

The processor begins, since it needs no engine. Once its first batch is counted, its time for all images is known well
enough; the GPU's follows from the model: an engine takes seconds to build, and afterwards the GPU is many times faster.
If the GPU wins, the pass begins again there with the same batch, so that all counts come from one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import length_hint

from calib.calibrator import CalibrationBatch, Calibrator
from datasets.arrays.stream import model_batches
from quant.collectors.collector import Advance, Collector, Estimate, ignore
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.errors import AcceleratorError, BuildError
from quant.onnx_graph.model import OnnxModel
from quant.tensorrt.building.build_job import has_built

_WORTH = 0.8  # of the processor's time, which the GPU must stay below: its own is known less well

# Engines with all activations at level 0, TensorRT 8.6.0 on an H200's host: mobilenetv2 8 to 9 s, a transformer 2.5 to
# 3.5 s. The first build of a process took 16.7 s for mobilenetv2: CUDA's context, TensorRT's libraries of kernels and
# NVRTC are loaded once.
_SECONDS_OF_START = 7.5
_SECONDS_OF_BUILD = 2.0
_SECONDS_A_CONVOLUTION = 0.13
_SECONDS_A_NODE = 0.004
_BYTES_A_SECOND = 250e9  # of activations: 824 MB of mobilenetv2 in 3.2 ms, with their counting


class _TakeGpuError(Exception):
    """Ends the processor's pass."""


class AutomaticCollector:
    """Collects with the processor or the GPU, whichever is expected to take less time.

    Attributes:
        where: See `Collector`.
        seconds: See there.
    """

    def __init__(self, cpu: OnnxRuntimeCollector, gpu: Collector, note: Callable[[str], None]) -> None:
        """Keep both.

        Args:
            cpu: The processor's.
            gpu: The GPU's, which is asked for nothing before it is chosen.
            note: Called with lines to display.
        """
        self._cpu, self._gpu, self._note = cpu, gpu, note
        self.where = ""
        self.seconds: Mapping[str, float] = {}

    def collect(self, model: OnnxModel, calibrator: Calibrator, advance: Advance = ignore) -> None:
        """See `Collector`; if the GPU fails before it has counted anything, the processor goes on."""
        stream = model_batches(calibrator, model.inputs)
        own = Calibrator(calibrator.algorithm, _Replayed(stream, length_hint(calibrator.batches)))
        own.over_images = calibrator.over_images
        try:
            self._collect(model, own, advance)
        finally:
            if hasattr(stream, "close"):
                stream.close()
        calibrator.merge(own.statistics)

    def _collect(self, model: OnnxModel, own: Calibrator, advance: Advance) -> None:
        assert isinstance(own.batches, _Replayed)
        taken: Collector = self._cpu
        try:
            self._cpu.collect(model, own, advance, lambda estimate: self._choose(model, estimate))
        except _TakeGpuError:
            try:
                self._gpu.collect(model, own, advance)
                taken = self._gpu
            except (AcceleratorError, BuildError) as error:
                if own.batches.drawn > 1:  # they are gone
                    raise
                self._note(f"collector: the CPU instead of the GPU: {error}")
                self._cpu.collect(model, own, advance)
        self.where, self.seconds = taken.where, taken.seconds

    def _choose(self, model: OnnxModel, estimate: Estimate) -> None:
        """Say what is taken.

        Raises:
            _TakeGpuError: It is the GPU.
        """
        if not estimate.images:
            return
        engine = seconds_of_engine(model)
        gpu = engine + estimate.images * estimate.bytes_of_image / _BYTES_A_SECOND
        cpu = estimate.images * estimate.seconds_of_image
        taken = "GPU" if gpu < _WORTH * cpu else "CPU"
        self._note(
            f"collector: the {taken}; expected from the first batch: {cpu:.1f} s on the CPU, {gpu:.1f} s on the GPU, "
            f"of which {engine:.1f} s for its engine"
        )
        if taken == "GPU":
            raise _TakeGpuError


def seconds_of_engine(model: OnnxModel) -> float:
    """About how long an engine with all activations takes to build, in a process that may have built others before."""
    nodes = model.graph.graph.node
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in nodes)
    start = 0.0 if has_built() else _SECONDS_OF_START
    return start + _SECONDS_OF_BUILD + _SECONDS_A_CONVOLUTION * convolutions + _SECONDS_A_NODE * len(nodes)


class _Replayed:
    """Batches that begin with the first one whenever they are asked for again, and then go on where they were.

    Attributes:
        drawn: Number of batches taken from the stream.
    """

    def __init__(self, batches: Iterator[CalibrationBatch], expected: int) -> None:
        self._batches, self._expected = batches, expected
        self._first: CalibrationBatch | None = None
        self.drawn = 0

    def __length_hint__(self) -> int:
        return self._expected

    def __iter__(self) -> Iterator[CalibrationBatch]:
        if self._first is not None:
            yield self._first
        for batch in self._batches:
            self.drawn += 1
            if self._first is None:
                self._first = batch
            yield batch
