"""What becomes of each kind of cache; TensorRT itself would take or drop most of them without a word."""

import pytest

from calib.caches.cache import CalibrationCache, cache_from_text, read_cache, text_from_cache
from calib.caches.plausibility import implausible_scales
from calib.errors import CacheError
from quant.errors import BuildError
from quant.settings.batch_range import BatchRange
from quant.tensorrt.bindings import load_tensorrt
from quant.tensorrt.building.builder import engine_from_onnx
from quant.tensorrt.building.calibrator import cache_calibrator

pytestmark = pytest.mark.gpu
BATCH = BatchRange(32, 32, 32)


@pytest.fixture(autouse=True)
def implicit():
    """TensorRT 11 reads no caches."""
    if not load_tensorrt().has_calibrators:
        pytest.skip(f"TensorRT {load_tensorrt().version} reads no calibration caches")


@pytest.fixture
def built(digits, fast):
    """Builds INT8 from a cache; gives the engine and what was said. No image is anywhere near."""

    def build(cache):
        notes = []
        return engine_from_onnx(digits.proto, "int8", BATCH, fast, cache=cache, note=notes.append), notes

    return build


def with_header(cache, header):
    return CalibrationCache(header, cache.scales)


def test_cache_of_this_release_is_used_in_silence(built, digit_cache):
    engine, notes = built(with_header(digit_cache, f"TRT-{load_tensorrt().number}-MinMaxCalibration"))
    assert notes == []
    assert engine.without_scale == ()


@pytest.mark.parametrize("number", [8601, 8503, 100300])
def test_header_of_another_release_is_rewritten_and_that_is_said(built, digit_cache, number):
    engine, notes = built(with_header(digit_cache, f"TRT-{number}-MinMaxCalibration"))
    assert f"TRT-{number}-MinMaxCalibration" in notes[0]
    assert engine.without_scale == ()


def test_cache_of_another_algorithm_is_read_by_that_algorithms_class(built, digit_cache):
    engine, _ = built(with_header(digit_cache, f"TRT-{load_tensorrt().number}-EntropyCalibration2"))
    assert engine.without_scale == ()


@pytest.mark.parametrize("algorithm", ["percentile", "mse"])
def test_scales_that_tensorrt_has_no_reader_for_are_handed_over_as_entropys(built, digit_statistics, algorithm):
    from calib.algorithms import algorithm_from_name
    from calib.caches.cache import cache_from_amax

    engine, notes = built(cache_from_amax(digit_statistics.compute_amax(), algorithm_from_name(algorithm)))
    assert "EntropyCalibration2" in notes[0]
    assert engine.without_scale == ()


def test_partial_cache_is_said_to_leave_tensors_float(built, digit_cache):
    half = dict(list(digit_cache.scales.items())[: len(digit_cache.scales) // 2])
    engine, _ = built(CalibrationCache(digit_cache.header, half))
    assert set(engine.without_scale) & (set(digit_cache.scales) - set(half))


def test_crushed_cache_is_found_by_a_few_images(digit_cache, digit_statistics):
    crushed = CalibrationCache(digit_cache.header, {name: scale / 100 for name, scale in digit_cache.scales.items()})
    assert len(implausible_scales(crushed, digit_statistics.statistics)) > len(crushed.scales) / 2
    assert implausible_scales(digit_cache, digit_statistics.statistics) == []


def test_windows_line_ends_are_read(built, digit_cache, tmp_path):
    path = tmp_path / "calibration.cache"
    path.write_bytes(text_from_cache(digit_cache).replace("\n", "\r\n").encode())
    engine, _ = built(read_cache(path))
    assert engine.without_scale == ()


@pytest.mark.parametrize("text", ["hello\nworld\n", "TRT-8600-EntropyCalibration2\nt: 00000000\n", ""])
def test_garbage_does_not_reach_tensorrt(text):
    with pytest.raises(CacheError):
        cache_from_text(text)


def test_refusal_by_tensorrt_is_an_error_and_never_a_silent_recalibration(built, digit_cache, monkeypatch):
    from quant.tensorrt.building import builder

    def unchanged(tensorrt, cache):
        return cache_calibrator(tensorrt, with_header(cache, "TRT-100300-MinMaxCalibration"))

    monkeypatch.setattr(builder, "cache_calibrator", unchanged)
    with pytest.raises(BuildError):
        built(digit_cache)
