import os
import signal
import threading

import numpy as np
import pytest
from gpu_sections.accuracy import by_kind

from calib.algorithms import algorithm_from_name
from calib.caches.cache import read_cache
from calib.calibrator import EntropyCalibrator, MinMaxCalibrator, calibrator_from_name
from calib.errors import NonFiniteError
from datasets import BatchStream, Preprocessing, open_source
from quant import load_model
from quant.cuda.batch_feed import CalibrationFeed, FeedInput
from quant.cuda.device import memory_info
from quant.errors import BuildError
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.native_calibration import native_cache_from_onnx

pytestmark = [pytest.mark.gpu]


@pytest.fixture(autouse=True)
def calibrators():
    """TensorRT 11 has none."""
    if not load_tensorrt().has_calibrators:
        pytest.skip(f"TensorRT {load_tensorrt().version} has no calibrators")


class Interrupted:
    """A stream in which something happens before a batch is given."""

    def __init__(self, stream, before, act):
        self.stream, self.before, self.act = stream, before, act

    def __iter__(self):
        for i, batch in enumerate(self.stream):
            yield self.act(batch) if i == self.before else batch


@pytest.mark.parametrize("algo", ["entropy", "minmax", "percentile"])
def test_each_algorithm_gives_scales_of_all_tensors(digits, digit_stream, digit_cache, fast, algo):
    seen = []
    calibrator = calibrator_from_name(algo, digit_stream())
    cache, figures = native_cache_from_onnx(digits.proto, calibrator, 32, fast, advance=seen.append)
    assert cache.algo == algorithm_from_name(algo).name
    assert sum(seen) == figures.images == 256
    convolutions = {node.input[0] for node in digits.proto.graph.node if node.op_type == "Conv"}
    assert convolutions <= set(cache.scales)


def test_minmax_finds_the_largest_magnitude_of_the_images(digits, digit_stream, digit_statistics, fast):
    cache, _ = native_cache_from_onnx(digits.proto, MinMaxCalibrator(digit_stream()), 32, fast)
    largest = max(np.abs(batch.inputs["input"]).max() for batch in digit_stream())
    assert cache.amax["input"] == pytest.approx(largest, rel=1e-6)
    ours = digit_statistics.compute_amax()
    shared_tensors = sorted(set(ours) & set(cache.amax))
    assert len(shared_tensors) >= 20
    np.testing.assert_allclose(
        [cache.amax[name] for name in shared_tensors], [ours[name] for name in shared_tensors], rtol=5e-3
    )


def test_ragged_last_batch_changes_no_range(digits, digit_stream, fast):
    cache, figures = native_cache_from_onnx(digits.proto, MinMaxCalibrator(digit_stream(70)), 32, fast)
    assert (figures.images, figures.filled_up) == (70, 26)
    largest = max(np.abs(batch.inputs["input"]).max() for batch in digit_stream(70))
    assert cache.amax["input"] == pytest.approx(largest, rel=1e-6)


@pytest.mark.usefixtures("memory_returns")
def test_error_in_the_middle_is_raised_after_the_build_and_leaves_nothing(digits, digit_stream, fast):
    def fail(batch):
        raise OSError("img0100.png: truncated")

    calibrator = EntropyCalibrator(Interrupted(digit_stream(), 3, fail))
    with pytest.raises(OSError, match=r"img0100\.png"):
        native_cache_from_onnx(digits.proto, calibrator, 32, fast)
    assert not [
        thread.name for thread in threading.enumerate() if thread.name in ("calibration-feed", "tensorrt-build")
    ]


@pytest.mark.usefixtures("memory_returns")
def test_nan_names_the_image(digits, digit_stream, fast):
    def spoil(batch):
        batch.inputs["input"][5, 0, 0, 0] = np.nan
        spoil.name = batch.names[5]
        return batch

    with pytest.raises(NonFiniteError) as caught:
        native_cache_from_onnx(digits.proto, EntropyCalibrator(Interrupted(digit_stream(), 2, spoil)), 32, fast)
    assert f"image '{spoil.name}'" in str(caught.value)


@pytest.mark.usefixtures("memory_returns")
def test_ctrl_c_ends_the_calibration_without_a_cache(digits, digit_stream, fast):
    def interrupt(batch):
        os.kill(os.getpid(), signal.SIGINT)
        return batch

    with pytest.raises(KeyboardInterrupt):
        native_cache_from_onnx(digits.proto, EntropyCalibrator(Interrupted(digit_stream(), 3, interrupt)), 32, fast)
    assert not [
        thread.name for thread in threading.enumerate() if thread.name in ("calibration-feed", "tensorrt-build")
    ]


def test_mse_is_refused_before_anything_is_read(digits, fast):
    calibrator = calibrator_from_name("mse", Interrupted([], 0, None))
    with pytest.raises(BuildError, match="no calibrator for mse"):
        native_cache_from_onnx(digits.proto, calibrator, 32, fast)


@pytest.mark.usefixtures("warm", "alone")
def test_device_memory_is_flat_over_200_batches(batch_of, random):
    images = random(64, 3, 64, 64)
    free = []
    wanted = [FeedInput("input", images.shape, "float32")]
    stream = (batch_of(input=images) for _ in range(200))
    with CalibrationFeed(EntropyCalibrator(stream), wanted) as feed:
        while feed.next(["input"]) is not None:
            free.append(memory_info()[0])
    assert feed.error is None
    assert len(free) == 200
    assert max(free) == min(free)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "algo", "reference", "tolerance", "share"),
    [
        ("resnet20", "minmax", "minmax", 0.005, 1.0),
        ("resnet20", "entropy", "entropy2", 0.01, 0.95),
        ("resnet20", "percentile", "legacy", 0.01, 0.95),
        ("mobilenetv2", "minmax", "minmax", 0.005, 1.0),
        ("mobilenetv2", "entropy", "entropy2", 0.01, 0.95),
    ],
)
def test_same_images_in_the_same_batches_give_tensorrts_reference_cache(
    shared, calibration_images, fast, model, algo, reference, tolerance, share
):
    expected = by_kind(read_cache(shared / "reference" / "tensorrt-8.6.0" / f"{model}.{reference}.cache").amax)
    preprocessing = Preprocessing.from_spec("imagenet").bound_to((None, 3, 32, 32), "float32")
    stream = BatchStream(open_source(calibration_images), range(512), preprocessing=preprocessing, batch_size=64)
    proto = load_model(shared / "models" / f"{model}.onnx").proto
    cache, _ = native_cache_from_onnx(proto, calibrator_from_name(algo, stream), 64, fast)
    found = by_kind(cache.amax)
    assert set(found) == set(expected)
    ratios = np.array([found[name] / expected[name] for name in expected])
    assert (np.abs(ratios - 1) <= tolerance).mean() >= share
