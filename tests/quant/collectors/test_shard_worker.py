"""Shares of the images and their workers, without Ray: shares put together are one pass."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from calib import CalibrationError, MinMaxCalibrator, NonFiniteError
from calib.algorithms import MinMax
from calib.histograms.statistics import Statistics
from datasets import BatchStream, Preprocessing, open_source
from datasets.errors import TooManyUnreadableError
from quant import collect_statistics, load_model
from quant.collectors.ray_collector import Share, _Told, processors_of_worker, shares_of
from quant.collectors.shard_worker import Job, ShardWorker, as_sent


@pytest.fixture(scope="module")
def digits(demo_master):
    return load_model(demo_master / "model.onnx")


@pytest.fixture(scope="module")
def stream(demo_master, digits):
    """Images of the embedded sample."""
    info = digits.inputs[0]
    fit = Preprocessing.from_toml(demo_master / "preprocess.toml").bound_to(info.shape, info.dtype)
    source = open_source(demo_master / "imgs")
    return lambda images=70: BatchStream(
        source, np.arange(images), preprocessing=fit, input_name=info.name, batch_size=16
    )


@pytest.mark.parametrize(
    ("images", "batch", "workers", "most", "ends"),
    [
        (100, 10, 2, 1000, [50, 100]),
        (95, 10, 2, 1000, [50, 95]),
        (95, 10, 3, 1000, [30, 60, 95]),
        (20, 10, 8, 1000, [10, 20]),
        (100, 10, 2, 25, [20, 50, 70, 100]),
        (1, 64, 4, 1000, [1]),
    ],
)
def test_shares_are_whole_batches_that_cover_all_images(images, batch, workers, most, ends):
    shares = shares_of(images, batch, workers, most)
    assert [share.stop for share in shares] == ends
    assert [share.start for share in shares] == [0, *ends[:-1]]
    assert [share.number for share in shares] == list(range(len(ends)))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_shares_put_together_are_one_pass_bit_for_bit(digits, stream, workers):
    whole = MinMaxCalibrator(stream())
    collect_statistics(digits, whole)
    job = pickle.loads(pickle.dumps(Job(digits, MinMax(), stream(), Path.cwd(), 1, 1 << 28)))  # as it is sent
    worker, merged, seen = ShardWorker(job), Statistics(), []
    for share in shares_of(70, 16, workers):
        outcome = worker.collect(share.start, share.stop)
        assert (outcome.error, outcome.quarantined) == (None, ())
        seen.append(worker.done())
        merged = merged.merged(outcome.statistics)
    assert (merged.images, sum(seen)) == (70, 70)
    expected = whole.statistics
    assert {name: h.digest() for name, h in merged.histograms.items()} == {
        name: h.digest() for name, h in expected.histograms.items()
    }
    assert (merged.products, merged.left_out) == (expected.products, expected.left_out)


def test_unreadable_images_are_set_aside_as_in_one_pass(digits, stream, tmp_path, demo_master):
    source = demo_master / "imgs"
    files = sorted(path for path in source.rglob("*") if path.is_file())[:40]
    for i, path in enumerate(files):
        (tmp_path / f"{i:02}.png").write_bytes(b"no image" if i in (3, 21) else path.read_bytes())
    info = digits.inputs[0]
    fit = Preprocessing.from_toml(demo_master / "preprocess.toml").bound_to(info.shape, info.dtype)

    def spoiled(**options):
        return BatchStream(open_source(tmp_path), preprocessing=fit, input_name=info.name, batch_size=10, **options)

    whole = MinMaxCalibrator(spoiled())
    collect_statistics(digits, whole)
    parts = spoiled()
    worker = ShardWorker(Job(digits, MinMax(), parts, Path.cwd(), 1, 1 << 28))
    outcomes = [worker.collect(share.start, share.stop) for share in shares_of(40, 10, 2)]
    parts.set_aside(item for outcome in outcomes for item in outcome.quarantined)
    assert parts.quarantined == whole.batches.quarantined
    merged = outcomes[0].statistics.merged(outcomes[1].statistics)
    assert {n: h.digest() for n, h in merged.histograms.items()} == {
        n: h.digest() for n, h in whole.statistics.histograms.items()
    }
    with pytest.raises(TooManyUnreadableError, match=r"2 of 40 images are unreadable, more than --max-bad 0\.01"):
        spoiled(max_bad=0.01).set_aside(parts.quarantined)


def test_a_share_without_a_readable_image_is_no_error_of_its_own(digits, tmp_path, demo_master):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    info = digits.inputs[0]
    fit = Preprocessing.from_toml(demo_master / "preprocess.toml").bound_to(info.shape, info.dtype)
    stream = BatchStream(open_source(tmp_path), preprocessing=fit, input_name=info.name, batch_size=2)
    outcome = ShardWorker(Job(digits, MinMax(), stream, Path.cwd(), 1, 1 << 28)).collect(0, 2)
    assert (outcome.error, outcome.statistics.images, len(outcome.quarantined)) == (None, 0, 2)


def test_what_a_worker_meets_comes_back_as_it_was(digits, stream):
    job = Job(digits, MinMax(), stream(), Path.cwd(), 1, 1 << 28)
    job.stream.constants["image"] = np.full((), np.nan, np.float32)  # no input of that name
    error = ShardWorker(job).collect(0, 16).error
    assert error is not None
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class NeedsTwoError(CalibrationError):
    def __init__(self, where, what):
        super().__init__(f"{where}: {what}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(NeedsTwoError("here", "wrong"), CalibrationError), (NonFiniteError("nan", tensor="x", index=3), NonFiniteError)],
)
def test_errors_keep_their_words_on_the_way(error, kind):
    found = pickle.loads(pickle.dumps(as_sent(error)))
    assert (type(found), str(found)) == (kind, str(error))
    assert getattr(found, "index", None) == getattr(error, "index", None)


@pytest.mark.parametrize(
    ("machines", "workers", "size"),
    [
        ([(16, 16)], 2, 8),
        ([(16, 16)], 3, 5),
        ([(6, 6), (6, 6)], 3, 3),  # 4 each would leave the third without a place
        ([(2, 2)], 3, 0),
        ([(32, 8), (32, 8)], 16, 4),  # by GPUs
        ([(32, 1), (32, 0)], 2, 0),
        ([], 1, 0),
    ],
)
def test_all_workers_have_a_place(machines, workers, size):
    assert processors_of_worker(machines, workers) == size


def test_progress_of_a_share_that_is_done_again_is_told_once():
    told, first = [], Share(0, 0, 100)
    progress = _Told(told.append)
    for images in (40, 60, 0, 30, 100):
        progress.of(first, images)
    progress.of(Share(1, 100, 150), 50)
    assert told == [40, 20, 40, 50]
