import math

import numpy as np
import pytest

from calib.histograms.histogram import Histogram
from calib.histograms.noise import clipped_share, coarse_counts, sqnr_db


def histogram_of(values):
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def sqnr_of(values, amax):
    """The same, from the values themselves, quantized one by one."""
    values = np.asarray(values, np.float32).astype(np.float64)
    scale = amax / 127
    quantized = np.clip(np.rint(values / scale), -128, 127) * scale
    return 10 * math.log10((values**2).sum() / ((values - quantized) ** 2).sum())


def test_values_spread_evenly_by_hand():
    # Uniform on [0, 1): signal 1/3; noise of steps of 1/127: (1/127)^2 / 12. 10 log10(4 * 127^2) = 48.097 dB.
    values = (np.arange(1 << 20) + 0.5) / (1 << 20)
    assert sqnr_db(histogram_of(values), 1.0) == pytest.approx(48.097, abs=0.01)


def test_clipping_by_hand():
    # Uniform on [0, 2) with amax 1: the upper half has errors 0 to 1, squares 1/3 on average; the whole signal 4/3.
    values = 2 * (np.arange(1 << 20) + 0.5) / (1 << 20)
    assert sqnr_db(histogram_of(values), 1.0) == pytest.approx(10 * math.log10((4 / 3) / (1 / 6)), abs=0.01)
    assert clipped_share(histogram_of(values), 1.0) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("share", [0.003, 0.05, 0.3, 0.8, 1.0, 1.7])
@pytest.mark.parametrize("kind", ["normal", "relu", "heavy"])
def test_equals_quantizing_every_value(kind, share):
    values = np.random.default_rng(5).normal(size=200_000)
    values = {"normal": values, "relu": np.maximum(values, 0), "heavy": values**3}[kind]
    amax = share * float(np.abs(values).max())
    assert sqnr_db(histogram_of(values), amax) == pytest.approx(sqnr_of(values, amax), abs=0.1)
    expected = float((np.abs(values) > amax).mean())
    assert clipped_share(histogram_of(values), amax) == pytest.approx(expected, abs=2e-4)


def test_negative_values_have_one_level_more():
    # 128/127 of amax lies on the grid below zero, and is clipped by a whole step above it.
    near = 128 / 127 + np.linspace(-1e-3, 1e-3, 1001)
    assert sqnr_db(histogram_of(-near), 1.0) > sqnr_db(histogram_of(near), 1.0) + 15


def test_zeros_are_neither_signal_nor_noise():
    values = np.random.default_rng(1).normal(size=10_000)
    alone, among = histogram_of(values), histogram_of(np.concatenate([values, np.zeros(90_000)]))
    assert sqnr_db(among, 2.0) == pytest.approx(sqnr_db(alone, 2.0))
    assert clipped_share(among, 2.0) == pytest.approx(clipped_share(alone, 2.0) / 10)
    assert sqnr_db(histogram_of(np.zeros(10)), 1.0) == math.inf
    assert clipped_share(histogram_of(np.zeros(10)), 1.0) == 0


def test_nothing_is_clipped_at_the_largest_magnitude():
    assert clipped_share(histogram_of([-3.0, 1.0, 2.5]), 3.0) == 0


def test_coarse_counts_keep_every_value():
    values = np.random.default_rng(2).normal(size=5000)
    counts, width = coarse_counts(histogram_of(values), 64)
    assert counts.sum() == 5000
    assert 32 <= len(counts) <= 64
    assert (len(counts) - 1) * width <= np.abs(values).max() <= len(counts) * width
    edges = np.arange(len(counts) + 1) * width
    assert counts.tolist() == np.histogram(np.abs(values.astype(np.float32)), edges)[0].tolist()
