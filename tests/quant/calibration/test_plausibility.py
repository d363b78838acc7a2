import numpy as np
import pytest

from calib.algorithms import MinMax
from calib.caches.cache import CalibrationCache, cache_from_amax, read_cache
from calib.caches.plausibility import implausible_scales
from calib.calibrator import MinMaxCalibrator
from calib.histograms.statistics import Statistics
from datasets import BatchStream, Preprocessing, open_source
from quant import collect_statistics, load_model


@pytest.mark.parametrize(
    ("amax", "is_implausible"),
    [(100.0, False), (96.0, False), (90.0, True), (1.0, True), (5000.0, False), (7000.0, True)],
)
def test_scales_that_clip_much_or_resolve_nothing_are_found(amax, is_implausible):
    statistics = Statistics()
    statistics.add("t", np.arange(1, 101, dtype=np.float32))  # a hundredth of the values beyond each whole number
    found = implausible_scales(cache_from_amax({"t": amax, "unknown": 1.0}, MinMax()), statistics)
    assert [item.tensor for item in found] == (["t"] if is_implausible else [])
    if amax == 90:
        assert found[0].clipped == pytest.approx(0.10, abs=0.005)
        assert "'t' keeps values up to 90, but the images reach 100 (10% are clipped)" in str(found[0])


def test_values_at_amax_are_not_clipped_however_many_and_however_the_scale_was_rounded():
    statistics = Statistics()
    statistics.add("t", np.array([0.5, 1.0, 1.0, 1.0], np.float32))
    assert implausible_scales(cache_from_amax({"t": 1 - 4e-9}, MinMax()), statistics) == []


def test_tensor_that_is_zero_in_these_images_is_no_evidence():
    statistics = Statistics()
    statistics.add("t", np.zeros(4, np.float32))
    assert implausible_scales(cache_from_amax({"t": 1.0}, MinMax()), statistics) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_tensorrts_own_caches_are_plausible_and_crushed_ones_are_not(shared, calibration_images, model):
    source = open_source(calibration_images)
    preprocessing = Preprocessing.from_spec("imagenet").bound_to((None, 3, 32, 32), "float32")
    few = MinMaxCalibrator(BatchStream(source, range(500, 532), preprocessing=preprocessing))
    collect_statistics(load_model(shared / "models" / f"{model}.onnx"), few)
    for path in sorted((shared / "reference" / "tensorrt-8.6.0").glob(f"{model}.*.cache")):
        cache = read_cache(path)
        assert [str(item) for item in implausible_scales(cache, few.statistics)] == []
        crushed = CalibrationCache(cache.header, {name: scale / 100 for name, scale in cache.scales.items()})
        assert len(implausible_scales(crushed, few.statistics)) > len(cache.scales) / 2
