"""Statistics from several workers on Ray, on this machine or on a cluster.

The images are divided into shares of whole batches, and each worker collects the statistics of one share after the
other, with ONNX Runtime on its processors or with TensorRT on its GPU. Histograms of shares merge exactly, so the
result is that of one pass, whatever the number of workers. If a worker dies, another one does its share again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calib.calibrator import Calibrator
from calib.histograms.statistics import Statistics
from calib.processors import usable_processors
from datasets import BatchStream
from quant.collectors.collector import MEMORY_LIMIT, Advance, Collector, ignore
from quant.collectors.onnxruntime_collector import OnnxRuntimeCollector
from quant.collectors.shard_worker import Job, Outcome, ShardWorker
from quant.errors import AcceleratorError, BuildError
from quant.onnx_graph.model import OnnxModel
from quant.tensorrt.building.options import BuilderOptions

_MOST_IN_SHARE = 1 << 16  # images: what is lost with a worker
_MOST_TRIES = 3  # of a share whose worker dies
_LOOK_SECONDS = 0.5  # between two looks at the progress
_STORE_BYTES = 512 << 20  # of Ray's memory for what is sent, beside the model
_CONNECT_SECONDS = 20
_FEWER = "use fewer --workers"
_INSTEAD = "leave out --workers and --ray"


class WorkersError(AcceleratorError):
    """Ray cannot be used, or its workers die."""


@dataclass(frozen=True)
class Share:
    """Images of a stream.

    Attributes:
        number: Its place among the shares.
        start: Place of its first image in the stream.
        stop: Place after its last one.
    """

    number: int
    start: int
    stop: int


def shares_of(images: int, batch: int, workers: int, most: int = _MOST_IN_SHARE) -> list[Share]:
    """Divide images into shares of whole batches, as many as there are workers, or more if they would be too large.

    Args:
        images: Number of images.
        batch: Images in a batch.
        workers: Number of workers.
        most: Images in a share.
    """
    batches = -(-images // batch)
    count = min(batches, max(workers, -(-images // most)))
    ends = [min(images, batches * (i + 1) // count * batch) for i in range(count)]
    return [Share(i, start, stop) for i, (start, stop) in enumerate(zip([0, *ends], ends, strict=False))]


def processors_of_worker(machines: Sequence[tuple[int, int]], workers: int) -> int:
    """The most processors that each worker can have, so that all run at a time; 0 if they cannot.

    Args:
        machines: Processors of each machine, and workers that it can have at most.
        workers: Number of workers.
    """
    most = max((processors for processors, _ in machines), default=0)
    sizes = range(most, 0, -1)
    return next((n for n in sizes if sum(min(p // n, places) for p, places in machines) >= workers), 0)


class RayCollector:
    """Collects with workers on Ray.

    Attributes:
        where: See `Collector`.
        seconds: See there; those of all workers together.
        of_shares: Seconds by stage of each share of the last pass.
    """

    def __init__(
        self,
        workers: int = 0,
        address: str = "",
        *,
        memory_limit: int = MEMORY_LIMIT,
        gpu: BuilderOptions | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Keep the settings; nothing is started.

        Args:
            workers: Number of workers; 0 for one on each machine, or on each GPU.
            address: Of a Ray cluster; empty for this machine alone.
            memory_limit: Bytes of activations and counts of all workers on this machine; of each on a GPU or a cluster.
            gpu: How engines are built, if the workers count on GPUs; None for processors.
            note: Called with lines to display.

        Raises:
            AcceleratorError: Ray is not installed.
        """
        self._ray = _ray()
        self._workers, self._address = workers, address
        self._memory_limit, self._note = memory_limit, note
        self._gpu = None if gpu is None else replace(gpu, timing_cache=None)  # the file is the starting process's
        self.where = "TensorRT on GPUs" if gpu is not None else ""
        self.seconds: Mapping[str, float] = {}
        self.of_shares: tuple[Mapping[str, float], ...] = ()

    def collect(self, model: OnnxModel, calibrator: Calibrator, advance: Advance = ignore) -> None:
        """See `Collector`. Batches that are not a `BatchStream` cannot be divided, and are counted here.

        Raises:
            WorkersError: Ray cannot be reached, or workers die again and again.
            Exception: What a worker met, as one pass would: the error of the earliest share.
        """
        stream = calibrator.batches
        if not isinstance(stream, BatchStream) or len(stream) < 2:
            self._note("workers: there is nothing to divide; the statistics are made in this process")
            local = self._local()
            local.collect(model, calibrator, advance)
            self.seconds, self.of_shares = local.seconds, ()
            return
        if getattr(calibrator.algorithm, "match_tensorrt", False):
            raise BuildError("match_tensorrt: workers do not share the first batch; leave out --workers")
        with self._cluster(model) as (count, processors):
            shared = 1 if self._address or self._gpu is not None else count
            job = Job(
                model,
                calibrator.algorithm,
                stream,
                Path.cwd(),
                processors,
                self._memory_limit // shared,
                self._gpu,
            )
            most = stream.images if self._gpu is not None else _MOST_IN_SHARE  # an engine takes long to build
            shares = shares_of(stream.images, stream.batch_size, count, most)
            with _Crew(self._ray, job, min(count, len(shares)), self._note) as crew:
                outcomes = crew.work(shares, stream, calibrator, advance)
        self.of_shares = tuple(outcome.seconds for outcome in outcomes)
        self.seconds = _summed(self.of_shares)

    def _local(self) -> Collector:
        if self._gpu is None:
            return OnnxRuntimeCollector(self._memory_limit)
        from quant.collectors.tensorrt_collector import TensorRTCollector

        return TensorRTCollector(self._memory_limit, self._gpu, note=self._note)

    @contextlib.contextmanager
    def _cluster(self, model: OnnxModel) -> Iterator[tuple[int, int]]:
        """Connect to Ray; gives the number of workers and of processors of each.

        A Ray that the program has started itself is used and left as it is.
        """
        ours = not self._ray.is_initialized()
        if ours:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers about this machine
            quiet = {"logging_level": "ERROR", "log_to_driver": False}
            try:
                if self._address:
                    _look_for(self._address)
                    self._ray.init(address=self._address, **quiet)
                else:
                    processors = max(usable_processors(), self._workers)
                    store = _STORE_BYTES + 2 * model.bytes
                    self._ray.init(num_cpus=processors, include_dashboard=False, object_store_memory=store, **quiet)
            except (RuntimeError, ValueError, OverflowError, OSError) as error:
                where = f"at {self._address}" if self._address else "on this machine"
                reason = " ".join(str(error).split())[:200]
                raise WorkersError(f"Ray {where} cannot be reached: {reason}", _INSTEAD) from error
        try:
            yield self._sizes()
        finally:
            if ours:
                self._ray.shutdown()

    def _sizes(self) -> tuple[int, int]:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        machines = [(int(found.get("CPU", 0)), int(found.get("GPU", 0))) for found in nodes]
        if self._gpu is None:
            machines = [(processors, processors) for processors, _ in machines]
        count = self._workers or (sum(gpus for _, gpus in machines) if self._gpu is not None else len(machines))
        size = processors_of_worker(machines, count)
        if not count or not size:
            kind = "processor" if self._gpu is None else "GPU and a processor"
            raise WorkersError(
                f"expected a {kind} for each of {count} workers, found fewer by Ray", "use fewer --workers"
            )
        return count, size if self._address else min(size, usable_processors())


