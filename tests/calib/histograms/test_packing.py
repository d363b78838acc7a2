"""Counts and histograms in little memory, without loss."""

import numpy as np
import pytest

from calib.histograms.counting import Counts
from calib.histograms.histogram import Histogram
from calib.histograms.packed_counts import PackedCounts
from calib.histograms.packing import MANY, PackedHistograms, gathered
from calib.histograms.split_histogram import SplitHistogram
from calib.histograms.statistics import Statistics, read_statistics, write_statistics


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((2, 8), np.int64),
        np.eye(3, 100_000, dtype=np.int64),
        np.arange(64, dtype=np.int64).reshape(2, 32),
        np.array([[0, 2**40, 0, 255], [256, 65536, 2**32, 2**62]]),
        np.zeros((0, 4), np.int64),
    ],
)
def test_packing_loses_nothing(counts):
    found = PackedCounts.of(counts).unpacked()
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, counts)


def test_a_histogram_of_few_values_takes_little():
    histogram = Histogram()
    histogram.add(np.random.default_rng(0).normal(size=1000))
    packed = PackedCounts.of(histogram.signed_counts)
    assert packed.values.nbytes + packed.places.nbytes < histogram.signed_counts.nbytes / 30


@pytest.mark.parametrize("limit", [np.inf, 0.5])
def test_a_counter_counts_the_same_whenever_it_is_packed(limit):
    chance = np.random.default_rng(1)
    plain, packed = SplitHistogram(limit), SplitHistogram(limit)
    packed.pack()
    for scale in (0.1, 30.0, 1e-3, 0.0):
        values = chance.normal(size=777) * scale
        plain.add(values)
        packed.add(values)
        if scale != 30.0:
            packed.pack()
            packed.pack()
        for of in ("whole", "clipped")[: 1 if np.isinf(limit) else 2]:
            assert getattr(plain, of)().digest() == getattr(packed, of)().digest()


def test_a_packed_counter_holds_no_arrays_between_its_parts():
    counts = Counts(dict.fromkeys("abc", np.inf), first_batch=False, packed=True)
    arrays = [array for h in counts.histograms.values() for array in (h._counts, h._packed.values, h._packed.places)]
    assert sum((array.base if array.base is not None else array).nbytes for array in arrays) == 0
    for histogram in counts.histograms.values():
        histogram.add(np.zeros(9))
    arrays = [array for h in counts.histograms.values() for array in (h._counts, h._packed.values, h._packed.places)]
    assert sum((array.base if array.base is not None else array).nbytes for array in arrays) < 100


def test_packed_histograms_are_a_mapping_of_histograms():
    packed = PackedHistograms()
    one, two = Histogram(), Histogram()
    one.add([1.0, -2.0, 0.0])
    two.add([5.0])
    packed["one"], packed["two"] = one, two
    assert (list(packed), len(packed), "one" in packed, "none" in packed) == (["one", "two"], 2, True, False)
    assert packed["one"].digest() == one.digest()
    packed["one"].add([9.0])  # of a copy
    assert packed["one"].digest() == one.digest()
    del packed["two"]
    with pytest.raises(KeyError):
        packed["two"]


def test_statistics_of_many_tensors_are_packed_and_the_same_everywhere(tmp_path):
    def histograms():
        for i in range(MANY + 1):
            histogram = Histogram()
            histogram.add([i, -0.5])
            yield f"t{i}", histogram

    many = Statistics(gathered(histograms(), MANY + 1), 3)
    plain = Statistics(dict(histograms()), 3)
    assert isinstance(many.histograms, PackedHistograms)
    write_statistics(many, tmp_path / "many.h5")
    write_statistics(plain, tmp_path / "plain.h5")
    assert (tmp_path / "many.h5").read_bytes() == (tmp_path / "plain.h5").read_bytes()
    read = read_statistics(tmp_path / "many.h5")
    assert isinstance(read.histograms, PackedHistograms)
    merged = read.merged(plain)
    assert isinstance(merged.histograms, PackedHistograms)
    assert merged.histograms["t7"].digest() == plain.merged(plain).histograms["t7"].digest()
    many.add("t7", [1.0])
    many.add("new", [1.0])
    assert (many.histograms["t7"].count, many.histograms["new"].count) == (3, 1)
