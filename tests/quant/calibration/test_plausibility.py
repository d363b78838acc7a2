from dataclasses import replace

import numpy as np
import pytest

from calib.algorithms import MinMax, algorithm_from_name, amax_from_statistics
from calib.caches.cache import CalibrationCache, cache_from_amax, read_cache
from calib.caches.plausibility import expected_amax, implausible_scales, plausibility
from calib.calibrator import MinMaxCalibrator
from calib.histograms.statistics import Statistics
from datasets import BatchStream, Preprocessing, open_source
from quant import collect_statistics, load_model


@pytest.mark.parametrize(
    ("amax", "is_implausible"),
    [(100.0, False), (96.0, False), (90.0, True), (1.0, True), (160.0, False), (7000.0, True)],
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


def changed(cache, factors):
    """The cache with some scales times a factor."""
    return CalibrationCache(cache.header, {n: scale * factors.get(n, 1) for n, scale in cache.scales.items()})


def swapped(cache, first, second):
    scales = dict(cache.scales)
    scales[first], scales[second] = scales[second], scales[first]
    return CalibrationCache(cache.header, scales)


@pytest.fixture(scope="module")
def few():
    """Twelve tensors of 64 images, of magnitudes 1 to 2^11, each of another shape."""
    values, found = np.random.default_rng(0), Statistics(images=64)
    for i in range(12):
        found.add(f"t{i}", values.normal(size=20_000) * 2**i if i % 2 else values.exponential(size=20_000) * 2**i)
    return found


@pytest.fixture(scope="module", params=["entropy", "minmax", "percentile", "mse"])
def sound(request):
    """A cache of the same tensors from ten times the values."""
    values, many = np.random.default_rng(1), Statistics(images=640)
    for i in range(12):
        many.add(f"t{i}", values.normal(size=200_000) * 2**i if i % 2 else values.exponential(size=200_000) * 2**i)
    algorithm = algorithm_from_name(request.param)
    return cache_from_amax(amax_from_statistics(many, algorithm), algorithm)


def test_a_sound_cache_is_not_warned_of(few, sound):
    assert plausibility(sound, few).text == ""


@pytest.mark.parametrize("factor", [0.01, 0.1, 0.4, 2.5, 10, 100])
def test_a_whole_cache_times_a_factor_is_warned_of_with_the_figure(few, sound, factor):
    before = plausibility(sound, few)
    found = plausibility(changed(sound, dict.fromkeys(sound.scales, factor)), few)
    assert found.ratio == pytest.approx(before.ratio * factor)
    assert not found.as_a_whole
    assert f"they are {found.ratio:.2g} times what {sound.algo} gives on 64 images (median of 12 tensors)" in found.text


@pytest.mark.parametrize("factor", [0.1, 0.2, 4, 10])
def test_a_single_scale_times_a_factor_is_named(few, sound, factor):
    for name in sound.scales:
        found = plausibility(changed(sound, {name: factor}), few)
        assert [odd.tensor for odd in found.odd] == [name]
        assert found.as_a_whole
        assert found.text.startswith(f"1 of 12 scales do not suit the images: '{name}' keeps values up to ")


def test_scales_swapped_between_tensors_are_both_named(few, sound):
    for first, second in (("t0", "t4"), ("t3", "t8"), ("t11", "t1")):
        found = plausibility(swapped(sound, first, second), few)
        assert {odd.tensor for odd in found.odd} == {first, second}


def test_fewer_images_allow_more(few, sound):
    doubled = changed(sound, dict.fromkeys(sound.scales, 1.7 / plausibility(sound, few).ratio))
    assert not plausibility(doubled, few).as_a_whole
    assert plausibility(doubled, replace(few, images=8)).as_a_whole


@pytest.fixture(scope="module")
def of_images(shared, calibration_images):
    """Statistics of 64 images that TensorRT's own caches were not made from."""

    def collect(model):
        source = open_source(calibration_images)
        preprocessing = Preprocessing.from_spec("imagenet").bound_to((None, 3, 32, 32), "float32")
        few = MinMaxCalibrator(BatchStream(source, range(600, 664), preprocessing=preprocessing))
        collect_statistics(load_model(shared / "models" / f"{model}.onnx"), few)
        return few.statistics

    return collect


@pytest.mark.parametrize("model", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_tensorrts_own_caches_are_plausible_and_changed_ones_are_not(shared, of_images, model):
    statistics = of_images(model)
    for path in sorted((shared / "reference" / "tensorrt-8.6.0").glob(f"{model}.*.cache")):
        cache = read_cache(path)
        expected = expected_amax(cache, statistics)
        assert plausibility(cache, statistics).text == "", path

        def judged(factors, cache=cache, expected=expected):
            return plausibility(changed(cache, factors), statistics, expected)

        names = [name for name in cache.scales if name in statistics.histograms]
        for factor in (0.01, 0.1, 0.5, 2, 10, 100):
            assert not judged(dict.fromkeys(cache.scales, factor)).as_a_whole
        for factor in (0.1, 4, 10):
            for name in names[::7]:
                assert name in {odd.tensor for odd in judged({name: factor}).odd}
        names.sort(key=cache.scales.__getitem__)
        pairs = zip(names[:8], names[-8:], strict=True)
        far = [(a, b) for a, b in pairs if cache.scales[b] > 3.3 * cache.scales[a]]
        assert far
        for pair in far:
            found = plausibility(swapped(cache, *pair), statistics, expected)
            assert {odd.tensor for odd in found.odd} & set(pair)
