import types

import pytest

from calib.algorithms import MSE, Entropy, MinMax, Percentile
from calib.caches.cache import cache_from_amax, cache_from_text
from quant.errors import BuildError
from quant.tensorrt.bindings import TensorRT
from quant.tensorrt.building.calibrator import cache_calibrator, cache_for_tensorrt, native_calibrator
from quant.tensorrt.building.native_calibration import checked_native_cache


@pytest.fixture
def tensorrt():
    """The classes that calibrators derive from; the methods that TensorRT would call can be called without it."""
    names = ("IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator", "IInt8LegacyCalibrator")
    return TensorRT(types.SimpleNamespace(**{name: type(name, (), {}) for name in names}), "8.6.0")


class Feed:
    """Returns what it was given."""

    batch = 8

    def __init__(self, batches, error=None):
        self.batches, self.error = iter(batches), error

    def next(self, names):
        return next(self.batches, None)


@pytest.mark.parametrize(
    ("algorithm", "number", "header"),
    [
        (Entropy(), 8600, "TRT-8600-EntropyCalibration2"),
        (Entropy(), 101601, "TRT-101601-EntropyCalibration2"),
        (MinMax(), 8601, "TRT-8601-MinMaxCalibration"),
        (Percentile(99.9), 8600, "TRT-8600-EntropyCalibration2"),
        (MSE(), 8600, "TRT-8600-EntropyCalibration2"),
    ],
)
def test_cache_gets_the_header_that_the_running_release_accepts(algorithm, number, header):
    cache = cache_from_amax({"a": 127.0, "b: c": 12.7}, algorithm)
    handed, _ = cache_for_tensorrt(cache, number)
    assert handed.header == header
    assert handed.scales == cache.scales


def test_rewriting_is_said_and_only_when_something_changed():
    cache = cache_from_amax({"a": 127.0}, Entropy(), 100300)
    said = cache_for_tensorrt(cache, 8600)[1]
    assert "TRT-100300-EntropyCalibration2" in said
    assert "TRT-8600-EntropyCalibration2" in said
    assert cache_for_tensorrt(cache, 100300)[1] is None


def test_handed_over_cache_is_tensorrts_text_and_images_that_are_asked_for_are_counted(tensorrt):
    bridge = cache_calibrator(tensorrt, cache_from_amax({"a": 127.0}, MinMax()))
    assert type(bridge).__mro__[1].__name__ == "IInt8MinMaxCalibrator"
    assert bridge.read_calibration_cache() == b"TRT-8600-MinMaxCalibration\na: 3f800000\n"
    assert bridge.requested == 0
    assert bridge.get_batch(["input"]) is None
    assert bridge.requested == 1


@pytest.mark.parametrize(
    ("algorithm", "base"),
    [
        (Entropy(), "IInt8EntropyCalibrator2"),
        (MinMax(), "IInt8MinMaxCalibrator"),
        (Percentile(99.99), "IInt8LegacyCalibrator"),
    ],
)
def test_each_algorithm_calibrates_with_tensorrts_matching_class(tensorrt, algorithm, base):
    bridge = native_calibrator(tensorrt, algorithm, Feed([[1], [2]]))
    assert type(bridge).__mro__[1].__name__ == base
    assert bridge.read_calibration_cache() is None
    assert bridge.get_batch_size() == 8
    assert [bridge.get_batch(["x"]) for _ in range(3)] == [[1], [2], None]


def test_legacy_calibrator_gets_the_quantile_and_keeps_no_histograms(tensorrt):
    bridge = native_calibrator(tensorrt, Percentile(99.9), Feed([]))
    assert bridge.get_quantile() == pytest.approx(0.999)
    assert bridge.get_regression_cutoff() == 1.0
    assert bridge.read_histogram_cache(4) is None
    assert bridge.write_histogram_cache(12345, 4) is None


def test_tensorrts_memory_is_copied(tensorrt):
    bridge, memory = native_calibrator(tensorrt, Entropy(), Feed([])), bytearray(b"cache")
    bridge.write_calibration_cache(memory)
    memory[:] = b"xxxxx"
    assert bridge.written == b"cache"


def test_no_cache_is_taken_after_the_stream_failed(tensorrt):
    bridge = native_calibrator(tensorrt, Entropy(), Feed([], error=OSError("img7.png")))
    bridge.write_calibration_cache(b"half a calibration")
    assert bridge.written is None


def test_mse_is_ours_alone(tensorrt):
    with pytest.raises(BuildError, match="no calibrator for mse"):
        native_calibrator(tensorrt, MSE(), Feed([]))


def test_tensorrts_cache_must_be_one_of_the_algorithm():
    text = b"TRT-8600-EntropyCalibration2\na: 3f800000\n"
    assert checked_native_cache(text, Entropy(), 8600) == cache_from_text(text.decode())
    with pytest.raises(BuildError, match="expected the header 'TRT-8600-MinMaxCalibration'"):
        checked_native_cache(text, MinMax(), 8600)
    with pytest.raises(BuildError, match="wrote no cache"):
        checked_native_cache(None, Entropy(), 8600)
    with pytest.raises(BuildError, match="finite scale above zero"):
        checked_native_cache(b"TRT-8600-EntropyCalibration2\na: 00000000\n", Entropy(), 8600)