@dataclass
class _Crew:
    """The workers; a context manager that ends them.

    Attributes:
        ray: The module.
        job: What they do.
        size: Number of workers.
        note: Called with lines to display.
    """

    ray: Any
    job: Job
    size: int
    note: Callable[[str], None]
    _free: list[Any] = field(default_factory=list)
    _busy: dict[Any, tuple[Any, Share]] = field(default_factory=dict)  # by what Ray will give

    def __enter__(self) -> _Crew:
        self._kind = self.ray.remote(ShardWorker).options(
            num_cpus=self.job.processors, num_gpus=int(self.job.gpu is not None), max_concurrency=2
        )
        try:
            self._job = self.ray.put(self.job)
        except (TypeError, AttributeError, pickle.PicklingError) as error:  # as pickle says it
            reason = " ".join(str(error).split())[:200]
            raise WorkersError(f"the data cannot be sent to workers: {reason}", _INSTEAD) from error
        self._free = [self._kind.remote(self._job) for _ in range(self.size)]
        return self

    def __exit__(self, *error: object) -> None:
        for worker in (*self._free, *(worker for worker, _ in self._busy.values())):
            with contextlib.suppress(Exception):  # it may be dead already
                self.ray.kill(worker)

    def work(self, shares: list[Share], stream: BatchStream, calibrator: Calibrator, advance: Advance) -> list[Outcome]:
        """Have all shares done, and put them together in their order; gives what came of each.

        Raises:
            WorkersError: A share's workers die again and again.
            Exception: What a worker met; that of the earliest share.
        """
        left, tries = deque(shares), dict.fromkeys(shares, 0)
        done: dict[int, Outcome] = {}
        told = _Told(advance)
        while left or self._busy:
            failed = min((number for number, outcome in done.items() if outcome.error is not None), default=None)
            while left and self._free and failed is None:
                worker, share = self._free.pop(), left.popleft()
                self._busy[worker.collect.remote(share.start, share.stop)] = worker, share
            if failed is not None and all(share.number > failed for _, share in self._busy.values()):
                break
            ready, _ = self.ray.wait(list(self._busy), timeout=_LOOK_SECONDS)
            for each in ready:
                worker, share = self._busy.pop(each)
                try:
                    done[share.number] = self.ray.get(each)
                    self._free.append(worker)
                    told.of(share, share.stop - share.start - len(done[share.number].quarantined))
                except self.ray.exceptions.RayActorError as error:
                    tries[share] += 1
                    if tries[share] == _MOST_TRIES:
                        raise WorkersError(
                            f"images {share.start} to {share.stop}: {_MOST_TRIES} workers have died over them "
                            f"({' '.join(str(error).split())[:200]}); use a smaller --memory-limit or --batch-size"
                        ) from error
                    self.note(f"a worker has died; images {share.start} to {share.stop} are done again")
                    left.appendleft(share)
                    self._free.append(self._kind.remote(self._job))
            self._look(told)
        outcomes = [done[number] for number in sorted(done)]
        self._put_together(outcomes, stream, calibrator)
        return outcomes

    def _look(self, told: _Told) -> None:
        """Tell how far the workers are."""
        asked = {worker.done.remote(): share for worker, share in self._busy.values()}
        ready, _ = self.ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_SECONDS) if asked else ([], [])
        for each in ready:
            with contextlib.suppress(self.ray.exceptions.RayActorError):  # seen when its share is asked for
                told.of(asked[each], self.ray.get(each))

    @staticmethod
    def _put_together(outcomes: list[Outcome], stream: BatchStream, calibrator: Calibrator) -> None:
        merged = Statistics()
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            merged = merged.merged(outcome.statistics)
            over = calibrator.over_images
            if over is not None and over.is_due(merged.images):
                over.take(merged)
        stream.set_aside(item for outcome in outcomes for item in outcome.quarantined)
        calibrator.merge(merged)


