"""Workers on a real Ray on this machine; skipped where it is not installed, as in the usual environment for tests."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest

from calib import EntropyCalibrator, NonFiniteError
from datasets import BatchStream
from datasets.arrays.memory import in_memory
from quant import collect_statistics
from quant.collectors.ray_collector import RayCollector, WorkersError, _Crew
from quant.collectors.shard_worker import ShardWorker
from quant.tensorrt.building.options import BuilderOptions

ray = pytest.importorskip("ray", reason="ray is not installed; pip install 'calib-int8[ray]'")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all tests: starting it takes seconds."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def model(saved, residual_net):
    return saved(residual_net)


@pytest.fixture
def stream(model, random):
    """Samples in memory, as one that a `BatchStream` gives."""

    def make(images=60, bad=None):
        samples = np.random.default_rng(0).standard_normal((images, 3, 8, 8)).astype(np.float32)
        if bad is not None:
            samples[bad, 0, 0, 0] = np.nan
        return BatchStream(in_memory(samples, model.inputs, 1 << 30), batch_size=4)

    return make


def digests(calibrator):
    return {name: h.digest() for name, h in calibrator.statistics.histograms.items()}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_bits_of_one_pass(model, stream, workers):
    whole, shared, seen = EntropyCalibrator(stream()), EntropyCalibrator(stream()), []
    collect_statistics(model, whole)
    collector = RayCollector(workers)
    collector.collect(model, shared, seen.append)
    assert digests(shared) == digests(whole)
    assert shared.compute_cache() == whole.compute_cache()
    assert shared.statistics.images == sum(seen) == 60
    assert len(collector.of_shares) == workers
    assert collector.seconds["counting (threads)"] == sum(part["counting (threads)"] for part in collector.of_shares)
    assert collector.seconds["start-up (workers)"] > 0


def test_a_worker_that_is_killed_half_way_leaves_no_trace(model, stream, monkeypatch):
    whole, shared, notes, killed = EntropyCalibrator(stream()), EntropyCalibrator(stream()), [], []
    collect_statistics(model, whole)
    look = _Crew._look

    def kill_one(crew, told):
        if not killed and crew._busy:
            worker = next(iter(crew._busy.values()))[0]
            killed.append(ray.get(worker.process.remote()))
            os.kill(killed[0], signal.SIGKILL)
        look(crew, told)

    monkeypatch.setattr(_Crew, "_look", kill_one)
    monkeypatch.setattr("quant.collectors.ray_collector._LOOK_SECONDS", 0.01)
    RayCollector(2, note=notes.append).collect(model, shared)
    assert killed
    assert digests(shared) == digests(whole)
    assert any(note.startswith("a worker has died; images ") for note in notes)


def test_workers_that_die_again_and_again_stop_the_pass(model, stream, monkeypatch):
    class Dying(ShardWorker):
        def collect(self, start, stop):
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("quant.collectors.ray_collector.ShardWorker", Dying)
    with pytest.raises(WorkersError, match="images 0 to 32: 3 workers have died over them"):
        RayCollector(1).collect(model, EntropyCalibrator(stream(32)))


def test_nan_names_the_tensor_and_the_image_of_the_earliest_share(model, stream):
    with pytest.raises(NonFiniteError, match=r"tensor 'input', image '#45'"):
        RayCollector(3).collect(model, EntropyCalibrator(stream(bad=45)))


def test_more_workers_than_processors_are_refused(model, stream):
    with pytest.raises(WorkersError, match="expected a processor for each of 9 workers, found fewer by Ray"):
        RayCollector(9).collect(model, EntropyCalibrator(stream()))


def test_a_gpu_for_each_worker_is_asked_for(model, stream):
    with pytest.raises(WorkersError, match="expected a GPU and a processor for each of 2 workers"):
        RayCollector(2, gpu=BuilderOptions()).collect(model, EntropyCalibrator(stream()))


def test_ctrl_c_ends_the_workers(model, stream):
    def press():
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    calibrator = EntropyCalibrator(stream(20_000))
    with pytest.raises(KeyboardInterrupt):
        RayCollector(2).collect(model, calibrator)
    presser.join()
    assert calibrator.statistics.images == 0


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:1", "Connection refused"), ("here", "expected HOST:PORT"), ("127.0.0.1:99999", "")],
)
def test_a_cluster_that_is_not_there_is_named(model, stream, monkeypatch, address, words):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(WorkersError, match=rf"Ray at {re.escape(address)} cannot be reached: .*{words}.*leave out"):
        RayCollector(2, address).collect(model, EntropyCalibrator(stream()))
