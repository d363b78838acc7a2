from dataclasses import dataclass, field

import numpy as np
import pytest

from calib import (
    Calibrator,
    EntropyCalibrator,
    MinMaxCalibrator,
    MSECalibrator,
    PercentileCalibrator,
    calibrator_from_name,
    read_cache,
    write_statistics,
)
from calib.algorithms import MSE, Entropy, MinMax, Percentile, amax_from_statistics
from calib.errors import CalibrationError, NonFiniteError


@dataclass
class Batch:
    names: list[str]
    inputs: dict[str, np.ndarray] = field(default_factory=dict)


@pytest.fixture
def activations():
    generator = np.random.default_rng(7)
    return {
        "input": generator.normal(size=(12, 3, 4)).astype(np.float32),
        "relu": np.maximum(generator.laplace(size=(12, 50)), 0).astype(np.float32) * 30,
    }


def rows(activations, start, stop):
    return {name: values[start:stop] for name, values in activations.items()}


def test_minmax_scales_by_hand(tmp_path):
    calibrator = MinMaxCalibrator(cache=tmp_path / "out" / "a.cache")
    calibrator.collect({"x": np.array([[-127.0, 5.0]]), "y": np.array([[63.5]])}, images=1)
    calibrator.collect({"x": np.array([[3.0, 100.0]]), "y": np.array([[-0.5]])}, images=1)
    assert calibrator.statistics.images == 2
    assert calibrator.compute_amax() == {"x": 127.0, "y": 63.5}
    path = calibrator.write_cache()
    assert path == tmp_path / "out" / "a.cache"
    assert path.read_bytes() == b"TRT-8600-MinMaxCalibration\nx: 3f800000\ny: 3f000000\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.cache"]


def test_a_path_given_to_write_cache_wins(tmp_path):
    calibrator = MinMaxCalibrator(cache=tmp_path / "a.cache")
    calibrator.collect({"x": np.ones(3)}, 1)
    assert calibrator.write_cache(str(tmp_path / "b.cache")) == tmp_path / "b.cache"
    assert [p.name for p in tmp_path.iterdir()] == ["b.cache"]


def test_the_header_is_of_the_version_asked_for():
    calibrator = MinMaxCalibrator()
    calibrator.collect({"x": np.ones(3)}, 1)
    assert calibrator.compute_cache(version=100300).header == "TRT-100300-MinMaxCalibration"


@pytest.mark.parametrize("kind", [MinMaxCalibrator, PercentileCalibrator, MSECalibrator])
def test_merged_shards_write_the_cache_of_one_pass(tmp_path, activations, kind):
    whole = kind()
    whole.collect(activations, 12)
    shards = []
    for start, stop in ((7, 12), (0, 1), (1, 7)):
        shard = kind()
        for i in range(start, stop):
            shard.collect(rows(activations, i, i + 1), 1)
        shards.append(shard)
    shards[0].merge(shards[1])
    shards[0].merge(shards[2].statistics)
    assert shards[0].statistics.images == 12
    assert shards[0].write_cache(tmp_path / "a").read_bytes() == whole.write_cache(tmp_path / "b").read_bytes()


def test_resuming_from_disk_gives_the_cache_of_one_pass(tmp_path, activations):
    whole, first, second = (PercentileCalibrator(percentile=99.0) for _ in range(3))
    whole.collect(activations, 12)
    first.collect(rows(activations, 0, 5), 5)
    write_statistics(first.statistics, tmp_path / "calibration.h5")
    second.resume(tmp_path / "calibration.h5")
    second.collect(rows(activations, 5, 12), 7)
    assert second.compute_cache() == whole.compute_cache()
    # This also holds if something was collected before.
    third = PercentileCalibrator(percentile=99.0)
    third.collect(rows(activations, 5, 12), 7)
    third.resume(str(tmp_path / "calibration.h5"))
    assert third.compute_amax() == whole.compute_amax()


def test_a_written_cache_parses_back_equal(tmp_path, activations):
    calibrator = PercentileCalibrator(percentile=99.5, cache=tmp_path / "a.cache")
    calibrator.collect(activations, 12)
    cache = read_cache(calibrator.write_cache())
    assert cache == calibrator.compute_cache()
    assert cache.percentile == pytest.approx(99.5)