def _summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by stage of all workers together."""
    total: dict[str, float] = {}
    for seconds in parts:
        for stage, spent in seconds.items():
            name = stage if stage.endswith("(threads)") else f"{stage} (workers)"
            total[name] = total.get(name, 0.0) + spent
    return total


class _Told:
    """Progress: how many images of each share were told; a share that is done again is not told twice."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._images: dict[Share, int] = {}

    def of(self, share: Share, images: int) -> None:
        """Tell that so many images of a share are done."""
        before = self._images.get(share, 0)
        if images > before:
            self._images[share] = images
            self._advance(images - before)


def _look_for(address: str) -> None:
    """Look whether something answers at HOST:PORT or ray://HOST:PORT: Ray itself tries for many minutes.

    Raises:
        OSError: Nothing does.
        ValueError: The address has another form; `auto` is left to Ray.
    """
    if address == "auto":
        return
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not (separator and host and port.isdigit()):
        raise ValueError("expected HOST:PORT, ray://HOST:PORT or auto")
    socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()


def _ray() -> Any:  # noqa: ANN401 - ray is optional, and without it has no type
    try:
        import ray
    except ModuleNotFoundError as error:
        raise WorkersError("Ray is not installed; pip install 'calib-int8[ray]'", _INSTEAD) from error
    return ray
