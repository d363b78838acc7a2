"""Our scales against those that TensorRT 8.6.0 wrote for the same 512 images, in batches of 64."""

import numpy as np
import pytest
from PIL import Image

from calib import Entropy, MinMax, Percentile, Statistics, cache_from_text, read_cache
from calib.algorithms import amax_from_statistics
from calib.caches.cache import cache_from_amax, text_from_cache
from calib.calibrator import EntropyCalibrator
from quant import collect_statistics, load_model

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


@pytest.fixture(scope="module")
def images(calibration_images):
    """The first 512 in name order, float32 [512, 3, 32, 32]."""
    files = sorted(calibration_images.glob("*.jpg"))[:512]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return (pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - MEAN) / STD


@pytest.fixture(scope="module")
def statistics(shared, images, batch_of):
    """Statistics of a model, collected once."""
    collected: dict[str, Statistics] = {}

    def collect(name):
        if name not in collected:
            batches = [batch_of(first=i, input=images[i : i + 64]) for i in range(0, 512, 64)]
            calibrator = EntropyCalibrator(batches, match_tensorrt=True)  # keeps what every algorithm needs
            collect_statistics(load_model(shared / "models" / f"{name}.onnx"), calibrator)
            collected[name] = calibrator.statistics
        return collected[name]

    return collect


@pytest.fixture
def reference(shared):
    """A cache of TensorRT's."""
    return lambda name: read_cache(shared / "reference" / "tensorrt-8.6.0" / f"{name}.cache")


def ratios(statistics, algorithm, reference):
    """Our amax over TensorRT's, of every tensor named in both."""
    both = [name for name in reference.scales if name in statistics.histograms]
    assert len(both) > 50
    return {name: algorithm.amax(statistics.histograms[name]) / reference.amax[name] for name in both}


@pytest.mark.parametrize("name", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_minmax_equals_tensorrt_s(statistics, reference, name):
    for tensor, ratio in ratios(statistics(name), MinMax(), reference(f"{name}.minmax")).items():
        assert ratio == pytest.approx(1, abs=1e-3), tensor


def test_percentile_equals_tensorrt_s_legacy_calibrator(statistics, reference):
    for tensor, ratio in ratios(statistics("resnet20"), Percentile(99.99), reference("resnet20.legacy")).items():
        assert ratio == pytest.approx(1, abs=5e-3), tensor


@pytest.mark.parametrize("name", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_our_tensors_cover_all_that_tensorrt_names(statistics, reference, name):
    histograms = statistics(name).histograms
    theirs = [t for t in reference(f"{name}.entropy2").scales if not t.startswith("(Unnamed Layer*")]
    assert [tensor for tensor in theirs if tensor not in histograms] == []
    written = text_from_cache(cache_from_amax({t: MinMax().amax(h) for t, h in histograms.items()}, MinMax()))
    assert set(cache_from_text(written).scales) == set(histograms)


@pytest.mark.parametrize("name", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_entropy_that_matches_tensorrt_gives_its_very_answers(statistics, reference, name):
    amax = amax_from_statistics(statistics(name), Entropy(match_tensorrt=True))
    theirs = reference(f"{name}.entropy2").amax
    errors = np.array([abs(amax[tensor] / theirs[tensor] - 1) for tensor in theirs if tensor in amax])
    assert len(errors) > 50
    assert (errors <= 2e-3).mean() >= 0.95
    assert np.median(errors) < 1e-5


@pytest.mark.parametrize("name", ["resnet20", "resnet20-outlier", "mobilenetv2"])
def test_entropy_independent_of_order_comes_close_to_tensorrt_s(statistics, reference, name):
    found = np.array(list(ratios(statistics(name), Entropy(), reference(f"{name}.entropy2")).values()))
    assert (abs(found - 1) <= 0.1).mean() >= 0.9
    assert np.median(found) == pytest.approx(1, abs=1e-3)


def test_every_cache_of_tensorrt_is_read_and_written_back_byte_by_byte(shared):
    paths = sorted((shared / "reference" / "tensorrt-8.6.0").glob("*.cache"))
    assert len(paths) == 9
    for path in paths:
        assert text_from_cache(read_cache(path)) == path.read_text(), path.name