def test_a_calibrator_gives_its_stream_as_often_as_asked():
    batches = [Batch(["a", "b"]), Batch(["c"])]
    calibrator = MinMaxCalibrator(batches)
    assert [batch.names for batch in calibrator] == [["a", "b"], ["c"]]
    assert [batch.names for batch in calibrator] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("name", "kind", "algorithm"),
    [
        ("entropy", EntropyCalibrator, Entropy()),
        ("minmax", MinMaxCalibrator, MinMax()),
        ("percentile", PercentileCalibrator, Percentile(99.5)),
        ("mse", MSECalibrator, MSE()),
    ],
)
def test_a_calibrator_is_found_by_its_name(tmp_path, name, kind, algorithm):
    calibrator = calibrator_from_name(name, [], percentile=99.5, cache=str(tmp_path / "a.cache"))
    assert type(calibrator) is kind
    assert calibrator.algorithm == algorithm
    assert calibrator.cache == tmp_path / "a.cache"
    assert list(calibrator) == []


def test_an_algorithm_of_one_s_own_can_be_given():
    calibrator = Calibrator(Percentile(50))
    calibrator.collect({"x": np.array([1.0, 1.0, 8.0])}, 1)
    assert calibrator.compute_amax()["x"] == pytest.approx(1.0, abs=8 / 4096)


def test_what_is_missing_is_named(tmp_path):
    calibrator = MinMaxCalibrator()
    with pytest.raises(CalibrationError, match="expected a stream of batches, found none"):
        iter(calibrator)
    with pytest.raises(CalibrationError, match="at least one image, found none; collect first"):
        calibrator.write_cache(tmp_path / "a.cache")
    assert not list(tmp_path.iterdir())
    calibrator.collect({"x": np.ones(1)}, 1)
    with pytest.raises(CalibrationError, match="expected a path for the cache, found none"):
        calibrator.write_cache()
    with pytest.raises(CalibrationError, match="expected one of entropy"):
        calibrator_from_name("kl")


def test_another_model_s_statistics_are_refused_and_change_nothing(tmp_path):
    calibrator, other = MinMaxCalibrator(), MinMaxCalibrator()
    calibrator.collect({"x": np.ones(1)}, 1)
    other.collect({"y": np.ones(1)}, 1)
    write_statistics(other.statistics, tmp_path / "s.h5")
    with pytest.raises(CalibrationError, match="different models"):
        calibrator.merge(other)
    with pytest.raises(CalibrationError, match="different models"):
        calibrator.resume(tmp_path / "s.h5")
    with pytest.raises(CalibrationError, match=r"nothing\.h5"):
        calibrator.resume(tmp_path / "nothing.h5")
    assert calibrator.compute_amax() == {"x": 1.0}


def test_a_value_that_is_not_finite_names_its_tensor():
    with pytest.raises(NonFiniteError, match="tensor 'x'"):
        MinMaxCalibrator().collect({"ok": np.ones(2), "x": np.array([0, np.inf])}, 1)


def test_plain_entropy_spares_the_large_values_of_what_enters_a_product_of_matrices():
    logits = np.exp(3 * np.random.default_rng(0).normal(size=(2000, 64)))
    attention = (logits / logits.sum(axis=1, keepdims=True)).astype(np.float32)
    calibrator = EntropyCalibrator()
    calibrator.collect({"enters a product": attention, "does not": attention}, 1)
    calibrator.statistics.products = frozenset({"enters a product"})
    amax = calibrator.compute_amax()
    assert np.mean(attention > amax["does not"]) > 0.005  # what the divergence clips
    assert np.mean(attention > amax["enters a product"]) == pytest.approx(1e-4, rel=0.2)
    minmax = amax_from_statistics(calibrator.statistics, MinMax())
    assert minmax == {"enters a product": attention.max(), "does not": attention.max()}


def test_what_enters_a_product_is_clipped_as_before_where_that_is_less():
    calibrator = EntropyCalibrator()
    calibrator.collect({"flat": np.linspace(-1, 1, 100_000)}, 1)
    before = calibrator.compute_amax()
    calibrator.statistics.products = frozenset({"flat"})
    assert calibrator.compute_amax() == before
    assert before["flat"] >= 0.9999
