"""How far the scales of the first images are from those of all: held against passes over these images alone."""

import numpy as np
import pytest

from calib.algorithms import Entropy, MinMax, Percentile, amax_from_statistics
from calib.caches.convergence import ScalesOfPart, ScalesOverImages, enough_images
from calib.histograms.statistics import Statistics


def passed(batches, algorithm):
    """A pass over batches of one tensor, as a collector makes it; and its statistics."""
    taken, statistics = ScalesOverImages(algorithm, sum(map(len, batches))), Statistics()
    for batch in batches:
        statistics.add("x", batch)
        statistics.images += len(batch)
        if taken.is_due(statistics.images):
            taken.take(statistics)
    return taken.parts(statistics, amax_from_statistics(statistics, algorithm))


@pytest.mark.parametrize("algorithm", [MinMax(), Percentile(99.0), Entropy()])
def test_the_scales_of_a_part_are_those_of_a_pass_over_it_alone(algorithm):
    rng = np.random.default_rng(0)
    batches = [rng.laplace(size=(8, 500)).astype(np.float32) * (1 + 0.05 * i) for i in range(8)]
    parts = passed(batches, algorithm)
    assert [part.images for part in parts] == [8, 16, 32, 48]  # an eighth, a quarter, a half, three quarters of 64

    def alone(count):
        statistics = Statistics(images=8 * count)
        statistics.add("x", np.concatenate(batches[:count]))
        return amax_from_statistics(statistics, algorithm)["x"]

    for part in parts:
        assert part.largest == part.median == pytest.approx(abs(alone(part.images // 8) / alone(8) - 1))
        assert part.moved == (part.largest > 0.01)
        assert part.tensor == "x"


def test_images_that_bring_nothing_new_move_nothing():
    batch = np.arange(-100, 100, dtype=np.float32).reshape(8, 25)
    parts = passed([batch] * 8, MinMax())
    assert [(part.moved, part.largest, part.noise_db) for part in parts] == [(0, 0.0, 0.0)] * 4
    assert enough_images(parts) == 8


def test_a_late_outlier_is_told_by_what_it_does_to_the_noise():
    calm = np.linspace(-1, 1, 800, dtype=np.float32).reshape(8, 100)
    wild = calm.copy()
    wild[-1, -1] = 4
    parts = passed([calm] * 7 + [wild], MinMax())
    assert parts[-1].largest == pytest.approx(0.75)
    # Steps of 4 / 127 instead of 1 / 127 mean 16 times the noise within -1..1; but 1 / 127 clips 4 to 1, an error
    # of 9 in 6,400 values, against 6,400 times (1 / 127)^2 / 12 of rounding.
    rounding = 6400 / 127**2 / 12
    expected = abs(10 * np.log10((rounding + 9) / (16 * rounding)))
    assert parts[-1].noise_db == pytest.approx(expected, abs=0.3)
    assert enough_images(parts) is None


@pytest.mark.parametrize(("images", "taken"), [(128, [64]), (100, [64]), (512, [64, 128, 256, 384]), (64, [])])
def test_scales_are_taken_at_the_ends_of_batches_that_are_nearest(images, taken):
    """Three quarters of 128 images lie between batches of 64: then those of the first batch tell."""
    statistics, over = Statistics(), ScalesOverImages(MinMax(), images, 64)
    for start in range(0, images, 64):
        batch = np.arange(1, min(64, images - start) + 1, dtype=np.float32)
        statistics.add("x", batch)
        statistics.images += len(batch)
        if over.is_due(statistics.images):
            over.take(statistics)
    parts = over.parts(statistics, amax_from_statistics(statistics, MinMax()))
    assert [part.images for part in parts] == taken


def part(images, moved=0, noise=0.0):
    return ScalesOfPart(images, 10, moved, 0.0, 0.0, "x", noise)


@pytest.mark.parametrize(
    ("parts", "enough"),
    [
        ([part(64), part(128), part(384)], 64),
        ([part(64, 2, 0.5), part(128, 3, 0.05), part(384)], 128),  # moves without noise do no harm
        ([part(64), part(128, 1, 0.5), part(384)], 384),  # what was calm once may not be so again
        ([part(64), part(128), part(384, 1, 0.1)], None),
        ([], None),
    ],
)
def test_enough_is_the_fewest_from_which_on_all_do(parts, enough):
    assert enough_images(parts) == enough


def test_what_is_taken_depends_on_counts_and_never_on_time():
    """An eighth of the images of few values: the algorithm would cost more than its share of such a pass."""
    statistics = Statistics()
    for i in range(1000):
        statistics.add(f"x{i}", np.ones((64, 2), np.float32))
    statistics.images = 64
    taken = ScalesOverImages(Entropy(), 512)
    assert taken.is_due(64)
    taken.take(statistics)
    assert not taken.is_due(64)
    assert not taken.is_due(256)
    assert taken.is_due(384)  # the last quarter is always looked at
    assert not taken.is_due(512)
    statistics.images = 384
    taken.take(statistics)
    statistics.images = 512
    (found,) = taken.parts(statistics, amax_from_statistics(statistics, Entropy()))
    assert 10 <= found.tensors <= 30  # 1,000 tensors would take 4 s, of which 0.1 s may be spent
