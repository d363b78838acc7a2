"""What one worker does with its share of the images; it runs in a process of its own, maybe on another machine."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calib.algorithms import Algorithm
from calib.calibrator import Calibrator
from calib.errors import CalibrationError
from calib.histograms.statistics import Statistics
from datasets import BatchStream, Quarantined
from datasets.errors import TooManyUnreadableError
from quant.collectors.collector import Collector
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector, Spread
from quant.onnx_graph.model import OnnxModel
from quant.tensorrt.building.options import BuilderOptions


@dataclass(frozen=True)
class Job:
    """What all workers need to know.

    Attributes:
        model: FP32 model.
        algorithm: How amax is computed.
        stream: All images.
        folder: The working folder, to which relative paths refer.
        processors: Processors of a worker.
        memory_limit: Bytes of activations and counts of a worker.
        gpu: How engines are built, if a worker counts on a GPU; None for the CPU.
    """

    model: OnnxModel
    algorithm: Algorithm
    stream: BatchStream
    folder: Path
    processors: int
    memory_limit: int
    gpu: BuilderOptions | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a share of the images.

    Attributes:
        statistics: Of its images.
        quarantined: Its images that cannot be read.
        error: What ended the work; None if nothing did.
        seconds: Of the worker, by stage, as its collector gives them.
    """

    statistics: Statistics
    quarantined: tuple[Quarantined, ...] = ()
    error: Exception | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def as_sent(error: Exception) -> Exception:
    """An error that survives the way to another process: itself, or its text where it cannot be made again there."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever its class needs to be made
        return CalibrationError(str(error))
    return error


class ShardWorker:
    """Collects the statistics of shares of the images, one after the other."""

    def __init__(self, job: Job) -> None:
        self._job, self._done = job, 0
        if job.folder.is_dir():
            os.chdir(job.folder)

    def process(self) -> int:
        """The number of the process that it runs in."""
        return os.getpid()

    def done(self) -> int:
        """Images of the current share that have been counted."""
        return self._done

    def collect(self, start: int, stop: int) -> Outcome:
        """Collect from the images at these places of the stream."""
        self._done = 0
        job = self._job
        stream = job.stream.part(start, stop, threads=min(16, job.processors))
        calibrator = Calibrator(job.algorithm, stream)
        collector = self._collector()
        try:
            with contextlib.suppress(TooManyUnreadableError):  # no image of this share: others may have enough
                collector.collect(job.model, calibrator, self._advance)
        except Exception as error:  # noqa: BLE001 - raised where the shares are put together
            return Outcome(Statistics(), stream.quarantined, as_sent(error))
        return Outcome(calibrator.statistics, stream.quarantined, seconds=dict(collector.seconds))

    def _collector(self) -> Collector:
        job = self._job
        if job.gpu is None:
            # One thread a part, however many processors there are: the floats must not depend on the number of workers.
            return OnnxRuntimeCollector(job.memory_limit, Spread(job.processors, 1, 1))
        from quant.collectors.tensorrt_collector import TensorRTCollector

        return TensorRTCollector(job.memory_limit, job.gpu)

    def _advance(self, images: int) -> None:
        self._done += images
